"""What differs from a point where no journal can tell: the point's rows beside the live ones, compared exactly.

The comparison is of row images (``record_image_eq``), so that 1.1 and 1.10, 0 and -0 or two spellings of a JSON value
are different. Rows are matched by key; a table without a usable key is compared as a bag: the n-th copy of a row here
against the n-th copy there (a multiset difference, as ``EXCEPT ALL``, which many types do not support).

Where the database can name the rows that are newer than the point, only those are staged and compared.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg import Connection, sql

from snapshots.capture import touched
from snapshots.erasure import erasure
from snapshots.model import ColumnInfo, Position, TableManifest
from snapshots.points import chunks, memory, reading
from snapshots.restore import staging
from snapshots.restore.frame import Frame, measure, names, rows, want
from snapshots.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

MANY = 0.5
"""Of the point's rows: when more may differ, all of them are compared."""
AHEAD_ROWS = 100_000
"""Of at most so many rows to compare, the point's are read while the next table is looked at."""
AT_ONCE = 192 * 1024 * 1024
"""Bytes of keys that are compared in our memory; more of them are compared in the database, which takes longer."""
FIXED_BYTES = 32
"""Of our memory, for each key of fixed width."""
MOST = 1_000_000
"""Keys found are held in full: where more of them may differ, all rows are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """One table between :func:`look` and :func:`compare`: what to compare, and the point's rows, on their way."""

    keys: pa.Table | None
    ready: Future[list[staging.Block]] | None = None


def look(
    conn: Connection[Any],
    frame: Frame,
    store: Store,
    since: Position,
    *,
    beside: Executor,
    app: str | None = None,
) -> Looked:
    """Find out which rows can differ between the point, taken at ``since``, and live (role: reads the table, ``TEMP``).
    ``beside`` reads the point's rows from the store, if they are few, while the caller looks at other tables."""
    memory.give_back()
    keys = _named(conn, frame, store, since, app)
    manifest = frame.manifest
    if keys is None or not keys.num_rows or keys.num_rows > AHEAD_ROWS or manifest is None:
        return Looked(keys=keys)
    return Looked(keys=keys, ready=beside.submit(lambda: list(staging.blocks(manifest, store, keys=keys, app=app))))


def compare(
    conn: Connection[Any], frame: Frame, store: Store, looked: Looked, *, app: str | None = None
) -> Literal["scan", "compare"]:
    """Fill ``want`` with every difference among these rows; in the transaction of the look. Returns which way the look
    took."""
    want(conn, frame)
    if looked.keys is None:
        staging.stage(conn, frame, store, app=app)
        conn.execute(_by_key(frame) if frame.key else _as_bag(frame))
    elif looked.keys.num_rows:
        ready = looked.ready.result() if looked.ready else None
        staging.stage(conn, frame, store, keys=looked.keys, app=app, ready=ready)
        conn.execute(_insert(frame, frame.temp("key")))
    if app is not None:
        _spare(conn, frame, store, app)
    measure(conn, frame)
    return "compare" if looked.keys is None else "scan"


def _spare(conn: Connection[Any], frame: Frame, store: Store, app: str) -> None:
    """Live rows that the point lacks only because they were erased from it (the app made them anonymous) are no
    difference: nothing is done about them."""
    manifest = frame.manifest
    if manifest is None or not frame.key or set(frame.key) != set(manifest.key):
        return
    hidden = erasure.hides(store, app, manifest.name, manifest.erased)
    if hidden is None:
        return
    going = sql.SQL("(SELECT {} FROM {} w WHERE w.rj_do = 'D')").format(frame.keys("w"), frame.temp("want"))
    keys = _fetched(conn, manifest, going)
    spared = keys.filter(hidden(keys))
    columns = touched.key_columns(manifest)
    arrays = [
        sql.SQL("{}::text[]::{}[]").format(
            sql.Literal([_text(v) for v in spared.column(c.name).to_pylist()]), sql.SQL(c.type)
        )
        for c in columns
    ]
    names = sql.SQL(", ").join(sql.Identifier("w", c.name) for c in columns)
    if spared.num_rows:
        conn.execute(
            sql.SQL("DELETE FROM {} w WHERE ({}) IN (SELECT * FROM unnest({}))").format(
                frame.temp("want"), names, sql.SQL(", ").join(arrays)
            )
        )


def _text(value: Any) -> str:
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


