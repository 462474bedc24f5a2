"""The rows of a table as a recovery point holds them, piece by piece, in bounded memory and without touching a value.

A table of a point is its *chunks* with its *deltas* over them: a row of a delta replaces, or takes away, the row of the
same key in whatever came before it. Nobody but this module needs to know. Rows that were erased since are left out.

Keys are compared as PostgreSQL compares them wherever its text or Arrow's value says enough (``1.0`` is ``1.00`` and
``-0`` is ``0``); :func:`comparable` says for which tables that is so. Everything is done on whole columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from snapshots.model import Chunk, ColumnInfo, TableManifest
from snapshots.points.errors import Damaged, ShapeChanged
from snapshots.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Column = Any
"""An Arrow array, chunked or not."""

GONE = "rj_gone"
"""First column of a delta: the row of this key is gone; its other columns are null."""
GROUP_ROWS = 200_000
"""Keys of at most so many rows are looked up in the deltas at once: each look builds a table of the deltas' keys."""
GROUP_BYTES = 32 * 1024 * 1024
_BY_MEANING = frozenset({"interval", "jsonb", "public.citext", "citext", "json", "xml", "numrange", "nummultirange"})
"""Types with several texts for one value (or without equality), so that texts cannot tell whether two keys are one."""


class Hides(Protocol):
    """Which rows of one table were erased: what ``erasure.hides(store, app, table)`` gives, or ``None`` for no row."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The stored columns it must see."""

    def __call__(self, table: pa.Table, /) -> Column:
        """For a table with at least these columns: booleans, true for rows to leave out."""

    def settled(self, table: pa.Table) -> pa.Table:
        """The table with nulls where a row that stays named an erased one."""


