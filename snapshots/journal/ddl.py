"""The SQL of one journaled table, generated from what the catalogues say. Pure: the same shape gives the same text.

Each table gets a *twin* in schema ``reinstate`` (same column names, base types without length or precision, no
constraints, then the ``rj_`` columns), whose rows lie in pieces by time; a capture function with explicit column lists
that writes to the newest piece; and four always-enabled triggers. A capture function never raises: what it cannot
store becomes a gap, and the app's write goes on.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from psycopg import sql

TRUNCATE_LIMIT = 50_000
"""A TRUNCATE of more rows than this is not copied but recorded as a gap: it must not take minutes."""

LOCK_WAIT = "1s"
"""Longest wait of an app's write for a lock inside the journal."""

PIECE, ROOM = "@rj_piece@", "@rj_room@"
"""Marks in the text of a capture function; see ``sql/pieces.sql``."""

_META = (
    ("rj_seq", "bigint"),
    ("rj_xid", "xid8"),
    ("rj_at", "timestamptz"),
    ("rj_op", '"char"'),
    ("rj_side", '"char"'),
    ("rj_actor", "text"),
    ("rj_app", "text"),
    ("rj_run", "text"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column the journal keeps. ``type`` is the base type, schema-qualified; ``collation`` only where the column
    has another than its type."""

    name: str
    type: str
    num: int
    typid: int
    collation: tuple[str, str] | None = None

    def definition(self) -> sql.Composed:
        text = sql.SQL("{} {}").format(sql.Identifier(self.name), sql.SQL(self.type))
        if self.collation:
            text += sql.SQL(" COLLATE {}").format(sql.Identifier(*self.collation))
        return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One table as the database describes it now. ``relations`` are the table itself and its partitions."""

    name: str
    relid: int
    columns: tuple[Column, ...]
    relations: tuple[tuple[str, str], ...]


def twin_name(table: str) -> str:
    """Name of the twin: readable, unique, plain, with room for suffixes within 63 bytes."""
    plain = "j_" + table.replace(".", "__")
    if re.fullmatch(r"j_[a-z0-9]+(_[a-z0-9]+)*__[a-z0-9]+(_[a-z0-9]+)*", plain) and len(plain) <= 46:
        return plain
    digest = hashlib.sha256(table.encode()).hexdigest()[:8]
    return re.sub(r"[^a-z0-9]+", "_", plain.lower())[:37] + "_" + digest


def _own(name: str) -> sql.Identifier:
    return sql.Identifier("reinstate", name)


def _names(columns: tuple[Column, ...]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(c.name) for c in columns)


def create_twin(shape: Shape, twin: str) -> list[sql.Composable]:
    """A parent without constraints: each would be checked for every image."""
    body: list[sql.Composable] = [c.definition() for c in shape.columns]
    body += [sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(t)) for n, t in _META]
    return [sql.SQL("CREATE TABLE {} ({})").format(_own(twin), sql.SQL(", ").join(body))]


def drop_statement_number(twin: str) -> sql.Composable:
    """For twins of the version that numbered statements apart from images."""
    return sql.SQL("ALTER TABLE {} DROP COLUMN rj_stmt").format(_own(twin))


def follow_twin(
    old: tuple[Column, ...], new: tuple[Column, ...], twin: str, castable: frozenset[tuple[int, int]], *, by_name: bool
) -> list[sql.Composable] | None:
    """Statements that make a twin follow its table; ``None`` when an old image would not survive the change of a type
    (no implicit cast), so that a new twin is needed. ``by_name``: the table was replaced, numbers mean nothing."""
    before = {(c.name if by_name else c.num): c for c in old}
    after = {(c.name if by_name else c.num): c for c in new}
    drops: list[sql.Composable] = [
        sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(_own(twin), sql.Identifier(c.name))
        for k, c in before.items()
        if k not in after
    ]
    first: list[sql.Composable] = []
    second: list[sql.Composable] = []
    rest: list[sql.Composable] = []
    for k, column in after.items():
        known = before.get(k)
        if known is None:
            rest.append(sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(_own(twin), column.definition()))
            continue
        if known.name != column.name:
            # Over a name nobody uses: two columns may have swapped theirs.
            between = sql.Identifier(f"rj_moving_{column.num}")
            rename = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}")
            first.append(rename.format(_own(twin), sql.Identifier(known.name), between))
            second.append(rename.format(_own(twin), between, sql.Identifier(column.name)))
        if known.typid != column.typid:
            if (known.typid, column.typid) not in castable:
                return None
            rest.append(
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {} USING {}::{}").format(
                    _own(twin),
                    sql.Identifier(column.name),
                    sql.SQL(column.type),
                    sql.Identifier(column.name),
                    sql.SQL(column.type),
                )
            )
    return [*drops, *first, *second, *rest]