def _named(conn: Connection[Any], frame: Frame, store: Store, since: Position, app: str | None) -> pa.Table | None:
    """The keys of rows that may differ, also in the temporary table ``key``; ``None`` where the database cannot name
    them, or names so many that reading all is cheaper."""
    import pyarrow as pa

    from snapshots.restore import keys as restore_keys

    manifest = frame.manifest
    if manifest is None or not frame.key or set(frame.key) != set(manifest.key):
        return None
    if not reading.comparable(manifest.columns, manifest.key):
        return None
    try:
        condition = touched.written_since(conn, manifest, since, alias="t")
    except touched.NotComparable:
        return None
    if condition is None:
        return None
    fixed = restore_keys.fixed(touched.key_columns(manifest))
    many = max(rows(conn, frame), manifest.rows) * (FIXED_BYTES if fixed else _width(manifest)) > AT_ONCE
    if fixed and not many:
        most = min(MOST, round(MANY * manifest.rows))
        named = restore_keys.find(conn, store, manifest, live=frame.live, fresh=condition, app=app, most=most)
        found = pa.concat_tables([named.newer, named.gone]) if named else None
    elif not many:
        found = _here(conn, frame, manifest, condition, store=store, app=app)
    else:
        found = _there(conn, frame, manifest, since, store=store, app=app)
    if found is None or found.num_rows > MANY * manifest.rows:
        return None
    _keep(conn, frame, manifest, found)
    return found


def _width(manifest: TableManifest) -> int:
    """Bytes of a key in memory, roughly."""
    return sum(32 if "int" in c.type else 96 for c in touched.key_columns(manifest))


def _here(
    conn: Connection[Any],
    frame: Frame,
    manifest: TableManifest,
    fresh: sql.Composable,
    *,
    store: Store,
    app: str | None,
) -> pa.Table | None:
    """One scan of live sends every key, and whether its row is newer; what the point has beyond them is gone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from snapshots.capture import pieces

    columns = touched.key_columns(manifest)
    marked = (*columns, ColumnInfo(name="rj_fresh", type="integer", not_null=True, generated=False, identity=""))
    # One value with the lines of many pages: a row by itself costs more to receive than to compare.
    lines = sql.SQL("SELECT convert_to(string_agg({}, chr(10)) || chr(10), 'UTF8') FROM {} t WHERE {}")
    line = sql.SQL(" || ',' || ").join([*(_quoted(c) for c in columns), sql.SQL("({})::int").format(fresh)])
    found: list[pa.RecordBatch] = []
    with conn.cursor(binary=True) as cursor:
        for stretch in pieces.stretches(conn, manifest.name):
            row = cursor.execute(lines.format(line, frame.live, stretch)).fetchone()
            found.extend(chunks.from_csv([row[0]] if row and row[0] else [], marked))
    live = pa.Table.from_batches(found, schema=chunks.schema(marked))
    newer = live.filter(pc.equal(live.column("rj_fresh"), 1)).select([c.name for c in columns])
    if newer.num_rows > MANY * manifest.rows:
        return None
    then = pa.Table.from_batches(
        reading.batches(store, manifest, columns=manifest.key, app=app), schema=chunks.schema(columns)
    )
    known: Any = reading.identity(live, manifest)
    lost = then.filter(pc.invert(pc.is_in(reading.identity(then, manifest), value_set=known)))
    return pa.concat_tables([newer, lost])


def _quoted(column: ColumnInfo) -> sql.Composed:
    """A key's value as a CSV field. Never null."""
    value = sql.SQL("{}::text").format(sql.Identifier("t", column.name))
    if column.type in ("smallint", "integer", "bigint", "uuid"):
        return value
    return sql.SQL("'\"' || replace({}, '\"', '\"\"') || '\"'").format(value)


def _there(
    conn: Connection[Any], frame: Frame, manifest: TableManifest, since: Position, *, store: Store, app: str | None
) -> pa.Table | None:
    """The same inside the database, for tables whose keys would fill our memory."""
    fresh, gone = frame.temp("moved"), frame.temp("gone")
    if touched.by_rows(conn, manifest, since, into=fresh) > MANY * manifest.rows:
        return None
    touched.gone(conn, store, manifest, touched=fresh, into=gone, app=app)
    both = sql.SQL("(SELECT {} FROM {} t UNION ALL SELECT {} FROM {} g)").format(
        frame.keys("t"), fresh, frame.keys("g"), gone
    )
    return _fetched(conn, manifest, both)


def _fetched(conn: Connection[Any], manifest: TableManifest, table: sql.Composable) -> pa.Table:
    """The keys in ``table``."""
    import pyarrow as pa

    columns = touched.key_columns(manifest)
    query = sql.SQL("COPY (SELECT {} FROM {} t) TO STDOUT (FORMAT csv)").format(chunks.select_list(columns, "t"), table)
    with conn.cursor() as cursor, cursor.copy(query) as copy:
        return pa.Table.from_batches(list(chunks.from_csv(copy, columns)), schema=chunks.schema(columns))


def _keep(conn: Connection[Any], frame: Frame, manifest: TableManifest, keys: pa.Table) -> None:
    key, columns = frame.temp("key"), touched.key_columns(manifest)
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(key))
    conn.execute(
        sql.SQL("CREATE TEMP TABLE {} AS SELECT {} FROM {} t WITH NO DATA").format(key, frame.keys("t"), frame.live)
    )
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(key, names(c.name for c in columns))
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for batch in keys.to_batches():
            copy.write(chunks.csv_blocks(batch, columns))
    conn.execute(sql.SQL("ANALYZE {}").format(key))


