"""What a node of n8n does to the world, by its parameters: SQL, tables, workflows, hosts. Pure.

Parameters are as n8n saves them: values, expressions (they begin with ``=``) and *resource locators*
(``{"__rl": true, "mode": "list" | "id" | "name" | "url", "value": ...}``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from platforms.base import Access, TableUse

SQL_NODES = frozenset(
    {"postgres", "mySql", "microsoftSql", "timescaleDb", "questDb", "crateDb", "snowflake", "oracleSql"}
)
SQL_TOOLS = frozenset({f"{name}Tool" for name in SQL_NODES})
HTTP_NODES = frozenset({"httpRequest", "httpRequestTool", "graphql", "rssFeedRead"})
CALL_NODES = frozenset({"executeWorkflow", "toolWorkflow"})
CODE_NODES = frozenset({"code", "function", "functionItem", "aiTransform", "toolCode"})
MACHINE_NODES = frozenset(
    {"executeCommand", "ssh", "readWriteFile", "readBinaryFile", "readBinaryFiles", "writeBinaryFile", "git", "ftp"}
)
PURE_NODES = frozenset(
    """
    aggregate compareDatasets compression convertToFile crypto dateTime editImage executionData extractFromFile filter
    form html htmlExtract iCal if itemLists jwt limit markdown merge moveBinaryData noOp removeDuplicates renameKeys
    respondToWebhook set simulate sort splitInBatches splitOut spreadsheetFile stopAndError summarize switch totp wait
    xml webhook manualTrigger scheduleTrigger cron interval executeWorkflowTrigger errorTrigger workflowTrigger
    formTrigger n8nTrigger
    """.split()  # noqa: SIM905 - fifty lines otherwise
)
"""Nodes that touch nothing outside the run (or only answer the caller)."""

WRITES = frozenset({"insert", "upsert", "update", "deleteTable", "delete", "create"})
READS = frozenset({"select"})
EXPRESSION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
COMPUTED = re.compile(r"=\s*\{\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}\}\s*", re.DOTALL)
HOST = re.compile(
    r"(?i)^=?\s*[a-z][a-z0-9+.-]*://(?:[^/@\s]*@)?(?P<host>\[[^\]]+\](?::\d+)?|[^/?#\s{}]+)(?P<rest>.*)$", re.DOTALL
)
WORKFLOW_URL = re.compile(r"/workflow/([A-Za-z0-9_-]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What :class:`platforms.base.Node` holds of a node beyond its name and parameters."""

    sql: tuple[str, ...] = ()
    tables: tuple[TableUse, ...] = ()
    calls: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


def read(kind: str, parameters: Mapping[str, Any]) -> Reading:
    """The node of type ``kind`` read. A node that is not known is a reading with ``unsure``. May raise on parameters
    of a form that n8n does not write (``TypeError``, ``AttributeError``)."""
    name = kind.rpartition(".")[2]
    for names, reader in READERS:
        if name in names:
            return reader(parameters)
    if name in PURE_NODES:
        return Reading()
    for names, why in DARK:
        if name in names:
            return Reading(unsure=(why,))
    return Reading(unsure=(f"what a node of type {kind or 'none'} reads and writes is not known",))


def value_of(parameter: Any) -> str:
    """The value of a plain parameter or of a resource locator, as text; empty without one."""
    if isinstance(parameter, Mapping):
        parameter = parameter.get("value")
    return "" if parameter is None else str(parameter).strip()


def is_expression(text: str) -> bool:
    return text.startswith("=")


def _sql_node(parameters: Mapping[str, Any]) -> Reading:
    operation = str(parameters.get("operation") or "insert")
    if operation == "executeQuery":
        return _statement(str(parameters.get("query") or ""))
    if operation not in WRITES | READS:
        return Reading(unsure=(f"what its operation {operation} does is not known",))
    table, schema = value_of(parameters.get("table")), value_of(parameters.get("schema"))
    if not table or is_expression(table) or is_expression(schema):
        verb = "reads" if operation in READS else "writes"
        return Reading(unsure=(f"a table that it {verb} is only named at run time",))
    if "." in table and not schema:
        schema, _, table = table.partition(".")
    looked_at, unsure = _conditions(parameters)
    if operation in READS:
        chosen = _chosen(parameters)
        columns = () if not chosen or unsure else _unique([*chosen, *looked_at])
        return Reading(tables=(_use(schema, table, Access.READ, columns),), unsure=unsure)
    written, more = _written(operation, parameters)
    uses = [_use(schema, table, Access.WRITE, written)]
    if looked_at:
        uses.append(_use(schema, table, Access.READ, looked_at))
    return Reading(tables=tuple(uses), unsure=(*unsure, *more))