_FAILED = """
EXCEPTION WHEN OTHERS THEN
    BEGIN
        GET STACKED DIAGNOSTICS rj_state = RETURNED_SQLSTATE, rj_message = MESSAGE_TEXT;
        PERFORM reinstate.note_failure({table}, rj_state, rj_message);
    EXCEPTION WHEN OTHERS THEN
        RAISE LOG 'reinstate: journal of % failed and could not say so: %', {table}, SQLERRM;
    END;
    RETURN NULL;
END $rj$
"""

# Each expression costs every write of the app: a number per statement and not per row, values that do not change
# within it read once, nothing about shapes (a difference is seen by the next look at the catalogues, and what the twin
# cannot hold fails here). Variables start with rj_, as no column of the app does. What may fail stands in the body:
# an error among the declarations would reach the app.
_CAPTURE = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = {wait} AS $rj$
#variable_conflict use_column
DECLARE
    rj_state text;
    rj_message text;
    rj_number bigint;
    rj_tx xid8 := pg_current_xact_id();
    rj_now timestamptz := clock_timestamp();
    rj_who text := session_user::text;
    rj_program text := current_setting('application_name');
    rj_for text := nullif(current_setting('reinstate.run', true), '');
BEGIN
    rj_number := CASE WHEN pg_relation_size({piece_name}::regclass) < {room} THEN nextval('reinstate.journal_seq') END;
    IF rj_number IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'RJ001', MESSAGE = {cap_message};
    END IF;
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO {piece} ({names}, {meta})
        SELECT {names}, rj_number, rj_tx, rj_now, 'U', 'o', rj_who, rj_program, rj_for FROM rj_old;
        INSERT INTO {piece} ({names}, {meta})
        SELECT {names}, rj_number + 1, rj_tx, rj_now, 'U', 'n', rj_who, rj_program, rj_for FROM rj_new;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO {piece} ({names}, {meta})
        SELECT {names}, rj_number, rj_tx, rj_now, 'I', 'n', rj_who, rj_program, rj_for FROM rj_new;
    ELSE
        INSERT INTO {piece} ({names}, {meta})
        SELECT {names}, rj_number, rj_tx, rj_now, 'D', 'o', rj_who, rj_program, rj_for FROM rj_old;
    END IF;
    RETURN NULL;{failed}"""

_TRUNCATE = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = {wait}
SET row_security = off AS $rj$
DECLARE
    rj_state text;
    rj_message text;
    rj_count bigint;
BEGIN
    -- A snapshot taken earlier does not show all rows that the TRUNCATE removes.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'RJ002', MESSAGE = 'TRUNCATE at an isolation level above read committed';
    END IF;
    IF TG_RELID = {relation}::regclass AND TG_RELID IN (SELECT partrelid FROM pg_partitioned_table) THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT count(*) FROM (SELECT FROM ONLY %s LIMIT {limit_next}) AS part', TG_RELID::regclass)
    INTO rj_count;
    IF rj_count > {limit} THEN
        RAISE EXCEPTION USING ERRCODE = 'RJ002', MESSAGE = 'TRUNCATE of more than {limit} rows';
    END IF;
    EXECUTE format({copy}, TG_RELID::regclass)
    USING nextval('reinstate.journal_seq'), clock_timestamp(), session_user::text;
    RETURN NULL;{failed}"""


