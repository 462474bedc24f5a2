"""Erasing: out of the journal, out of every object of the store, and onto the list that keeps it out.

The order makes a crash at any instant harmless. The list comes first, so from then on no reader brings anybody back.
The twins follow in one transaction. Then each point is rewritten: new objects, then its manifest in one step under the
same id, so a reader finds the old point or the new one. The old objects go last; their names stand in the list, so that
whoever runs next removes what a crash left. Running again finds nothing, or the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import Connection, sql

from snapshots.erasure import erasure, find
from snapshots.erasure import plan as erasure_plan
from snapshots.erasure import rules as erasure_rules
from snapshots.erasure import scope as erasure_scope
from snapshots.erasure.find import Found, Piece
from snapshots.erasure.plan import ErasePlan
from snapshots.erasure.rules import Hidden
from snapshots.erasure.scope import Condition, Scope
from snapshots.errors import Refused
from snapshots.model import Chunk, RecoveryPoint, Segment, TableManifest, TableSpec
from snapshots.points import chunks, points, proof, reading
from snapshots.points.errors import translated
from snapshots.store.store import Store, chunk_path, side_path

if TYPE_CHECKING:
    import pyarrow as pa

ERASED = "(erased)"

_RECORD = """
CREATE TABLE IF NOT EXISTS reinstate.erased (
    entry text NOT NULL, table_name text NOT NULL, xid xid8 NOT NULL, actor name NOT NULL, run text,
    images bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())
"""


_GAPS = "UPDATE reinstate.gap SET detail = replace(detail, %s, %s) WHERE strpos(detail, %s) > 0"
"""What PostgreSQL said when it could not journal a row may quote a value of it."""

_PIECES = """
WITH RECURSIVE piece AS (
    SELECT %s::regclass::oid AS id UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN piece p ON p.id = i.inhparent)
SELECT n.nspname, c.relname FROM piece p JOIN pg_class c ON c.oid = p.id JOIN pg_namespace n ON n.oid = c.relnamespace
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Erased:
    """What was done. ``entry`` names the erasure in the list; empty when there was nothing to do."""

    entry: str
    images: dict[str, int]
    """Row images removed from the journal, by table."""
    points: tuple[str, ...]
    """Points that were rewritten."""
    objects: int
    """Objects of the store that were removed."""


def apply(
    conn: Connection[Any],
    store: Store,
    app: str,
    specs: Sequence[TableSpec],
    who: find.Who,
    *,
    plan_hash: str,
    by: str,
    reason: str,
    say: Callable[[str], None] = lambda _: None,
) -> Erased:
    """Do what the plan of that hash said. Role: installer, the owner of the twins; ``conn`` is idle. The caller holds
    the app's lease; nobody captures or prunes meanwhile.

    Raises :class:`Refused` when there is more, less or something else to erase than was shown, when the app still has
    the person live, or when a point is held; :class:`StoreBusy` while somebody else writes to the store.
    """
    with store.exclusively("erasure") as presence:
        found = find.find(conn, store, app, specs, who, beat=presence.renew)
        plan = erasure_plan.plan(conn, store, app, found)
        if plan.problems:
            raise Refused("; ".join(plan.problems))
        if plan.plan_hash != plan_hash:
            raise Refused("what there is to erase has changed since it was shown: look at the new plan, then run again")
        entry, images = "", dict[str, int]()
        if plan.tables or plan.objects:
            say("taking the rows out of the journal")
            entry, images = _journal(conn, store, app, found, plan, by=by, reason=reason)
        rewritten = []
        live = _Live(conn, found.scopes)
        work = _Rewriting(store, app, live, who.value)
        for point in points.listing(store, app).points:
            presence.renew()
            if point.id not in plan.held and (new := work.point(point)) is not None:
                say(f"rewriting point {point.id}")
                store.republish(app, point.id, points.encode(new))
                if points.pieces(new) != points.pieces(point):
                    # It was another point that was restored and checked.
                    store.remove_object(side_path(proof.FOLDER, app, point.id))
                    rewritten.append(point.id)
        presence.renew()
        erasure.mirror(store, app)
        old = erasure_plan.pending(store, app)
        for name in old:
            store.remove_object(chunk_path(name))
        store.clean()
    return Erased(entry=entry, images=images, points=tuple(rewritten), objects=len(old))


