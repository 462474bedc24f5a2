"""Statements that make a table again from its :mod:`definition`. Pure: the same definition gives the same text.

A table is built where nobody sees it, in a *scratch* schema, under the names it had: rows, then indexes and the
constraints that rest on them. Then it moves to its place with one statement, indexes and identity sequences with it,
and gets what belongs there: sequences, defaults, foreign keys, triggers, policies, grants, comments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from snapshots import database
from snapshots.points.errors import ShapeChanged

Statement = sql.Composed
Relation = Mapping[str, Any]

_STORAGE = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
_COMPRESSION = {"p": "pglz", "l": "lz4"}
_COMMAND = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE", "*": "ALL"}
_STATES = {"D": "DISABLE TRIGGER {}", "R": "ENABLE REPLICA TRIGGER {}", "A": "ENABLE ALWAYS TRIGGER {}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A foreign key. ``add`` does not look at the rows there are, ``add_checked`` does; ``valid``: it was proven."""

    child: str
    name: str
    add: Statement
    add_checked: Statement
    valid: bool


def schemas(definition: Mapping[str, Any]) -> tuple[str, ...]:
    """The schemas that the table's relations lie in."""
    return tuple(dict.fromkeys(r["schema"] for r in definition["relations"]))


def tables(definition: Mapping[str, Any], scratch: Mapping[str, str]) -> Iterator[Statement]:
    """The table and its partitions, without indexes, in the scratch schemas (``scratch``: by real schema)."""
    for relation in definition["relations"]:
        name = sql.Identifier(scratch[relation["schema"]], relation["name"])
        text = sql.SQL("CREATE {}TABLE {} ").format(
            sql.SQL("UNLOGGED " if relation["persistence"] == "u" else ""), name
        )
        if relation["bound"]:
            parent = sql.Identifier(scratch[relation["parent_schema"]], relation["parent"])
            text += sql.SQL("PARTITION OF {} {}").format(parent, sql.SQL(relation["bound"]))
        else:
            parts = [_column(c, scratch[relation["schema"]]) for c in relation["columns"]]
            parts += [
                sql.SQL("CONSTRAINT {} {}").format(sql.Identifier(c["name"]), sql.SQL(c["text"]))
                for c in relation["checks"]
                if c["valid"]
            ]
            text += sql.SQL("({})").format(sql.SQL(", ").join(parts))
        if relation["partitioned"]:
            text += sql.SQL(" PARTITION BY {}").format(sql.SQL(relation["partitioned"]))
        if relation["options"]:
            text += sql.SQL(" WITH ({})").format(sql.SQL(", ".join(relation["options"])))
        yield text
        for column in relation["columns"]:
            yield from _column_options(name, column)


def indexes(definition: Mapping[str, Any], scratch: Mapping[str, str]) -> Iterator[Statement]:
    """One statement for each index of the table; they may run side by side."""
    for relation in definition["relations"]:
        for index in relation["indexes"]:
            if _by_constraint(relation, index):
                continue
            # After "USING" the text names columns and functions only; what comes before names the table.
            _, using, rest = index["text"].partition(" USING ")
            if not using:
                raise ShapeChanged(
                    f"Index {index['name']} of {relation['name']} cannot be made again; make it by hand."
                )
            yield sql.SQL("CREATE {}INDEX {} ON {} USING {}").format(
                sql.SQL("UNIQUE " if index["unique"] else ""),
                sql.Identifier(index["name"]),
                sql.Identifier(scratch[relation["schema"]], relation["name"]),
                sql.SQL(rest),
            )


def keys(definition: Mapping[str, Any], scratch: Mapping[str, str]) -> Iterator[Statement]:
    """The constraints that rest on the indexes, after them."""
    for relation in definition["relations"]:
        name = sql.Identifier(scratch[relation["schema"]], relation["name"])
        for index in relation["indexes"]:
            if index["constraint"] is None:
                continue
            kind: sql.Composable = sql.SQL(index["definition"])
            if not _by_constraint(relation, index):
                _, _, tail = index["definition"].rpartition(")")
                kind = sql.SQL("{} USING INDEX {}{}").format(
                    sql.SQL("PRIMARY KEY" if index["kind"] == "p" else "UNIQUE"),
                    sql.Identifier(index["name"]),
                    sql.SQL(tail),
                )
            yield sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(name, sql.Identifier(index["constraint"]), kind)


