"""Where a person is: their rows in the journal and in every object of the store, found without changing anything.

A row is about the person when its subject column names them, when it is another image of such a row (by key), or when
it cannot be without one of those rows and the app no longer has it. What the app still has is the app's decision: it
is listed, not followed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from psycopg import Connection

from snapshots.erasure import rules
from snapshots.erasure import scope as erasure_scope
from snapshots.erasure.scope import Condition, Link, Scope, Value
from snapshots.errors import Refused
from snapshots.model import RecoveryPoint, TableSpec
from snapshots.points import chunks, points
from snapshots.points.errors import Damaged, translated
from snapshots.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Column = Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """An object of the store that holds rows of a table, with the types its columns have there."""

    table: str
    sha256: str
    kind: Literal["chunk", "delta", "segment"]
    types: Mapping[str, str] = field(hash=False, compare=False)
    erased: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Who:
    """Whom an erasure is about. ``subjects``: table -> column that names a person, here as ``value``. ``keep``: tables
    whose rows stay on purpose. ``also``: tables whose rows go although they could stay without their link."""

    value: str = field(repr=False)
    subjects: Mapping[str, str]
    keep: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class Found:
    """The rows themselves, by canonical keys. Lives as long as the command and is never written anywhere."""

    who: Who
    scopes: tuple[Scope, ...]
    pieces: tuple[Piece, ...] = field(repr=False)
    beat: Callable[[], None] = field(repr=False)
    named: dict[str, Value] = field(default_factory=dict, repr=False)
    """Table -> the person as its subject column would hold them."""
    erased: dict[str, dict[tuple[str, ...], set[Value]]] = field(default_factory=dict, repr=False)
    """Table -> columns -> values: conditions for rows that go."""
    targets: dict[tuple[str, tuple[str, ...]], set[Value]] = field(default_factory=dict, repr=False)
    """(table, referenced columns) -> values of rows that go."""
    stays: dict[str, set[Value]] = field(default_factory=dict, repr=False)
    """Keys the live table still has under another subject: the app made the row anonymous."""
    kept: dict[str, set[Value]] = field(default_factory=dict, repr=False)
    """Keys (links where there is no key) of rows about the person that the app still has."""
    unlink: dict[str, dict[Link, set[Value]]] = field(default_factory=dict, repr=False)
    live: dict[str, int] = field(default_factory=dict)

    def conditions(self, table: str) -> tuple[Condition, ...]:
        return tuple(
            Condition(columns=columns, values=frozenset(values))
            for columns, values in self.erased.get(table, {}).items()
            if values
        )

    def add(self, table: str, columns: tuple[str, ...], values: Iterable[Value]) -> None:
        self.erased.setdefault(table, {}).setdefault(columns, set()).update(values)


def find(
    conn: Connection[Any],
    store: Store,
    app: str,
    specs: Sequence[TableSpec],
    who: Who,
    *,
    beat: Callable[[], None] = lambda: None,
) -> Found:
    """All rows about the person. Role: installer; reads only. ``beat`` is called for every object looked at.

    Raises :class:`Refused` for names the app does not have and :class:`Damaged` for an object that is not sound.
    """
    if not who.subjects:
        raise Refused(
            "no table says by which column it names a person: set `subject` in the catalogue, or give --table"
        )
    with translated(), conn.transaction():
        chunks.settle(conn)
        known = erasure_scope.scopes(conn, specs, who.subjects, who.also)
        if unknown := who.keep - {s.name for s in known}:
            raise Refused(f"table {min(unknown)} is not in the catalogue: correct --keep")
        search = _Search(conn, store, Found(who=who, scopes=known, pieces=objects(store, app)[0], beat=beat))
        search.run()
    return search.found


def objects(store: Store, app: str) -> tuple[tuple[Piece, ...], tuple[str, ...], tuple[RecoveryPoint, ...]]:
    """Every object of the app's points once, what cannot be read, and the points."""
    listing = points.listing(store, app)
    made: dict[tuple[str, str], Piece] = {}
    for point in listing.points:
        types = {t.name: {c.name: c.type for c in t.columns} for t in point.tables}
        marks = {t.name: t.erased for t in point.tables}
        named: list[tuple[str, str, Literal["chunk", "delta", "segment"]]] = []
        for table in point.tables:
            named += [(table.name, c.sha256, "chunk") for c in table.chunks]
            named += [(table.name, c.sha256, "delta") for c in table.deltas]
        named += [(s.table, s.sha256, "segment") for s in point.segments]
        for table_name, sha256, kind in named:
            mark = min(
                marks.get(table_name, ""), made[table_name, sha256].erased if (table_name, sha256) in made else "~"
            )
            made[table_name, sha256] = Piece(
                table=table_name, sha256=sha256, kind=kind, types=types.get(table_name, {}), erased=mark
            )
    return tuple(made.values()), listing.problems, listing.points