def _journal(
    conn: Connection[Any], store: Store, app: str, found: Found, plan: ErasePlan, *, by: str, reason: str
) -> tuple[str, dict[str, int]]:
    """Delete from the twins, with the list written before that is committed: what fails, fails before anything."""
    images: dict[str, int] = {}
    with translated(), conn.transaction():
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None  # noqa: S101 - the query has no condition
        dropped: list[erasure_scope.Dropped] = []
        for scope in found.scopes:
            if scope.twin is None or scope.name in found.who.keep:
                continue
            if conditions := found.conditions(scope.name):
                removed = erasure_scope.drop_images(conn, scope, conditions)
                dropped += removed
                if removed:
                    images[scope.name] = sum(d.images for d in removed)
            for link, values in found.unlink.get(scope.name, {}).items():
                erasure_scope.clear_links(
                    conn, scope, link.clears, Condition(columns=link.columns, values=frozenset(values))
                )
        if any(s.twin for s in found.scopes) and len(found.who.value) >= erasure_plan.MENTION_CHARS:
            conn.execute(_GAPS, (found.who.value, ERASED, found.who.value))
        rules = tuple(_rules(store, app, found))
        entry = erasure.append(store, app, rules=rules, by=by, reason=reason, replaced=plan.objects, now=row[0])
        if any(s.twin for s in found.scopes):
            _record(conn, entry.id, dropped)
    _vacuum(conn, [s for s in found.scopes if s.name in images])
    return entry.id, images


def _rules(store: Store, app: str, found: Found) -> list[erasure_rules.Rule]:
    secret = erasure.guard(store).secret or b""
    made = []
    for scope in found.scopes:
        for columns, values in found.erased.get(scope.name, {}).items():
            if values:
                made.append(
                    erasure_rules.rule(
                        secret,
                        app,
                        table=scope.name,
                        columns=columns,
                        types=scope.types(columns),
                        values=map(find.joined, values),
                    )
                )
        for link, values in found.unlink.get(scope.name, {}).items():
            made.append(
                erasure_rules.rule(
                    secret,
                    app,
                    table=scope.name,
                    columns=link.columns,
                    types=scope.types(link.columns),
                    clears=link.clears,
                    values=map(find.joined, values),
                )
            )
    return made


def _record(conn: Connection[Any], entry: str, dropped: Sequence[erasure_scope.Dropped]) -> None:
    """Whose images are missing from now on, by transaction, so that an undo can say so. No key, no value."""
    conn.execute(_RECORD)
    readers = conn.execute("SELECT value FROM reinstate.setting WHERE name IN ('capturer', 'recoverer')").fetchall()
    for (reader,) in readers:
        conn.execute(sql.SQL("GRANT SELECT ON reinstate.erased TO {}").format(sql.Identifier(reader)))
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO reinstate.erased (entry, table_name, xid, actor, run, images)"
            " VALUES (%s, %s, %s::text::xid8, %s, %s, %s)",
            [(entry, d.table, str(d.xid), d.actor, d.run, d.images) for d in dropped],
        )


def _vacuum(conn: Connection[Any], scopes: Sequence[Scope]) -> None:
    """Let go of the space of the deleted images now and not some day. Not worth failing for."""
    before = conn.autocommit
    conn.autocommit = True
    try:
        for scope in scopes:
            pieces = conn.execute(_PIECES, (sql.Identifier("reinstate", scope.twin or "").as_string(conn),)).fetchall()
            for schema, name in pieces:
                try:
                    conn.execute(sql.SQL("VACUUM {}").format(sql.Identifier(schema, name)))
                except psycopg.Error:
                    continue
    finally:
        conn.autocommit = before


class _Live:
    """Rows as the app has them now, by key: what takes the place of the images of a row that was made anonymous."""

    def __init__(self, conn: Connection[Any], scopes: Sequence[Scope]) -> None:
        self.conn = conn
        self.scopes = {s.name: s for s in scopes}

    def rows(self, manifest: TableManifest, removed: pa.Table) -> pa.Table | None:
        """The live rows of the removed rows' keys; ``None`` where there are none or the table has another shape."""
        scope = self.scopes.get(manifest.name)
        stored = chunks.stored(manifest.columns)
        if scope is None or not manifest.key or scope.key != manifest.key or not removed.num_rows:
            return None
        if [(c.name, c.type) for c in stored] != [(c.name, c.type) for c in chunks.stored(scope.columns)]:
            return None
        keys = find.values_of(removed, scope.key, scope.types(scope.key))
        wanted = Condition(columns=scope.key, values=frozenset(k for k in keys if k is not None))
        with translated(), self.conn.transaction():
            chunks.settle(self.conn)
            rows = erasure_scope.live_rows(self.conn, scope, [wanted])
        return rows if rows.num_rows else None


