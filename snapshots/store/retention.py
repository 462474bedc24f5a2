"""Which recovery points stay, and the removal of the others with the objects that nobody else needs.

:func:`choose` is pure. :func:`prune` drops the manifests first and then sweeps: it marks what the manifests of *all*
apps name, and removes unmarked pieces that are old enough not to belong to a capture that has not published yet. It
works alone in the store (:meth:`Store.exclusively`), and removes no piece while a manifest cannot be read: what that
one needs is not known.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from snapshots.model import RecoveryPoint
from snapshots.points import points, proof
from snapshots.points.errors import Damaged, PointMissing
from snapshots.store.backend import Stat
from snapshots.store.store import Store, manifest_path, piece_name, pieces, side_path

GRACE_S = 24 * 3600.0
"""Pieces younger than this stay in any case: they may belong to a point that is being captured."""
HOLDS = "holds"


class Keep(Protocol):
    """How many points stay: the newest ones, and one of each of the newest hours, days, weeks and months (UTC)."""

    @property
    def last(self) -> int: ...
    @property
    def hourly(self) -> int: ...
    @property
    def daily(self) -> int: ...
    @property
    def weekly(self) -> int: ...
    @property
    def monthly(self) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A point with why it stays or goes. ``why`` is never empty."""

    point: RecoveryPoint
    why: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """A point that must not be pruned, whatever the policy says."""

    point: str
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What was removed, or would be. ``left`` says why pieces stayed that nothing needs; empty when none did."""

    dry_run: bool
    kept: dict[str, tuple[str, ...]]
    dropped: dict[str, tuple[str, ...]]
    objects: int
    bytes: int
    left: str = ""
    problems: tuple[str, ...] = field(default=())
    """Manifests that cannot be read: they stay, and so do all pieces."""


_PERIODS: tuple[tuple[str, Callable[[datetime], str]], ...] = (
    ("hourly", lambda at: f"{at:%Y-%m-%d %H}h"),
    ("daily", lambda at: f"{at:%Y-%m-%d}"),
    ("weekly", lambda at: f"{at:%G-W%V}"),
    ("monthly", lambda at: f"{at:%Y-%m}"),
)


def choose(
    found: Iterable[RecoveryPoint],
    keep: Keep,
    *,
    held: Collection[str] = (),
    proven: Collection[str] = (),
    now: datetime,
) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
    """The points that stay and those that go, each newest first, with reasons (pure).

    Of each hour, day, week and month that has points the newest verified one stands for it, or the newest when none is
    verified. Whatever the numbers say, these stay: held points, the newest verified one, the newest of ``proven`` ones
    (restored and checked), and points from the future, which only a wrong clock explains.
    """
    ordered = sorted(found, key=lambda p: (p.taken_at, p.id), reverse=True)
    why: dict[str, list[str]] = {p.id: [] for p in ordered}
    past = [p for p in ordered if p.taken_at <= now]
    for point in ordered:
        if point.taken_at > now:
            why[point.id].append("taken after now: is the clock right?")
        if point.id in held:
            why[point.id].append("held")
    for name, good in (
        ("newest verified", [p for p in ordered if p.verified]),
        ("newest proven", [p for p in ordered if p.id in proven]),
    ):
        if good:
            why[good[0].id].append(name)
    for number, point in enumerate(past[: keep.last], 1):
        why[point.id].append(f"last {number}")
    for period, named in _PERIODS:
        standing: dict[str, RecoveryPoint] = {}
        for point in past:
            slot = named(point.taken_at.astimezone(UTC))
            if slot not in standing or (point.verified and not standing[slot].verified):
                standing[slot] = point
        for slot, point in list(standing.items())[: getattr(keep, period)]:
            why[point.id].append(f"{period} {slot}")
    kept = tuple(Choice(point=p, why=tuple(why[p.id])) for p in ordered if why[p.id])
    dropped = tuple(Choice(point=p, why=("no rule keeps it",)) for p in ordered if not why[p.id])
    return kept, dropped


def hold(store: Store, app: str, point_id: str, *, reason: str, by: str, now: datetime) -> Hold:
    """Keep the point until it is released. Holding it again changes the reason. Raises :class:`PointMissing`."""
    store.read_manifest(app, point_id)
    made = Hold(point=point_id, reason=reason, by=by, at=now.astimezone(UTC))
    values = {**asdict(made), "at": made.at.isoformat()}
    store.replace_object(side_path(HOLDS, app, point_id), json.dumps(values, sort_keys=True, indent=1).encode())
    return made


def release(store: Store, app: str, point_id: str) -> None:
    """Let the point be pruned again. Raises :class:`PointMissing` when it was not held."""
    path = side_path(HOLDS, app, point_id)
    if store.read_object(path) is None:
        raise PointMissing(f"Point {point_id} of {app} is not held; list the holds with `reinstate store holds`.")
    store.remove_object(path)


def holds(store: Store, app: str) -> tuple[Hold, ...]:
    """The holds of the app, by point. Raises :class:`Damaged` for one that cannot be read."""
    found = []
    for name in store.object_names(f"{HOLDS}/{app}"):
        path = f"{HOLDS}/{app}/{name}"
        data = store.read_object(path)
        if data is not None:
            try:
                values = json.loads(data)
                found.append(Hold(**{**values, "at": datetime.fromisoformat(values["at"])}))
            except (ValueError, TypeError, KeyError) as error:
                raise Damaged(f"{path} in {store.name} is not a hold; hold the point again.") from error
    return tuple(found)


def prune(
    store: Store,
    app: str,
    keep: Keep,
    *,
    dry_run: bool,
    only: Collection[str] | None = None,
    now: datetime | None = None,
    grace_s: float = GRACE_S,
    seen: Callable[[str], None] = lambda _: None,
) -> Pruned:
    """Drop the points of ``app`` that :func:`choose` drops, then every piece that no point of any app names.

    ``only``: of the points, drop no others than these (that were shown). ``grace_s``: pieces younger than this stay.
    ``seen`` hears each path that goes. The caller holds the app's lease. Interrupted, it is simply run again. Raises
    :class:`StoreBusy` when a capture is at work, and the store's errors.
    """
    at = now or datetime.now(UTC)
    alone = nullcontext() if dry_run else store.exclusively(f"pruning of {app}")
    with alone as presence:
        listing = points.listing(store, app)
        kept, dropped = choose(
            listing.points,
            keep,
            held={h.point for h in holds(store, app)},
            proven={p.point for p in proof.proofs(store, app) if p.passed},
            now=at,
        )
        spared = tuple(
            replace(c, why=("not among those that were shown",))
            for c in dropped
            if only is not None and c.point.id not in only
        )
        kept, dropped = kept + spared, tuple(c for c in dropped if only is None or c.point.id in only)
        going = {c.point.id for c in dropped}
        needed, problems = _marked(store, app, going)
        swept = [] if problems else _unneeded(store, needed, before=time.time() - grace_s)
        if presence is not None:
            sides = [side_path(proof.FOLDER, app, point_id) for point_id in sorted(going)]
            manifests = [manifest_path(app, point_id) for point_id in sorted(going)]
            # Manifests go before their pieces: a crash in between leaves pieces, never a point without them.
            for path in (*sides, *manifests, *(s.path for s in swept)):
                presence.renew()
                store.remove_object(path)
                seen(path)
    return Pruned(
        dry_run=dry_run,
        kept={c.point.id: c.why for c in kept},
        dropped={c.point.id: c.why for c in dropped},
        objects=len(swept),
        bytes=sum(s.bytes for s in swept),
        left="a manifest cannot be read, so what it needs is not known" if problems else "",
        problems=problems,
    )


def needed_by_all(store: Store) -> tuple[dict[str, set[str]], tuple[str, ...]]:
    """By app and point (``app/id``) the pieces it needs, and a sentence for each manifest that cannot be read."""
    found: dict[str, set[str]] = {}
    problems: list[str] = []
    for app in store.apps():
        for point_id, values in store.read_manifests(app, store.point_ids(app)):
            if not isinstance(values, Exception):
                found[f"{app}/{point_id}"] = pieces(values)
            elif not isinstance(values, PointMissing):
                problems.append(str(values))
    return found, tuple(problems)


def _marked(store: Store, app: str, going: Collection[str]) -> tuple[set[str], tuple[str, ...]]:
    found, problems = needed_by_all(store)
    gone = {f"{app}/{point_id}" for point_id in going}
    return set().union(*(names for point, names in found.items() if point not in gone)), problems


def _unneeded(store: Store, needed: Collection[str], *, before: float) -> list[Stat]:
    """Pieces that nobody names and that are old enough. One of unknown age stays."""
    return [
        found
        for found in store.walk("chunks")
        if piece_name(found.path) not in needed and found.modified is not None and found.modified < before
    ]