def read(store: Store, piece: Piece, columns: Collection[str | None] | None = None) -> pa.Table:
    """An object's rows; of ``columns`` those it has. Raises :class:`Damaged`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(store.read_chunk(piece.sha256)))
        names = [n for n in file.schema_arrow.names if columns is None or n in columns]
        return file.read(columns=names, use_threads=False)
    except (pa.ArrowException, ValueError) as error:
        raise Damaged(f"Object {piece.sha256} of {piece.table} is not readable; use a copy of the store.") from error


def values_of(table: pa.Table, columns: Sequence[str], types: Sequence[str]) -> list[Value | None]:
    """Canonical texts of the columns, row by row; ``None`` where one is null."""
    parts = [rules.texts(table, (c,), (t,)).to_pylist() for c, t in zip(columns, types, strict=True)]
    return [None if None in row else row for row in zip(*parts, strict=True)]


def joined(value: Value) -> str:
    """One text for several, as :func:`erasure_rules.texts` makes it."""
    return value[0] if len(value) == 1 else ":".join(f"{len(v.encode())}:{v}" for v in value)


def matching(table: pa.Table, conditions: Iterable[Condition], types: Mapping[str, str]) -> Column:
    """One boolean per row: it meets one of the conditions. A column the table does not have matches nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    out: Column = pa.chunked_array([pa.repeat(pa.scalar(False), table.num_rows)])
    for condition in conditions:
        if set(condition.columns) <= set(table.schema.names) & set(types):
            text = rules.texts(table, condition.columns, [types[c] for c in condition.columns])
            wanted = pa.array([joined(v) for v in condition.values], pa.large_string())
            out = pc.or_(out, pc.is_in(text, value_set=wanted))
    return out