class _Rewriting:
    """Points without the erased rows. Objects that several points share are rewritten once."""

    def __init__(self, store: Store, app: str, live: _Live, value: str) -> None:
        self.store = store
        self.app = app
        self.live = live
        self.value = value
        self.mark = erasure.honoured(store, app)
        self.done: dict[tuple[str, str, str], Chunk | None] = {}

    def point(self, point: RecoveryPoint) -> RecoveryPoint | None:
        """The point as it should be; ``None`` when it is so already."""
        tables = tuple(self._table(t) for t in point.tables)
        segments = tuple(self._segment(s) for s in point.segments)
        verification = _scrubbed(point.verification, self.value)
        new = dataclasses.replace(point, tables=tables, segments=segments, verification=verification)
        return None if new == point else new

    def _table(self, manifest: TableManifest) -> TableManifest:
        hidden = erasure.hides(self.store, self.app, manifest.name, manifest.erased)
        if hidden is None:
            return manifest
        pieces = [self._chunk(manifest, c, hidden, "chunk") for c in manifest.chunks]
        deltas = [self._chunk(manifest, c, hidden, "delta") for c in manifest.deltas]
        made = dataclasses.replace(
            manifest,
            chunks=tuple(c for c in pieces if c is not None),
            deltas=tuple(c for c in deltas if c is not None),
            erased=self.mark,
        )
        if (made.chunks, made.deltas) == (manifest.chunks, manifest.deltas):
            return made
        rows = sum(c.rows for c in made.chunks)
        if made.deltas:
            rows = sum(b.num_rows for b in reading.batches(self.store, made, columns=made.key))
        # Fingerprints are sums made by the server over the rows as they were: there is no taking off from outside.
        return dataclasses.replace(made, rows=rows, fingerprint=())

    def _chunk(self, manifest: TableManifest, chunk: Chunk, hidden: Hidden, kind: Any) -> Chunk | None:
        cache = (manifest.name, chunk.sha256, manifest.erased)
        if cache not in self.done:
            types = {c.name: c.type for c in manifest.columns}
            piece = Piece(table=manifest.name, sha256=chunk.sha256, kind=kind, types=types)
            table = find.read(self.store, piece)
            made = self._without(manifest, table, hidden)
            self.done[cache] = chunk if made is None else self._put(made)
        return self.done[cache]

    def _without(self, manifest: TableManifest, table: pa.Table, hidden: Hidden) -> pa.Table | None:
        """The table without erased rows and links; ``None`` when there are none in it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        out = hidden(table)
        present = self.live.rows(manifest, table.filter(out))
        if present is not None and reading.GONE in table.schema.names:
            # The point says that a row was gone which the app has (again): that stays so.
            out = pc.and_(out, pc.invert(table.column(reading.GONE)))
            present = self.live.rows(manifest, table.filter(out))
            if present is not None:
                present = present.add_column(0, reading.GONE, pa.repeat(pa.scalar(False), present.num_rows))
        settled = hidden.settled(table.filter(pc.invert(out)))
        if settled.num_rows == table.num_rows and settled.equals(table):
            return None
        if present is not None:
            settled = pa.concat_tables([settled, present.select(settled.schema.names).cast(settled.schema)])
        return settled

    def _segment(self, segment: Segment) -> Segment:
        hidden = erasure.hides(self.store, self.app, segment.table)
        if hidden is None:
            return segment
        import pyarrow.compute as pc

        cache = (segment.table, segment.sha256, "segment")
        if cache not in self.done:
            table = find.read(self.store, Piece(table=segment.table, sha256=segment.sha256, kind="segment", types={}))
            kept = hidden.settled(table.filter(pc.invert(hidden(table))))
            same = Chunk(sha256=segment.sha256, rows=segment.rows, bytes=segment.bytes)
            self.done[cache] = same if kept.equals(table) else self._put(kept, empty=True)
        made = self.done[cache]
        assert made is not None  # noqa: S101 - an empty segment is kept: it says that nothing else happened
        return dataclasses.replace(segment, sha256=made.sha256, rows=made.rows, bytes=made.bytes)

    def _put(self, table: pa.Table, *, empty: bool = False) -> Chunk | None:
        if not table.num_rows and not empty:
            return None
        data = chunks.encode(table.combine_chunks())
        return Chunk(sha256=self.store.put_chunk(data), rows=table.num_rows, bytes=len(data))


def _scrubbed(value: Any, secret: str) -> Any:
    """What the suites said, without the value: examples of failed rows may hold it."""
    if len(secret) < erasure_plan.MENTION_CHARS:
        return value
    if isinstance(value, str):
        return value.replace(secret, ERASED)
    if isinstance(value, Mapping):
        return {k: _scrubbed(v, secret) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(v, secret) for v in value]
    return ERASED if not isinstance(value, bool) and str(value) == secret else value