def functions(shape: Shape, twin: str, *, size_cap_mb: int, truncate_limit: int, marked: bool) -> list[sql.Composable]:
    """The capture function and the one for TRUNCATE: writing to the twin itself, or with marks for the name and the
    room of the piece they shall write to."""
    target = _own(PIECE if marked else twin)
    meta = sql.SQL(", ").join(sql.Identifier(n) for n, _ in _META)
    copy = sql.SQL(
        "INSERT INTO {piece} ({names}, {meta}) SELECT {names}, $1, pg_current_xact_id(), $2, 'T', 'o', $3,"
        " current_setting('application_name'), nullif(current_setting('reinstate.run', true), '') FROM ONLY "
    ).format(piece=target, names=_names(shape.columns), meta=meta)
    common = {
        "wait": sql.Literal(LOCK_WAIT),
        "failed": sql.SQL(_FAILED).format(table=sql.Literal(shape.name)),
        "relation": sql.Literal(sql.Identifier(*shape.name.split(".", 1)).as_string(None)),
    }
    capture = sql.SQL(_CAPTURE).format(
        **common,
        function=_own(twin),
        piece=target,
        piece_name=sql.Literal(target.as_string(None)),
        names=_names(shape.columns),
        meta=meta,
        room=sql.SQL(ROOM if marked else str(size_cap_mb * 1024 * 1024)),
        cap_message=sql.Literal(f"the twin is larger than {size_cap_mb} MB"),
    )
    truncate = sql.SQL(_TRUNCATE).format(
        **common,
        function=_own(f"{twin}_truncate"),
        limit=sql.SQL(str(truncate_limit)),
        limit_next=sql.SQL(str(truncate_limit + 1)),
        copy=sql.Literal(copy.as_string(None).replace("%", "%%") + "%s"),
    )
    return [capture, truncate]


def triggers(relation: tuple[str, str], twin: str) -> list[sql.Composable]:
    """Four triggers on one relation, replaced where they exist, always enabled."""
    table = sql.Identifier(*relation)
    made: list[sql.Composable] = []
    for name, event, tables in (
        ("rj_insert", "AFTER INSERT", "REFERENCING NEW TABLE AS rj_new"),
        ("rj_update", "AFTER UPDATE", "REFERENCING OLD TABLE AS rj_old NEW TABLE AS rj_new"),
        ("rj_delete", "AFTER DELETE", "REFERENCING OLD TABLE AS rj_old"),
        ("rj_truncate", "BEFORE TRUNCATE", ""),
    ):
        function = _own(f"{twin}_truncate" if name == "rj_truncate" else twin)
        made.append(
            sql.SQL("CREATE OR REPLACE TRIGGER {} {} ON {} {} FOR EACH STATEMENT EXECUTE FUNCTION {}()").format(
                sql.Identifier(name),
                sql.SQL(event),
                table,
                sql.SQL(tables),
                function,
            )
        )
        made.append(sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table, sql.Identifier(name)))
    return made


def access(twin: str, readers: tuple[str, ...]) -> list[sql.Composable]:
    """Readers see the twin and its loss counter; nobody else may call the functions."""
    to = sql.SQL(", ").join(sql.Identifier(r) for r in readers)
    return [
        sql.SQL("GRANT SELECT ON {} TO {}").format(_own(twin), to),
        sql.SQL("REVOKE ALL ON FUNCTION {}(), {}() FROM PUBLIC").format(_own(twin), _own(f"{twin}_truncate")),
    ]


def columns_json(columns: tuple[Column, ...]) -> str:
    """For ``journal_table.columns``."""
    return json.dumps([{"name": c.name, "type": c.type, "num": c.num, "typid": c.typid} for c in columns])
