"""Recovery points in a store: publish, read, list, choose.

Which point is good is decided by evidence, not by clocks: :func:`contains` asks PostgreSQL whether a transaction was
visible in the point's snapshot, so "before the first bad commit" is exact however long a transaction stayed open.
"""

from __future__ import annotations

import dataclasses
import functools
import secrets
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from psycopg import Connection

from snapshots.errors import Refused
from snapshots.model import Chunk, ColumnInfo, Position, RecoveryPoint, Segment, TableManifest, WorkflowState
from snapshots.points.errors import Damaged, PointMissing, UnknownFormat
from snapshots.position import require_same_server
from snapshots.store.store import Store

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The points of an app, newest first, and one sentence for each manifest that cannot be read."""

    points: tuple[RecoveryPoint, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """A point as offered to a person: best first is verified before unverified, then newest."""

    point: RecoveryPoint
    age_s: float


def new_id(at: datetime) -> str:
    """An id that sorts by time and that two captures at once do not share."""
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"


def publish(store: Store, point: RecoveryPoint) -> None:
    """Make the point exist, with the checksum and format version of the store. Its chunks must be there already."""
    store.publish(point.app, point.id, encode(point))


def load(store: Store, app: str, point_id: str) -> RecoveryPoint:
    """One point. Raises ``PointMissing``, ``Damaged`` or ``UnknownFormat``."""
    return decode(store.read_manifest(app, point_id), where=_where(store, app, point_id))


def listing(store: Store, app: str) -> Listing:
    """All points of ``app``. A damaged manifest never hides the readable ones: it is named in ``problems``."""
    found: list[RecoveryPoint] = []
    problems: list[str] = []
    for point_id, values in store.read_manifests(app, store.point_ids(app)):
        try:
            if not isinstance(values, Exception):
                found.append(decode(values, where=_where(store, app, point_id)))
            elif not isinstance(values, PointMissing):  # a point that was pruned since we looked is no problem
                problems.append(str(values))
        except Damaged as error:
            problems.append(str(error))
    found.sort(key=lambda p: (p.taken_at, p.id), reverse=True)
    return Listing(points=tuple(found), problems=tuple(problems))


def latest_verified(
    store: Store,
    app: str,
    *,
    before: datetime | None = None,
    admits: Callable[[RecoveryPoint], bool] = lambda _: True,
) -> RecoveryPoint | None:
    """The newest verified point that ``admits`` accepts (say, "does not contain the first bad transaction and its
    logic is the good version"), taken before ``before`` by the database's clock; ``None`` when there is none.

    Reads manifests from the newest on, as many as it takes.
    """
    for point_id in reversed(store.point_ids(app)):
        try:
            point = load(store, app, point_id)
        except (Damaged, UnknownFormat, PointMissing):
            continue
        if point.verified and (before is None or point.taken_at < before) and admits(point):
            return point
    return None


def rank(points: Iterable[RecoveryPoint], *, now: datetime) -> tuple[Ranked, ...]:
    """Points in the order in which to consider them, with their age in seconds at ``now``."""
    ordered = sorted(points, key=lambda p: (p.verified, p.taken_at, p.id), reverse=True)
    return tuple(Ranked(point=p, age_s=(now - p.taken_at).total_seconds()) for p in ordered)


def contains(conn: Connection[Any], position: Position, xid: int) -> bool:
    """Whether transaction ``xid`` had ended when ``position`` was taken, so that what it committed is in the point.

    Any role. Raises :class:`snapshots.errors.Refused` when ``conn`` is another cluster or timeline than the position's:
    its numbers mean nothing there. An aborted transaction counts as ended.
    """
    require_same_server(conn, position)
    row = conn.execute(
        "SELECT pg_visible_in_snapshot(%s::text::xid8, %s::text::pg_snapshot)", (str(xid), position.snapshot)
    ).fetchone()
    return bool(row and row[0])


def lacks(conn: Connection[Any], xid: int) -> Callable[[RecoveryPoint], bool]:
    """For :func:`latest_verified`: admits points that surely hold nothing of transaction ``xid`` (any role). A point of
    another cluster is never admitted: there is no evidence about it."""

    def admits(point: RecoveryPoint) -> bool:
        try:
            return not contains(conn, point.position, xid)
        except Refused:
            return False

    return admits


def pieces(point: RecoveryPoint) -> dict[str, str]:
    """Names of all objects the point needs, each with the table it is for."""
    found: dict[str, str] = {}
    for table in point.tables:
        found.update((c.sha256, table.name) for c in (*table.chunks, *table.deltas))
    found.update((s.sha256, s.table) for s in point.segments)
    return found


def audit(
    store: Store,
    point: RecoveryPoint,
    *,
    known: MutableMapping[str, str] | None = None,
    seen: Callable[[int], None] = lambda _: None,
) -> tuple[str, ...]:
    """Read every object of the point (chunks, deltas, segments); one sentence for each damaged or missing one, empty
    when all are sound. ``known`` remembers what was read, so that points that share objects read them once; ``seen``
    hears the bytes of each."""
    read: MutableMapping[str, str] = {} if known is None else known
    problems: list[str] = []
    for name, table in pieces(point).items():
        if name not in read:
            try:
                seen(len(store.read_chunk(name)))
                read[name] = ""
            except Damaged as error:
                read[name] = str(error)
        if read[name]:
            problems.append(f"{table}: {read[name]}")
    return tuple(problems)


def encode(point: RecoveryPoint) -> dict[str, Any]:
    """The point as plain JSON values; :func:`decode` is its inverse."""
    values = dataclasses.asdict(point)
    values["taken_at"] = point.taken_at.isoformat()
    values["position"]["at"] = point.position.at.isoformat()
    for segment in values["segments"]:
        segment["since"]["at"] = segment["since"]["at"].isoformat()
    return _plain(values)  # type: ignore[no-any-return]


def decode(values: Mapping[str, Any], *, where: str) -> RecoveryPoint:
    """A point from :func:`encode`'s values. Fields that a later version added are passed over. Raises ``Damaged``
    naming ``where`` when the values do not fit."""
    try:
        return _made(
            RecoveryPoint,
            values,
            taken_at=datetime.fromisoformat(values["taken_at"]),
            position=_position(values["position"]),
            workflows=tuple(_workflow(w) for w in values["workflows"]),
            in_flight=tuple(values["in_flight"]),
            tables=tuple(_table(t) for t in values["tables"]),
            segments=tuple(_made(Segment, s, since=_position(s["since"])) for s in values.get("segments", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"{where} is not a recovery point ({error}); use another point.") from error


def _workflow(values: Mapping[str, Any]) -> WorkflowState:
    return _made(
        WorkflowState,
        values,
        entries=tuple(values.get("entries", ())),
        calls=tuple(values.get("calls", ())),
        credentials=tuple(values.get("credentials", ())),
    )


def _table(values: Mapping[str, Any]) -> TableManifest:
    return _made(
        TableManifest,
        values,
        columns=tuple(_made(ColumnInfo, c) for c in values["columns"]),
        key=tuple(values["key"]),
        chunks=tuple(_chunk(c["sha256"], c["rows"], c["bytes"]) for c in values["chunks"]),
        deltas=tuple(_chunk(c["sha256"], c["rows"], c["bytes"]) for c in values.get("deltas", ())),
        leaves=tuple(values.get("leaves", ())),
        fingerprint=tuple(values.get("fingerprint", ())),
    )


@functools.lru_cache(maxsize=1 << 16)
def _chunk(sha256: str, rows: int, size: int) -> Chunk:
    """Points share most of their pieces, so a listing shares what stands for them."""
    return Chunk(sha256=sha256, rows=rows, bytes=size)


def _position(values: Mapping[str, Any]) -> Position:
    return _made(Position, values, at=datetime.fromisoformat(values["at"]))


def _made(kind: type[T], values: Mapping[str, Any], **given: Any) -> T:
    """A dataclass from those of the values that it knows, with ``given`` ones in the place of others."""
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: v for k, v in values.items() if k in known and k not in given}, **given)


def _where(store: Store, app: str, point_id: str) -> str:
    return f"points/{app}/{point_id}.json in {store.name}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