def place(definition: Mapping[str, Any], scratch: Mapping[str, str], roles: Collection[str]) -> Iterator[Statement]:
    """Move the finished table to its schema and give it what belongs there, foreign keys apart. ``roles`` are those
    that exist: what was granted to others is left out."""
    for relation in definition["relations"]:
        yield sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
            sql.Identifier(scratch[relation["schema"]], relation["name"]), sql.Identifier(relation["schema"])
        )
    for sequence in definition["sequences"]:
        yield sql.SQL("CREATE SEQUENCE IF NOT EXISTS {} AS {} {}").format(
            _named(sequence), sql.SQL(sequence["type"]), sql.SQL(sequence["options"])
        )
    for relation in definition["relations"]:
        for column in relation["columns"]:
            if column["default"] is not None and not column["generated"]:
                yield sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET DEFAULT {}").format(
                    _named(relation), sql.Identifier(column["name"]), sql.SQL(column["default"])
                )
    first = definition["relations"][0]
    for sequence in definition["sequences"]:
        if sequence["owned_by"]:
            yield sql.SQL("ALTER SEQUENCE {} OWNED BY {}").format(
                _named(sequence), sql.Identifier(first["schema"], first["name"], sequence["owned_by"])
            )
        yield from _grants(sequence, "SEQUENCE", roles)
    for relation in definition["relations"]:
        yield from _belongings(relation, roles)


def references(definition: Mapping[str, Any]) -> Iterator[Reference]:
    """Foreign keys of the table and of others to it."""
    for key in (*(k for r in definition["relations"] for k in r["foreign"]), *definition["incoming"]):
        text = key["text"].removesuffix(" NOT VALID")
        checked = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
            sql.Identifier(key["schema"], key["table"]), sql.Identifier(key["name"]), sql.SQL(text)
        )
        yield Reference(
            child=f"{key['schema']}.{key['table']}",
            name=key["name"],
            add=checked + sql.SQL(" NOT VALID"),
            add_checked=checked,
            valid=key["valid"],
        )


def validate(child: str, name: str) -> Statement:
    """Look whether the rows of ``child`` satisfy its foreign key ``name``."""
    return sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(database.qualified(child), sql.Identifier(name))


def parents(definition: Mapping[str, Any]) -> frozenset[str]:
    """The other tables that the table's foreign keys name."""
    mine = {f"{r['schema']}.{r['name']}" for r in definition["relations"]}
    return frozenset(k["parent"] for r in definition["relations"] for k in r["foreign"]) - mine


def _named(thing: Mapping[str, Any]) -> sql.Identifier:
    return sql.Identifier(thing["schema"], thing["name"])


def _by_constraint(relation: Relation, index: Mapping[str, Any]) -> bool:
    """Whether only its constraint can make the index: exclusion, a period, or a partitioned table."""
    return index["constraint"] is not None and (
        index["kind"] == "x" or relation["kind"] == "p" or "WITHOUT OVERLAPS" in (index["definition"] or "")
    )


def _column(column: Mapping[str, Any], schema: str) -> sql.Composed:
    text = sql.SQL("{} {}").format(sql.Identifier(column["name"]), sql.SQL(column["type"]))
    if column["collation"]:
        text += sql.SQL(" COLLATE {}").format(sql.SQL(column["collation"]))
    if column["generated"]:
        kind = sql.SQL("STORED" if column["generated"] == "s" else "VIRTUAL")
        text += sql.SQL(" GENERATED ALWAYS AS ({}) {}").format(sql.SQL(column["default"]), kind)
    if column["identity"]:
        text += sql.SQL(" GENERATED {} AS IDENTITY (SEQUENCE NAME {} {})").format(
            sql.SQL("ALWAYS" if column["identity"] == "a" else "BY DEFAULT"),
            sql.Identifier(schema, column["sequence"]),
            sql.SQL(column["sequence_options"]),
        )
    if column["not_null"]:
        text += sql.SQL(" NOT NULL")
    return text


def _column_options(table: sql.Identifier, column: Mapping[str, Any]) -> Iterator[Statement]:
    changes: list[sql.Composable] = []
    if column["storage"]:
        changes.append(sql.SQL("SET STORAGE {}").format(sql.SQL(_STORAGE[column["storage"]])))
    if column["compression"]:
        changes.append(sql.SQL("SET COMPRESSION {}").format(sql.SQL(_COMPRESSION[column["compression"]])))
    if column["statistics"] is not None:
        changes.append(sql.SQL("SET STATISTICS {}").format(sql.Literal(column["statistics"])))
    if column["options"]:
        changes.append(sql.SQL("SET ({})").format(sql.SQL(", ".join(column["options"]))))
    for change in changes:
        yield sql.SQL("ALTER TABLE {} ALTER COLUMN {} {}").format(table, sql.Identifier(column["name"]), change)