def _statement(query: str) -> Reading:
    text = query.strip()
    if not text:
        return Reading(unsure=("its statement is empty",))
    if not is_expression(text):
        return Reading(sql=(text,))
    if COMPUTED.fullmatch(text) or not EXPRESSION.sub("", text[1:]).strip():
        return Reading(unsure=("its statement is only known at run time",))
    return Reading(sql=(text[1:].strip(),))


def _written(operation: str, parameters: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns that are written (none: all, or not to be known) and what is not sure of them."""
    if operation in ("deleteTable", "delete"):
        command = str(parameters.get("deleteCommand") or "truncate")
        return (), ("it drops the table",) if command == "drop" else ()
    columns = parameters.get("columns")
    if isinstance(columns, Mapping) and columns.get("mappingMode") == "defineBelow":
        value = columns.get("value")
        names = [str(name) for name in value] if isinstance(value, Mapping) else []
        return _certain(name for name in names if operation != "update" or name not in _matching(parameters))
    if isinstance(columns, str) and columns.strip():
        return _certain(name.strip() for name in columns.split(","))
    sent = parameters.get("valuesToSend") or parameters.get("fieldsUi")
    if parameters.get("dataMode") == "defineBelow" and isinstance(sent, Mapping):
        pairs = sent.get("values") or sent.get("fieldValues") or []
        return _certain(value_of(pair.get("column") or pair.get("fieldId")) for pair in pairs)
    return (), ()


def _certain(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = _unique(names)
    if any(is_expression(name) for name in found):
        return (), ("a column that it writes is only named at run time",)
    return found, ()


def _matching(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns by which rows are found for an update or upsert."""
    columns = parameters.get("columns")
    if isinstance(columns, Mapping) and isinstance(columns.get("matchingColumns"), list):
        return _unique(str(name) for name in columns["matchingColumns"])
    return _unique([value_of(parameters.get("columnToMatchOn")), *str(parameters.get("updateKey") or "").split(",")])


def _conditions(parameters: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns that conditions look at, and what is not sure of them."""
    where = parameters.get("where")
    pairs = where.get("values") or where.get("whereValues") or [] if isinstance(where, Mapping) else []
    names = [value_of(pair.get("column")) for pair in pairs if isinstance(pair, Mapping)]
    if str(parameters.get("operation")) in ("update", "upsert"):
        names += _matching(parameters)
    if any(is_expression(name) for name in names):
        return (), ("a column of its conditions is only named at run time",)
    return _unique(names), ()


def _chosen(parameters: Mapping[str, Any]) -> list[str]:
    """Columns that a select returns; none: all."""
    options = parameters.get("options")
    listed = options.get("outputColumns") if isinstance(options, Mapping) else None
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    return [] if "*" in names or any(is_expression(name) for name in names) else names


def _http_node(parameters: Mapping[str, Any]) -> Reading:
    url = value_of(parameters.get("url") or parameters.get("endpoint"))
    found = HOST.match(url)
    complete = found is not None and not (url.startswith("=") and found["rest"].startswith("{"))
    if found is not None and complete:
        return Reading(hosts=(found["host"].lower(),))
    if url and not is_expression(url) and "{{" not in url:
        return Reading(hosts=(url.split("/")[0].lower(),))
    return Reading(unsure=("the server that it calls is only known at run time",))


def _call_node(parameters: Mapping[str, Any]) -> Reading:
    source = str(parameters.get("source") or "database")
    if source == "url":
        return Reading(unsure=("it runs a workflow that it loads from an address",))
    if source in ("localFile", "parameter"):
        return Reading(unsure=("it runs a workflow that the platform does not list",))
    target = value_of(parameters.get("workflowId"))
    if is_expression(target) and EXPRESSION.search(target):
        return Reading(unsure=("which workflow it starts is only known at run time",))
    target = target.removeprefix("=").strip()
    by_url = WORKFLOW_URL.search(target)
    if by_url:
        target = by_url[1]
    return Reading(calls=(target,)) if target else Reading(unsure=("it names no workflow to start",))


def _use(schema: str, table: str, access: Access, columns: tuple[str, ...]) -> TableUse:
    return TableUse(table=table, access=access, schema=schema or None, columns=columns)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


READERS = ((SQL_NODES | SQL_TOOLS, _sql_node), (HTTP_NODES, _http_node), (CALL_NODES, _call_node))
DARK = (
    (CODE_NODES, "what its code does cannot be known from the definition"),
    (MACHINE_NODES, "what it does to files, machines or other systems is not known"),
)