class _Search:
    """The search as it grows: each table is looked through again while what is looked for grows."""

    def __init__(self, conn: Connection[Any], store: Store, found: Found) -> None:
        self.conn = conn
        self.store = store
        self.found = found
        self.seen: dict[str, tuple[Condition, ...]] = {}

    def run(self) -> None:
        for scope in self.found.scopes:
            if scope.subject:
                value = erasure_scope.subject_value(self.conn, scope, self.found.who.value)
                self.found.named |= {} if value is None else {scope.name: value}
        chosen = tuple(s for s in self.found.scopes if s.name not in self.found.who.keep)
        for scope in chosen:
            if scope.subject and (text := self.found.named.get(scope.name)):
                self.found.add(scope.name, (scope.subject,), [text])
        growing = True
        while growing:
            growing = False
            for scope in chosen:
                growing = self._grow(scope) or growing
        self._links(chosen)

    def _grow(self, scope: Scope) -> bool:
        """Look through one table for what the conditions so far name; whether there was anything to look for."""
        certain = self.found.conditions(scope.name)
        needed = tuple(
            Condition(columns=link.columns, values=frozenset(self.found.targets.get((link.parent, link.to), ())))
            for link in scope.links
            if link.needed and self.found.targets.get((link.parent, link.to))
        )
        if (not certain and not needed) or self.seen.get(scope.name) == (*certain, *needed):
            return False
        self.seen[scope.name] = (*certain, *needed)
        for table, types in self._sources(scope, (*certain, *needed)):
            self._certain(scope, table.filter(matching(table, certain, types)), types)
            self._dependent(scope, table.filter(matching(table, needed, types)), types, needed)
        self._still_there(scope)
        return True

    def _sources(self, scope: Scope, conditions: Sequence[Condition]) -> Iterator[tuple[pa.Table, Mapping[str, str]]]:
        types = {c.name: c.type for c in scope.columns}
        by_subject = [c for c in conditions if c.columns == (scope.subject,)]
        yield erasure_scope.live_rows(self.conn, scope, by_subject), types
        if scope.twin:
            yield erasure_scope.twin_rows(self.conn, scope, conditions), types
        wanted = {*scope.key, *(c for link in scope.links for c in link.columns), scope.subject}
        wanted |= {c for child in self.found.scopes for k in child.links if k.parent == scope.name for c in k.to}
        for piece in self.found.pieces:
            if piece.table == scope.name:
                self.found.beat()
                yield read(self.store, piece, wanted), piece.types

    def _certain(self, scope: Scope, hits: pa.Table, types: Mapping[str, str]) -> None:
        """Rows that surely go: remember their keys and what others may reference them by."""
        if not hits.num_rows:
            return
        if scope.key and set(scope.key) <= set(hits.schema.names):
            keys = values_of(hits, scope.key, [types[c] for c in scope.key])
            self.found.add(scope.name, scope.key, (k for k in keys if k is not None))
        for child in self.found.scopes:
            for link in child.links:
                if link.parent == scope.name and set(link.to) <= set(hits.schema.names):
                    values = values_of(hits, link.to, [types[c] for c in link.to])
                    self.found.targets.setdefault((scope.name, link.to), set()).update(
                        v for v in values if v is not None
                    )

    def _dependent(self, scope: Scope, hits: pa.Table, types: Mapping[str, str], needed: Sequence[Condition]) -> None:
        """Rows that cannot be without one that goes: they go too, unless the app still has them."""
        if not hits.num_rows:
            return
        if not scope.key:
            for condition in needed:
                present = erasure_scope.live_rows(self.conn, scope, [condition])
                still = {v for v in values_of(present, condition.columns, scope.types(condition.columns)) if v}
                self.found.kept.setdefault(scope.name, set()).update(still)
                self.found.add(scope.name, condition.columns, condition.values - still)
            return
        keys = {k for k in values_of(hits, scope.key, [types[c] for c in scope.key]) if k is not None}
        new = (
            keys - self.found.erased.get(scope.name, {}).get(scope.key, set()) - self.found.kept.get(scope.name, set())
        )
        present = erasure_scope.live_rows(self.conn, scope, [Condition(columns=scope.key, values=frozenset(new))])
        still = {k for k in values_of(present, scope.key, scope.types(scope.key)) if k is not None}
        self.found.kept.setdefault(scope.name, set()).update(still)
        self.found.add(scope.name, scope.key, new - still)

    def _still_there(self, scope: Scope) -> None:
        """What live still has: under the person's name (the app is not done), or made anonymous under the same key."""
        import pyarrow.compute as pc

        if scope.subject is None:
            return
        text = self.found.named.get(scope.name)
        named = [Condition(columns=(scope.subject,), values=frozenset([text] if text else []))]
        self.found.live[scope.name] = erasure_scope.live_rows(self.conn, scope, named).num_rows
        if scope.key and (keys := self.found.erased.get(scope.name, {}).get(scope.key)):
            present = erasure_scope.live_rows(self.conn, scope, [Condition(columns=scope.key, values=frozenset(keys))])
            others = present.filter(pc.invert(matching(present, named, {c.name: c.type for c in scope.columns})))
            self.found.stays[scope.name] = {
                k for k in values_of(others, scope.key, scope.types(scope.key)) if k is not None
            }

    def _links(self, chosen: Sequence[Scope]) -> None:
        """Links of rows that stay to rows that will be in no history any more."""
        by_name = {s.name: s for s in self.found.scopes}
        for scope in chosen:
            for link in scope.links:
                gone = set(self.found.targets.get((link.parent, link.to), ()))
                parent = by_name.get(link.parent)
                if parent is None or not gone or not link.clears:
                    continue
                if keys := self.found.stays.get(parent.name):
                    rows = erasure_scope.live_rows(
                        self.conn, parent, [Condition(columns=parent.key, values=frozenset(keys))]
                    )
                    gone -= {v for v in values_of(rows, link.to, parent.types(link.to)) if v is not None}
                linked = erasure_scope.live_rows(
                    self.conn, scope, [Condition(columns=link.columns, values=frozenset(gone))]
                )
                # What live still links to is no foreign key; the journal's images must go on agreeing with it.
                gone -= {v for v in values_of(linked, link.columns, scope.types(link.columns)) if v is not None}
                if gone:
                    self.found.unlink.setdefault(scope.name, {})[link] = gone