def _belongings(relation: Relation, roles: Collection[str]) -> Iterator[Statement]:
    table = _named(relation)
    for change in _changes(relation):
        yield sql.SQL("ALTER TABLE {} {}").format(table, change)
    for text in (*relation["statistics"], *relation["rules"], *(t["text"] for t in relation["triggers"])):
        yield sql.SQL("{}").format(sql.SQL(text.rstrip(";")))
    for trigger in relation["triggers"]:
        if trigger["state"] in _STATES:
            state = sql.SQL(_STATES[trigger["state"]]).format(sql.Identifier(trigger["name"]))
            yield sql.SQL("ALTER TABLE {} {}").format(table, state)
    for policy in relation["policies"]:
        yield _policy(table, policy)
    for comment in relation["comments"]:
        yield _comment(relation, comment)
    yield from _grants(relation, "TABLE", roles)


def _changes(relation: Relation) -> Iterator[sql.Composable]:
    for check in relation["checks"]:
        if not check["valid"]:
            yield sql.SQL("ADD CONSTRAINT {} {}").format(sql.Identifier(check["name"]), sql.SQL(check["text"]))
    for index in relation["indexes"]:
        if index["clustered"]:
            yield sql.SQL("CLUSTER ON {}").format(sql.Identifier(index["name"]))
        if index["replica"]:
            yield sql.SQL("REPLICA IDENTITY USING INDEX {}").format(sql.Identifier(index["name"]))
    if relation["replica"] in ("f", "n"):
        yield sql.SQL("REPLICA IDENTITY FULL" if relation["replica"] == "f" else "REPLICA IDENTITY NOTHING")
    if relation["secured"]:
        yield sql.SQL("ENABLE ROW LEVEL SECURITY")
    if relation["forced"]:
        yield sql.SQL("FORCE ROW LEVEL SECURITY")


def _policy(table: sql.Identifier, policy: Mapping[str, Any]) -> Statement:
    text = sql.SQL("CREATE POLICY {} ON {} AS {} FOR {} TO {}").format(
        sql.Identifier(policy["name"]),
        table,
        sql.SQL("PERMISSIVE" if policy["permissive"] else "RESTRICTIVE"),
        sql.SQL(_COMMAND[policy["command"]]),
        sql.SQL(", ").join(sql.SQL("PUBLIC") if r == "public" else sql.Identifier(r) for r in policy["roles"]),
    )
    if policy["using"]:
        text += sql.SQL(" USING ({})").format(sql.SQL(policy["using"]))
    if policy["check"]:
        text += sql.SQL(" WITH CHECK ({})").format(sql.SQL(policy["check"]))
    return text


def _comment(relation: Relation, comment: Mapping[str, Any]) -> Statement:
    table, text = _named(relation), sql.Literal(comment["text"])
    if comment["what"] == "TABLE":
        return sql.SQL("COMMENT ON TABLE {} IS {}").format(table, text)
    if comment["what"] == "COLUMN":
        column = sql.Identifier(relation["schema"], relation["name"], comment["name"])
        return sql.SQL("COMMENT ON COLUMN {} IS {}").format(column, text)
    if comment["what"] == "INDEX":
        index = sql.Identifier(relation["schema"], comment["name"])
        return sql.SQL("COMMENT ON INDEX {} IS {}").format(index, text)
    return sql.SQL("COMMENT ON {} {} ON {} IS {}").format(
        sql.SQL(comment["what"]), sql.Identifier(comment["name"]), table, text
    )


def _grants(thing: Mapping[str, Any], what: str, roles: Collection[str]) -> Iterator[Statement]:
    """The owner and the grants, exactly those that were: what default privileges add is taken first."""
    name, kind = _named(thing), sql.SQL(what)
    if thing["owner"] in roles:
        yield sql.SQL("ALTER {} {} OWNER TO {}").format(kind, name, sql.Identifier(thing["owner"]))
    known = sorted({g["role"] for g in thing["grants"]} & set(roles))
    for role in (sql.SQL("PUBLIC"), *(sql.Identifier(r) for r in known)):
        yield sql.SQL("REVOKE ALL ON {} {} FROM {}").format(kind, name, role)
    for grant in thing["grants"]:
        if grant["role"] is not None and grant["role"] not in roles:
            continue
        columns = sql.SQL(" ({})").format(sql.Identifier(grant["column"])) if grant["column"] else sql.SQL("")
        yield sql.SQL("GRANT {}{} ON {} {} TO {}{}").format(
            sql.SQL(grant["privilege"]),
            columns,
            kind,
            name,
            sql.SQL("PUBLIC") if grant["role"] is None else sql.Identifier(grant["role"]),
            sql.SQL(" WITH GRANT OPTION" if grant["grantable"] else ""),
        )