def batches(
    store: Store,
    manifest: TableManifest,
    *,
    columns: Sequence[str] | None = None,
    keys: pa.Table | None = None,
    app: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """The effective rows of the table, in no particular order. Memory: a few chunks, and the deltas.

    ``columns`` (default: all stored ones) names what the batches hold, in that order. ``keys``, a table with the key's
    columns, limits the rows to those with these keys. ``app`` leaves out what was erased from that app. Types are those
    of :func:`chunks.schema`. Raises :class:`Damaged` when an object of the point is not sound and
    :class:`ShapeChanged` for a column the point does not hold.
    """
    import pyarrow as pa

    from snapshots.points import chunks

    stored = chunks.stored(manifest.columns)
    wanted = _wanted(manifest, stored, columns)
    hidden = _hides(store, app, manifest)
    needed = set(wanted) | set(hidden.columns if hidden else ())
    if keys is not None or manifest.deltas:
        needed |= set(manifest.key)
    read = tuple(c for c in stored if c.name in needed)
    schema = pa.schema([chunks.schema(stored).field(name) for name in wanted])
    delta = _merged(store, manifest, stored, read) if manifest.deltas else None
    replaced = identity(delta, manifest) if delta is not None else None
    asked = None if keys is None else _asked(keys, manifest, chunks.schema(stored))

    for group in _groups(_open(store, c, manifest, stored, read) for c in manifest.chunks):
        yield from _filtered(group, manifest, schema, replaced=replaced, asked=asked, hidden=hidden)
    if delta is not None:
        import pyarrow.compute as pc

        present = delta.filter(pc.invert(delta.column(GONE))).drop_columns([GONE])
        yield from _filtered(present, manifest, schema, replaced=None, asked=asked, hidden=hidden)


def identity(table: pa.Table, manifest: TableManifest) -> Column:
    """One value per row of ``table`` that is equal for two rows exactly if their keys are: the key's column itself, or
    for several columns all of them in one binary value, each with its length before it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts: list[Column] = [
        canonical(table.column(c.name), c.type) for name in manifest.key for c in manifest.columns if c.name == name
    ]
    if len(parts) == 1:
        return parts[0]
    pieces = []
    for part in parts:
        if pa.types.is_large_string(part.type) or pa.types.is_large_binary(part.type):
            pieces.append(pc.binary_length(part).cast(pa.large_string()).cast(pa.large_binary()))
            pieces.append(part.cast(pa.large_binary()))
        else:
            pieces.append(part.cast(pa.large_string()).cast(pa.large_binary()))
    joined: Column = pc.binary_join_element_wise(*pieces, pa.scalar(b":", pa.large_binary()))
    return joined


def comparable(manifest_columns: Sequence[ColumnInfo], key: Sequence[str]) -> bool:
    """Whether the text (or native value) of the key decides which row it is, as deltas need it. Not so for intervals
    (``1 day`` is ``24:00:00``), jsonb, citext, and arrays, ranges or composites that may hold numbers with a scale."""
    types = {c.name: c.type for c in manifest_columns}
    return bool(key) and all(
        types.get(name, "interval").partition("(")[0] not in _BY_MEANING and not types[name].endswith("[]")
        for name in key
    )


def canonical(column: Column, type_name: str) -> Column:
    """One form for all forms of a value that PostgreSQL calls equal."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        zero: Any = pa.scalar(0.0, column.type)
        return pc.add(column, zero)  # -0 becomes 0
    kind = type_name.partition("(")[0]
    if kind == "numeric":
        return pc.replace_substring_regex(column, pattern=r"\.0+$|(\.[0-9]*[1-9])0+$", replacement=r"\1")
    if kind in {"character", "bpchar"}:
        return pc.utf8_rtrim(column, characters=" ")
    return column


def _wanted(manifest: TableManifest, stored: Sequence[ColumnInfo], columns: Sequence[str] | None) -> tuple[str, ...]:
    known = [c.name for c in stored]
    wanted = tuple(known if columns is None else columns)
    if unknown := [name for name in wanted if name not in known]:
        raise ShapeChanged(
            f"The point holds no column {', '.join(unknown)} of {manifest.name}; it holds {', '.join(known)}."
        )
    return wanted


def _asked(keys: pa.Table, manifest: TableManifest, schema: pa.Schema) -> Column:
    import pyarrow as pa

    if not manifest.key:
        raise ShapeChanged(f"Table {manifest.name} has no key in this point; read all its rows.")
    typed: dict[str, Any] = {name: keys.column(name).cast(schema.field(name).type) for name in manifest.key}
    return identity(pa.table(typed), manifest)


def merged(store: Store, manifest: TableManifest) -> pa.Table:
    """The table's deltas as one that says the same: of each key the last row, gone or not."""
    from snapshots.points import chunks

    stored = chunks.stored(manifest.columns)
    return _merged(store, manifest, stored, stored)


def _merged(
    store: Store, manifest: TableManifest, stored: Sequence[ColumnInfo], read: Sequence[ColumnInfo]
) -> pa.Table:
    """The deltas as one: of each key the last row, gone or not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not manifest.key:
        raise Damaged(f"Table {manifest.name} of the point has deltas but no key; use another point.")
    whole = pa.concat_tables([_open(store, c, manifest, stored, read, delta=True) for c in manifest.deltas])
    if len(manifest.deltas) == 1:
        return whole
    order: Column = pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), whole.num_rows))
    ranked = pa.table({"key": identity(whole, manifest), "at": order})
    last: Column = ranked.group_by("key", use_threads=False).aggregate([("at", "max")]).column("at_max")
    return whole.take(pc.subtract(last, 1))


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables joined until they are worth a look-up."""
    import pyarrow as pa

    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(t.num_rows for t in held) >= GROUP_ROWS or sum(t.nbytes for t in held) >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _filtered(
    table: pa.Table,
    manifest: TableManifest,
    schema: pa.Schema,
    *,
    replaced: Column | None,
    asked: Column | None,
    hidden: Hides | None,
) -> Iterator[pa.RecordBatch]:
    import pyarrow.compute as pc

    keep: Any = None
    if replaced is not None or asked is not None:
        key = identity(table, manifest)
        tests: list[Column] = []
        if replaced is not None:
            tests.append(pc.invert(pc.is_in(key, value_set=replaced)))
        if asked is not None:
            tests.append(pc.is_in(key, value_set=asked))
        keep = tests[0] if len(tests) == 1 else pc.and_(*tests)
    if hidden is not None:
        seen: Column = pc.invert(pc.fill_null(hidden(table), False))
        keep = seen if keep is None else pc.and_(keep, seen)
    chosen = table if keep is None else table.filter(keep)
    if hidden is not None:
        chosen = hidden.settled(chosen)
    for batch in chosen.select(schema.names).cast(schema).to_batches():
        if batch.num_rows:
            yield batch


def _open(
    store: Store,
    chunk: Chunk,
    manifest: TableManifest,
    stored: Sequence[ColumnInfo],
    read: Sequence[ColumnInfo],
    *,
    delta: bool = False,
) -> pa.Table:
    """The ``read`` columns of one object, whose layout is checked against the manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from snapshots.points import chunks

    expected = chunks.schema(stored)
    if delta:
        expected = pa.schema([(GONE, pa.bool_()), *expected])
    names = [GONE] * delta + [c.name for c in read]
    try:
        file = pq.ParquetFile(pa.BufferReader(store.read_chunk(chunk.sha256)))
        if not file.schema_arrow.equals(expected):
            raise ValueError(f"its columns are {', '.join(file.schema_arrow.names)}")
        if file.metadata.num_rows != chunk.rows:
            raise ValueError(f"it holds {file.metadata.num_rows} rows, not {chunk.rows}")
        return file.read(columns=names).select(names)
    except (pa.ArrowException, ValueError) as error:
        raise Damaged(
            f"Object {chunk.sha256} of {manifest.name} is not what the point says ({error}); use another point."
        ) from error


def _hides(store: Store, app: str | None, manifest: TableManifest) -> Hides | None:
    if app is None:
        return None
    from snapshots.erasure import erasure

    return erasure.hides(store, app, manifest.name, manifest.erased)
