"""What an erasure would do, for people to read and decide on before it is done. Holds no value of the person."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import Connection

from snapshots.erasure import erasure, find
from snapshots.erasure import scope as erasure_scope
from snapshots.erasure.find import Found, Piece
from snapshots.erasure.scope import Condition, Scope
from snapshots.model import RecoveryPoint
from snapshots.points import chunks, points
from snapshots.points.errors import translated
from snapshots.store import retention
from snapshots.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

MENTION_CHARS = 4
"""Shorter values are not looked for inside other texts: they would be found everywhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableErasure:
    """What goes of one table. ``rows`` counts different keys (``None`` without a key), ``images`` their images in the
    journal, ``stored`` and ``segments`` their copies in the objects of points and in exported pieces of the journal.
    ``cleared`` counts links to them, in rows that stay, that become null."""

    table: str
    rows: int | None
    images: int
    stored: int
    segments: int
    cleared: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What stays although it has to do with the person: somebody decides."""

    where: str
    rows: int
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ErasePlan:
    """What an erasure would do. ``problems``: why it must not run now."""

    app: str
    tables: tuple[TableErasure, ...]
    points: tuple[str, ...]
    """Ids of the points to be rewritten."""
    objects: tuple[str, ...]
    """Objects of the store to be replaced."""
    live: dict[str, int]
    """Rows by table that live still has under this subject."""
    left: tuple[Left, ...]
    problems: tuple[str, ...]
    held: tuple[str, ...] = ()
    """Points under legal hold: they stay as they are."""
    pending: tuple[str, ...] = ()
    """Objects that an earlier, interrupted erasure left to be removed."""

    @property
    def empty(self) -> bool:
        return not self.tables and not self.objects and not self.pending

    @property
    def plan_hash(self) -> str:
        """Of what will be removed. What is only shown (live rows, what stays) may go on changing."""
        text = json.dumps([self.app, [repr(t) for t in self.tables], self.points])
        return hashlib.sha256(text.encode()).hexdigest()

    def summary(self) -> list[str]:
        """Sentences for the record."""
        return [
            f"{t.table}: {'' if t.rows is None else f'{t.rows} rows, '}{t.images} journal images, "
            f"{t.stored} copies in points, {t.segments} in exported journal pieces, {t.cleared} links cleared"
            for t in self.tables
        ] + [f"{len(self.points)} points rewritten"] * bool(self.points)


def plan(conn: Connection[Any], store: Store, app: str, found: Found) -> ErasePlan:
    """Count what :func:`erasure_find.find` found (role: installer; reads only)."""
    with translated(), conn.transaction():
        chunks.settle(conn)
        counted = _Count(conn, store, app, found)
        counted.run()
    held = {h.point: h.reason for h in retention.holds(store, app)}
    _, unreadable, listed = find.objects(store, app)
    touched = tuple(p.id for p in listed if counted.replaced & points.pieces(p).keys())
    problems = [
        *still_live(found),
        *(
            f"point {p} is under legal hold ({held[p]}) and holds rows of this person: end the hold first"
            for p in touched
            if p in held
        ),
        *counted.problems,
    ]
    left = [*counted.left, *_in_logic(listed, found.who.value)]
    left += [Left(where="store", rows=0, what=f"not readable, so not looked through: {p}") for p in unreadable]
    return ErasePlan(
        app=app,
        tables=tuple(counted.tables),
        points=touched,
        objects=tuple(sorted(counted.replaced)),
        live={t: n for t, n in found.live.items() if n},
        left=tuple(left),
        problems=tuple(problems),
        held=tuple(held),
        pending=pending(store, app),
    )


def pending(store: Store, app: str) -> tuple[str, ...]:
    """Objects that erasures replaced, that are still there, and that no point of any app needs (any more)."""
    replaced = {name for e in erasure.entries(store, app) for name in e.replaced}
    if not replaced:
        return ()
    named, _ = retention.needed_by_all(store)
    return tuple(sorted(replaced - store.missing(replaced) - set[str]().union(*named.values())))


def still_live(found: Found) -> Iterator[str]:
    for table, rows in sorted(found.live.items()):
        if rows:
            yield (
                f"{table} still has {rows} live row{'s' * (rows > 1)} of this person: the app must delete them first "
                "(or make them anonymous); "
                f"then run this again, or keep them on purpose with --keep {table}"
            )


class _Count:
    """One look through everything, in which what goes, what is cleared and what stays are counted."""

    def __init__(self, conn: Connection[Any], store: Store, app: str, found: Found) -> None:
        self.conn = conn
        self.store = store
        self.app = app
        self.found = found
        self.replaced: set[str] = set()
        self.tables: list[TableErasure] = []
        self.left: list[Left] = []
        self.problems: list[str] = []
        self._texts: dict[str, int] = {}

    def run(self) -> None:
        for scope in self.found.scopes:
            if scope.name in self.found.who.keep:
                self._keep(scope)
            else:
                self._table(scope)
            self._mentioned(scope)
        known = {s.name for s in self.found.scopes}
        for piece in self.found.pieces:
            if piece.table not in known:
                self._count_mentions(piece, self._read(piece))
        self.left += [
            Left(where=where, rows=rows, what="the value stands inside other text")
            for where, rows in self._texts.items()
        ]

    def _table(self, scope: Scope) -> None:
        conditions = self.found.conditions(scope.name)
        unlink = self._unlinking(scope)
        images = erasure_scope.count_images(self.conn, scope, conditions)
        cleared = erasure_scope.count_images(self.conn, scope, [*conditions, *unlink]) - images
        stored = segments = 0
        for piece in self.found.pieces:
            if piece.table != scope.name:
                continue
            table = self._read(piece)
            out = self._gone(table, piece, conditions)
            hits, table = _true(out), table.filter(_not(out))
            links = _true(find.matching(table, unlink, piece.types))
            stored += hits if piece.kind != "segment" else 0
            segments += hits if piece.kind == "segment" else 0
            cleared += links
            if hits or links:
                self.replaced.add(piece.sha256)
            self._count_mentions(piece, table)
        keys = self.found.erased.get(scope.name, {}).get(scope.key) if scope.key else None
        if images or stored or segments or cleared or keys:
            self.tables.append(
                TableErasure(
                    table=scope.name,
                    rows=None if not scope.key else len(keys or ()),
                    images=images,
                    stored=stored,
                    segments=segments,
                    cleared=cleared,
                )
            )
        if kept := self.found.kept.get(scope.name):
            what = "rows that belong to the person; the app keeps them live, so their history stays"
            self.left.append(Left(where=scope.name, rows=len(kept), what=what))
        if stays := self.found.stays.get(scope.name):
            what = "made anonymous in the app: points will hold these rows as they are live"
            self.left.append(Left(where=scope.name, rows=len(stays), what=what))
        if cleared:
            names = ", ".join(sorted({c for link in self.found.unlink.get(scope.name, {}) for c in link.clears}))
            what = f"rows that only referenced the person stay, without the link; --also {scope.name} takes them too"
            self.left.append(Left(where=f"{scope.name}.{names}", rows=cleared, what=what))

    def _read(self, piece: Piece) -> pa.Table:
        self.found.beat()
        return find.read(self.store, piece)

    def _gone(self, table: pa.Table, piece: Piece, conditions: Sequence[Condition]) -> Any:
        import pyarrow.compute as pc

        out = find.matching(table, conditions, piece.types)
        before = erasure.hides(self.store, self.app, piece.table, piece.erased)
        return out if before is None else pc.or_(out, before(table))

    def _keep(self, scope: Scope) -> None:
        subject = []
        if scope.subject and (text := self.found.named.get(scope.name)):
            subject.append(Condition(columns=(scope.subject,), values=frozenset([text])))
        needed = [
            Condition(columns=k.columns, values=frozenset(self.found.targets.get((k.parent, k.to), ())))
            for k in scope.links
            if k.needed
        ]
        rows = erasure_scope.count_images(self.conn, scope, subject)
        dangling = erasure_scope.count_images(self.conn, scope, needed)
        for piece in self.found.pieces:
            if piece.table == scope.name:
                table = self._read(piece)
                rows += _true(find.matching(table, subject, piece.types))
                dangling += _true(find.matching(table, needed, piece.types))
                self._count_mentions(piece, table)
        if rows:
            self.left.append(Left(where=scope.name, rows=rows, what="copies of rows that are kept on purpose"))
        if dangling and not all(self.found.stays.get(k.parent) for k in scope.links if k.needed):
            parents = ", ".join(sorted({k.parent for k in scope.links if k.needed and self.found.targets}))
            self.problems.append(
                f"rows of {scope.name} cannot be kept without those of {parents}: keep both, or neither"
            )

    def _mentioned(self, scope: Scope) -> None:
        if len(self.found.who.value) < MENTION_CHARS:
            return
        besides = () if scope.name in self.found.who.keep else self.found.conditions(scope.name)
        for place, twin in (("live", False), ("the journal", True)):
            if not twin or scope.twin:
                found = erasure_scope.mentions(self.conn, scope, self.found.who.value, besides, twin=twin)
                for column, rows in found.items():
                    self._texts[f"{scope.name}.{column} in {place}"] = rows

    def _count_mentions(self, piece: Piece, table: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        value = self.found.who.value
        if len(value) < MENTION_CHARS:
            return
        for name in table.schema.names:
            kind = table.schema.field(name).type
            if pa.types.is_large_string(kind) or pa.types.is_string(kind):
                rows = _true(pc.match_substring(table.column(name), value))
                if rows:
                    place = f"{piece.table}.{name} in points"
                    self._texts[place] = self._texts.get(place, 0) + rows

    def _unlinking(self, scope: Scope) -> list[Condition]:
        return [
            Condition(columns=link.columns, values=frozenset(values))
            for link, values in self.found.unlink.get(scope.name, {}).items()
        ]


def _in_logic(listed: Sequence[RecoveryPoint], value: str) -> list[Left]:
    """Workflow definitions are what they are by their hash: a point with an altered one would be no point."""
    if len(value) < MENTION_CHARS:
        return []
    quoted = json.dumps(value, ensure_ascii=False)[1:-1]
    named = {
        w.workflow: w for p in listed for w in p.workflows if quoted in json.dumps(w.definition, ensure_ascii=False)
    }
    what = "the definition of the workflow holds the value (pinned data, a constant): change it, then prune the points"
    return [Left(where=f"workflow {name}", rows=0, what=what) for name in sorted(named)]


def _true(mask: Any) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(mask).as_py() or 0)


def _not(mask: Any) -> Any:
    import pyarrow.compute as pc

    return pc.invert(pc.fill_null(mask, False))
