"""Reading n8n's nodes: entries, SQL, tables, calls, hosts, and what cannot be known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.base import Access, EntryKind, Node, TableUse
from platforms.n8n_outline import HIDDEN, credentials_of, outline

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


def node(kind: str, name: str = "N", **fields: Any) -> dict[str, Any]:
    return {"id": "1", "name": name, "type": f"n8n-nodes-base.{kind}", "typeVersion": 1, "position": [0, 0], **fields}


def only(kind: str, **parameters: Any) -> Node:
    (found,) = outline({"name": "w", "nodes": [node(kind, parameters=parameters)]}).nodes
    return found


def use(table: str, access: Access, *columns: str, schema: str | None = None) -> TableUse:
    return TableUse(table=table, access=access, schema=schema, columns=columns)


READ, WRITE = Access.READ, Access.WRITE


@pytest.mark.parametrize(
    ("kind", "parameters", "said"),
    [
        ("webhook", {"path": "orders", "httpMethod": "POST"}, (EntryKind.WEBHOOK, "POST", "/webhook/orders", None)),
        ("webhook", {"path": "orders"}, (EntryKind.WEBHOOK, "GET", "/webhook/orders", None)),
        ("webhook", {"path": "={{ $env.P }}"}, (EntryKind.WEBHOOK, None, None, None)),
        ("formTrigger", {"path": "ask"}, (EntryKind.WEBHOOK, "POST", "/form/ask", None)),
        ("manualTrigger", {}, (EntryKind.MANUAL, None, None, None)),
        ("executeWorkflowTrigger", {}, (EntryKind.CALL, None, None, None)),
        ("postgresTrigger", {}, (EntryKind.EVENT, None, None, None)),
        ("errorTrigger", {}, (EntryKind.EVENT, None, None, None)),
        (
            "scheduleTrigger",
            {"rule": {"interval": [{"field": "cronExpression", "expression": "0 3 * * *"}]}},
            (EntryKind.SCHEDULE, None, None, "0 3 * * *"),
        ),
        (
            "scheduleTrigger",
            {"rule": {"interval": [{"field": "hours", "hoursInterval": 2}]}},
            (EntryKind.SCHEDULE, None, None, '{"field": "hours", "hoursInterval": 2}'),
        ),
    ],
)
def test_entries(kind: str, parameters: dict[str, Any], said: tuple[Any, ...]) -> None:
    (entry,) = outline({"name": "w", "nodes": [node(kind, parameters=parameters)]}).entries
    assert (entry.kind, entry.method, entry.path, entry.schedule) == said
    assert entry.node == "N"
    assert outline({"nodes": [node(kind, parameters=parameters, disabled=True)]}).entries == ()


def test_a_webhook_of_several_methods_has_several_entries() -> None:
    found = outline({"nodes": [node("webhook", parameters={"path": "p", "httpMethod": ["POST", "PUT"]})]}).entries
    assert [(e.method, e.path) for e in found] == [("POST", "/webhook/p"), ("PUT", "/webhook/p")]


@pytest.mark.parametrize(
    ("query", "sql", "unsure"),
    [
        ("SELECT 1", ("SELECT 1",), 0),
        ("=INSERT INTO t VALUES ({{ $json.id }}, $1)", ("INSERT INTO t VALUES ({{ $json.id }}, $1)",), 0),
        ("={{ $json.query }}", (), 1),
        ("={{ { a: 1 }.a }}", (), 1),
        ("={{ $json.a }} {{ $json.b }}", (), 1),
        ("", (), 1),
    ],
)
@pytest.mark.parametrize("kind", ["postgres", "mySql", "microsoftSql"])
def test_statements_are_told_as_written(kind: str, query: str, sql: tuple[str, ...], unsure: int) -> None:
    found = only(kind, operation="executeQuery", query=query)
    assert (found.sql, len(found.unsure), found.tables) == (sql, unsure, ())


def located(value: str, mode: str = "list") -> dict[str, Any]:
    return {"__rl": True, "mode": mode, "value": value, "cachedResultName": value}


@pytest.mark.parametrize(
    ("parameters", "tables"),
    [
        (
            {
                "schema": located("shop"),
                "table": located("orders"),
                "columns": {"mappingMode": "defineBelow", "value": {"id": "=1", "total": 2}, "matchingColumns": []},
            },
            (use("orders", WRITE, "id", "total", schema="shop"),),
        ),
        (
            {"operation": "insert", "table": located("orders", "name"), "columns": {"mappingMode": "autoMapInputData"}},
            (use("orders", WRITE),),
        ),
        (
            {
                "operation": "update",
                "table": located("orders"),
                "columns": {
                    "mappingMode": "defineBelow",
                    "value": {"id": "=1", "total": 2},
                    "matchingColumns": ["id"],
                },
            },
            (use("orders", WRITE, "total"), use("orders", READ, "id")),
        ),
        (
            {
                "operation": "update",
                "table": "orders",
                "dataMode": "defineBelow",
                "columnToMatchOn": "id",
                "valuesToSend": {"values": [{"column": "total", "value": "1"}]},
            },
            (use("orders", WRITE, "total"), use("orders", READ, "id")),
        ),
        (
            {"operation": "insert", "schema": "shop", "table": "orders", "columns": "id, total"},
            (use("orders", WRITE, "id", "total", schema="shop"),),
        ),
        (
            {
                "operation": "select",
                "table": located("orders"),
                "where": {"values": [{"column": "id", "condition": "equal", "value": "1"}]},
                "options": {"outputColumns": ["total"]},
            },
            (use("orders", READ, "total", "id"),),
        ),
        ({"operation": "select", "table": located("shop.orders")}, (use("orders", READ, schema="shop"),)),
        (
            {
                "operation": "deleteTable",
                "table": located("orders"),
                "deleteCommand": "delete",
                "where": {"values": [{"column": "id"}]},
            },
            (use("orders", WRITE), use("orders", READ, "id")),
        ),
    ],
)
@pytest.mark.parametrize("kind", ["postgres", "mySql"])
def test_tables_and_columns(kind: str, parameters: dict[str, Any], tables: tuple[TableUse, ...]) -> None:
    found = only(kind, **parameters)
    assert (found.tables, found.unsure) == (tables, ())


@pytest.mark.parametrize(
    "parameters",
    [
        {"operation": "insert", "table": located("={{ $json.table }}")},
        {"operation": "insert"},
        {"operation": "vacuum", "table": "orders"},
        {"operation": "deleteTable", "table": "orders", "deleteCommand": "drop"},
        {"operation": "insert", "table": "orders", "columns": {"mappingMode": "defineBelow", "value": {"={{ 1 }}": 2}}},
    ],
)
def test_what_is_only_known_at_run_time_is_unsure(parameters: dict[str, Any]) -> None:
    assert len(only("postgres", **parameters).unsure) == 1


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://api.Example.com/v1/x", ("api.example.com",)),
        ("=https://api.example.com:8443/v1/{{ $json.id }}", ("api.example.com:8443",)),
        ("https://user:hush@example.com/", ("example.com",)),
        ("example.com/path", ("example.com",)),
        ("=https://{{ $json.host }}/x", ()),
        ("=https://api.{{ $json.region }}.example.com/x", ()),
        ("={{ $json.url }}", ()),
        ("", ()),
    ],
)
def test_hosts(url: str, hosts: tuple[str, ...]) -> None:
    found = only("httpRequest", url=url)
    assert (found.hosts, bool(found.unsure)) == (hosts, not hosts)


@pytest.mark.parametrize(
    ("parameters", "calls"),
    [
        ({"workflowId": "w1"}, ("w1",)),
        ({"workflowId": located("w1")}, ("w1",)),
        ({"workflowId": located("w1", "id")}, ("w1",)),
        ({"workflowId": located("=w1", "id")}, ("w1",)),
        ({"workflowId": located("https://n8n.example/workflow/w1?x=1", "url")}, ("w1",)),
        ({"workflowId": located("={{ $json.id }}", "id")}, ()),
        ({"source": "parameter", "workflowJson": "{}"}, ()),
        ({"source": "localFile", "workflowPath": "x"}, ()),
        ({"source": "url", "workflowUrl": "https://x"}, ()),
        ({}, ()),
    ],
)
def test_calls_of_other_workflows(parameters: dict[str, Any], calls: tuple[str, ...]) -> None:
    found = only("executeWorkflow", **parameters)
    assert (found.calls, bool(found.unsure)) == (calls, not calls)


@pytest.mark.parametrize("kind", ["code", "function", "executeCommand", "ssh", "slack", "of-a-stranger"])
def test_what_may_do_anything_is_unsure(kind: str) -> None:
    assert only(kind).unsure


@pytest.mark.parametrize("kind", ["set", "if", "merge", "wait", "splitInBatches", "noOp", "respondToWebhook"])
def test_what_touches_nothing_is_sure(kind: str) -> None:
    assert only(kind, any={"thing": 1}).unsure == ()


def test_links_leave_out_what_is_no_node_and_keep_the_order_of_the_nodes() -> None:
    def to(*names: str) -> dict[str, Any]:
        return {"main": [[{"node": name, "type": "main", "index": 0} for name in names], None]}

    nodes = [node("noOp", name) for name in "ABC"] + [node("stickyNote", "S")]
    links = {"C": to("A", "gone"), "A": to("C", "B"), "S": to("A"), "B": {"main": None}}
    found = outline({"name": "w", "nodes": nodes, "connections": links})
    assert found.links == (("A", "C"), ("A", "B"), ("C", "A"))
    assert [n.name for n in found.nodes] == ["A", "B", "C"]


def test_secrets_typed_into_a_node_are_hidden_and_expressions_are_not() -> None:
    headers = {"parameters": [{"name": "Authorization", "value": "Bearer hush"}, {"name": "x-shop", "value": "north"}]}
    found = only("httpRequest", url="https://x", headerParameters=headers, apiKey="hush", cookie="={{ $env.T }}")
    assert "hush" not in str(found)
    assert found.parameters["apiKey"] == HIDDEN
    assert found.parameters["cookie"] == "={{ $env.T }}"
    assert found.parameters["headerParameters"]["parameters"][1]["value"] == "north"
    assert only("httpRequest", authentication="none", nodeCredentialType="x").parameters["nodeCredentialType"] == "x"


def test_what_a_node_is_told_besides_its_parameters_is_shown() -> None:
    (found,) = outline({"nodes": [node("noOp", retryOnFail=True, disabled=True, onError="stopWorkflow")]}).nodes
    assert (found.disabled, dict(found.parameters)) == (True, {"(retryOnFail)": True})


def test_credentials_are_named_once() -> None:
    reference = {"postgres": {"id": "c1", "name": "shop"}}
    nodes = [node("postgres", "A", credentials=reference), node("postgres", "B", credentials=reference)]
    nodes.append(node("x", "C", credentials={"api": "by name"}))
    found = credentials_of({"nodes": nodes})
    assert [(c.id, c.name, c.kind) for c in found] == [("c1", "shop", "postgres"), ("by name", "by name", "api")]
    assert outline({"nodes": nodes}).nodes[0].credentials == ("postgres shop c1",)


KINDS = st.sampled_from(
    ["postgres", "webhook", "executeWorkflow", "httpRequest", "scheduleTrigger", "formTrigger", "x"]
)


@given(KINDS, JSON, JSON)
def test_it_never_fails_on_what_it_does_not_know(kind: str, parameters: Any, rest: Any) -> None:
    one = node(kind, parameters=parameters, credentials=rest)
    outline({"name": rest, "nodes": [one, rest], "connections": rest, "settings": parameters})
    outline({"nodes": rest, "connections": {"N": parameters}})


@given(KINDS, st.dictionaries(st.sampled_from(["operation", "table", "columns", "where", "rule", "path", "url"]), JSON))
def test_it_never_fails_on_parameters_of_another_form(kind: str, parameters: dict[str, Any]) -> None:
    outline({"nodes": [node(kind, parameters=parameters)]})