def catch_up(conn: Connection[Any], frame: Frame) -> int:
    """Look again, under the lock, at each planned row that is no longer what it was; returns how many that are. What
    others wrote meanwhile to rows that were not planned came after the restore."""
    if not frame.key:
        return _vanished(conn, frame)
    moved = frame.temp("moved")
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(moved))
    made = conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {moved} AS SELECT {keys} FROM {want} w LEFT JOIN {live} l ON {same}"
            " WHERE (w.rj_tid, w.rj_rel, w.rj_xmin::text) IS DISTINCT FROM (l.ctid, l.tableoid, l.xmin::text)"
        ).format(
            moved=moved, keys=frame.keys("w"), want=frame.temp("want"), live=frame.live, same=frame.same_key("l", "w")
        )
    ).rowcount
    if not made:
        return 0
    among = sql.SQL("({}) IN (SELECT {} FROM {} m)").format(frame.keys("w"), frame.keys("m"), moved)
    conn.execute(sql.SQL("DELETE FROM {} w WHERE {}").format(frame.temp("want"), among))
    conn.execute(_insert(frame, moved))
    return made


def _vanished(conn: Connection[Any], frame: Frame) -> int:
    """Rows without a key that were to be deleted and are gone already: nothing is left to do about them."""
    return conn.execute(
        sql.SQL(
            "DELETE FROM {want} w WHERE w.rj_do = 'D' AND NOT EXISTS (SELECT FROM {live} l"
            " WHERE l.ctid = w.rj_tid AND l.tableoid = w.rj_rel AND l.xmin = w.rj_xmin)"
        ).format(want=frame.temp("want"), live=frame.live)
    ).rowcount


_DECIDED = (
    "INSERT INTO {want} (rj_do, rj_rel, rj_tid, rj_xmin, {columns})"
    " SELECT CASE WHEN p.ctid IS NULL THEN 'D' WHEN l.ctid IS NULL THEN 'I' ELSE 'U' END::\"char\","
    " l.tableoid, l.ctid, l.xmin, {wanted} FROM {sides} WHERE {differing}"
)


def _wanted(frame: Frame) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("CASE WHEN p.ctid IS NULL THEN l.{0} ELSE p.{0} END").format(sql.Identifier(c.name))
        for c in frame.columns
    )


def _unlike(frame: Frame) -> sql.Composed:
    return sql.SQL("(l.ctid IS NULL) <> (p.ctid IS NULL) OR (l.ctid IS NOT NULL AND record_image_ne({}, {}))").format(
        frame.image("l"), frame.image("p")
    )


def _by_key(frame: Frame) -> sql.Composed:
    """Every row of both sides."""
    sides = sql.SQL("{} l FULL JOIN {} p ON {}").format(frame.live, frame.temp("point"), frame.same_key("l", "p"))
    return sql.SQL(_DECIDED).format(
        want=frame.temp("want"),
        columns=frame.values(),
        wanted=_wanted(frame),
        sides=sides,
        differing=_unlike(frame),
    )


def _insert(frame: Frame, keys: sql.Composable) -> sql.Composed:
    """Only the rows with ``keys``."""
    sides = sql.SQL("(SELECT DISTINCT {} FROM {} m) k LEFT JOIN {} l ON {} LEFT JOIN {} p ON {}").format(
        frame.keys("m"), keys, frame.live, frame.same_key("l", "k"), frame.temp("point"), frame.same_key("p", "k")
    )
    return sql.SQL(_DECIDED).format(
        want=frame.temp("want"),
        columns=frame.values(),
        wanted=_wanted(frame),
        sides=sides,
        differing=_unlike(frame),
    )


def _as_bag(frame: Frame) -> sql.Composed:
    body = chunks.row_text(frame.columns, "t")
    numbered = sql.SQL(
        "(SELECT t.tableoid, t.ctid, t.xmin, {values}, {body} AS rj_body,"
        " row_number() OVER (PARTITION BY {body}) AS rj_n FROM {side} t)"
    )
    sides = sql.SQL("{} l FULL JOIN {} p ON l.rj_body = p.rj_body AND l.rj_n = p.rj_n").format(
        numbered.format(values=frame.values("t"), body=body, side=frame.live),
        numbered.format(values=frame.values("t"), body=body, side=frame.temp("point")),
    )
    return sql.SQL(_DECIDED).format(
        want=frame.temp("want"),
        columns=frame.values(),
        wanted=_wanted(frame),
        sides=sides,
        differing=sql.SQL("l.ctid IS NULL OR p.ctid IS NULL"),
    )
