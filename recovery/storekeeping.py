"""Keeping the store of an app: look after its objects, prove its points, prune, hold, turn its keys; all on record."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ledger import kinds
from recovery.containment import Say, quiet
from recovery.context import AppContext
from snapshots.model import RecoveryPoint
from snapshots.points import points, proof
from snapshots.points.errors import PointMissing
from snapshots.points.proof import Proof
from snapshots.store import lock, retention, rotation
from snapshots.store.retention import Hold, Pruned
from snapshots.store.rotation import Rotated
from snapshots.store.store import piece_name

LEASE_S = 60.0
_PROGRESS_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One point after a verification. ``proof`` is ``None`` when it was not asked for."""

    point: str
    taken_at: datetime
    objects: int
    problems: tuple[str, ...]
    proof: Proof | None = None

    @property
    def sound(self) -> bool:
        return not self.problems and (self.proof is None or self.proof.passed)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """``bytes`` were read, each object once. ``problems``: manifests that cannot be read."""

    points: tuple[Checked, ...]
    bytes: int
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.problems and all(c.sound for c in self.points)


@dataclass(frozen=True, kw_only=True)
class Status:
    """The store at a glance. ``logical_bytes`` is what the points would take without sharing objects."""

    name: str
    encryption: str
    key: str | None
    generation: int | None
    others: tuple[str, ...]
    """Other apps with points in the same store."""
    points: int
    verified: int
    proven: int
    held: int
    oldest: datetime | None
    newest: datetime | None
    objects: int
    bytes: int
    pieces: int
    piece_bytes: int
    logical_bytes: int
    unneeded: int
    unneeded_bytes: int
    at_work: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())


def status(ctx: AppContext) -> Status:
    """What is in the store, by listing it and reading the manifests."""
    store, app = ctx.store, ctx.app.key
    kind = rotation.state(store)
    sealer = None if kind == "plain" else store.sealer()
    listing = points.listing(store, app)
    taken = [p.taken_at for p in listing.points]
    stats = list(store.walk())
    pieces = [s for s in stats if s.path.startswith("chunks/")]
    needed, problems = retention.needed_by_all(store)
    wanted = set().union(*needed.values())
    left = [s for s in pieces if piece_name(s.path) not in wanted]
    return Status(
        name=store.name,
        encryption=kind,
        key=store.masters[0].id if sealer is not None else None,
        generation=sealer.ring.generation if sealer is not None else None,
        others=tuple(a for a in store.apps() if a != app),
        points=len(listing.points),
        verified=sum(p.verified for p in listing.points),
        proven=sum(p.passed for p in proof.proofs(store, app)),
        held=len(retention.holds(store, app)),
        oldest=min(taken, default=None),
        newest=max(taken, default=None),
        objects=len(stats),
        bytes=sum(s.bytes for s in stats),
        pieces=len(pieces),
        piece_bytes=sum(s.bytes for s in pieces),
        logical_bytes=sum(_logical(p) for p in listing.points),
        unneeded=len(left),
        unneeded_bytes=sum(s.bytes for s in left),
        at_work=tuple(lock.described(a) for a in lock.present(store.backend)),
        problems=tuple(dict.fromkeys((*listing.problems, *problems))),
    )


def verify(
    ctx: AppContext,
    *,
    point_ids: Sequence[str] = (),
    everything: bool = False,
    restore: bool = False,
    scratch: str | None = None,
    say: Say = quiet,
) -> Verified:
    """Read every object of the points (those named, all, or the newest); with ``restore`` prove each as well.

    Raises ``PointMissing`` for an unknown point, or when there is none.
    """
    store, app = ctx.store, ctx.app.key
    problems: tuple[str, ...] = ()
    if everything:
        listing = points.listing(store, app)
        chosen, problems = list(listing.points), listing.problems
    else:
        ids = list(point_ids) or store.point_ids(app)[-1:]
        chosen = [points.load(store, app, i) for i in ids] if ids else []
    if not chosen and not problems:
        raise PointMissing(f"app {app}: there is no recovery point in {store.name}; run `reinstate protect`.")
    reading = _Reading(say)
    known: dict[str, str] = {}
    checked = []
    for number, point in enumerate(chosen, 1):
        say(f"point {point.id} ({number} of {len(chosen)}): reading {len(points.pieces(point))} objects")
        found = points.audit(store, point, known=known, seen=reading.seen)
        made = None
        if restore and not found:
            made = prove(ctx, point, scratch=scratch, say=say)
        checked.append(
            Checked(
                point=point.id,
                taken_at=point.taken_at,
                objects=len(points.pieces(point)),
                problems=found,
                proof=made,
            )
        )
    return Verified(points=tuple(checked), bytes=reading.bytes, problems=problems)


def prove(ctx: AppContext, point: RecoveryPoint, *, scratch: str | None = None, say: Say = quiet) -> Proof:
    """Restore the point into an empty database, compare every row with the point, run the suites; keep the outcome in
    the store and in the ledger. ``scratch``: see :func:`recovery.scratch.database`."""
    from recovery import proving

    made = proving.prove(ctx, point, scratch=scratch, say=say)
    proof.record(ctx.store, ctx.app.key, made)
    ctx.ledger.append(
        kinds.POINT_PROVEN,
        app=ctx.app.key,
        body={
            "point": made.point,
            "passed": made.passed,
            "rows": sum(made.rows.values()),
            "ran": made.ran,
            "failed": list(made.failed),
            "problems": list(made.problems),
            "seconds": made.seconds,
        },
    )
    return made


def pruning(ctx: AppContext) -> Pruned:
    """What pruning by the catalogue's policy would remove now; changes nothing."""
    return retention.prune(ctx.store, ctx.app.key, ctx.app.store.keep, dry_run=True)


def prune(ctx: AppContext, plan: Pruned, *, by: str, say: Say = quiet) -> Pruned:
    """Remove what ``plan`` showed, under the app's lease. Raises ``LeaseHeld`` while a recovery of the app runs."""
    app = ctx.app.key
    body: dict[str, Any] = {"operation": "prune", "by": by}
    with ctx.ledger.lease(app, _holder("pruning"), LEASE_S) as lease:
        summary = [
            f"pruning {len(plan.dropped)} points ({', '.join(plan.dropped) or 'none'}) and {plan.objects} objects"
        ]
        ctx.ledger.append(kinds.DATA_PLANNED, app=app, body={**body, "summary": summary}, lease=lease)
        done = retention.prune(
            ctx.store,
            app,
            ctx.app.store.keep,
            dry_run=False,
            only=frozenset(plan.dropped),
            seen=lambda path: say(f"removed {path}") if path.startswith("points/") else None,
        )
        summary = [
            f"pruned {len(done.dropped)} points ({', '.join(done.dropped) or 'none'}) and {done.objects} objects"
        ]
        ctx.ledger.append(kinds.DATA_APPLIED, app=app, body={**body, "summary": summary}, lease=lease)
    return done


def hold(ctx: AppContext, point_id: str, *, reason: str, by: str) -> Hold:
    """Keep a point until it is released, on record."""
    made = retention.hold(ctx.store, ctx.app.key, point_id, reason=reason, by=by, now=datetime.now(UTC))
    _recorded(ctx, "hold", [f"held point {point_id}"], by=by, reason=reason)
    return made


def release(ctx: AppContext, point_id: str, *, reason: str, by: str) -> None:
    """Let a held point be pruned again, on record."""
    retention.release(ctx.store, ctx.app.key, point_id)
    _recorded(ctx, "release", [f"released point {point_id}"], by=by, reason=reason)


def rotate(ctx: AppContext, *, everything: bool, by: str, say: Say = quiet) -> Rotated:
    """Turn the store's keys (see :func:`snapshots.store.rotation.rotate`) under the app's lease, on record."""
    app = ctx.app.key
    body: dict[str, Any] = {"operation": "rotate", "by": by}
    reading = _Reading(say, what="sealed")
    with ctx.ledger.lease(app, _holder("rotation of keys"), LEASE_S) as lease:
        first = ctx.store.masters[0].id if ctx.store.masters else "none"
        summary = [f"turning the keys of the store to {first}"]
        ctx.ledger.append(kinds.DATA_PLANNED, app=app, body={**body, "summary": summary}, lease=lease)
        done = rotation.rotate(ctx.store, everything=everything, seen=lambda _: reading.seen(0))
        summary = [
            f"{'encrypted the store' if done.encrypted else 'turned the keys of the store'}: "
            f"key {done.key}, generation {done.generation}, {done.sealed} objects sealed"
        ]
        ctx.ledger.append(kinds.DATA_APPLIED, app=app, body={**body, "summary": summary}, lease=lease)
    return done


def key_ids(ctx: AppContext) -> tuple[str, ...]:
    """Ids of the keys that the catalogue gives, the one for the next rotation first."""
    return tuple(m.id for m in ctx.store.masters)


def _logical(point: RecoveryPoint) -> int:
    found = {c.sha256: c.bytes for t in point.tables for c in (*t.chunks, *t.deltas)}
    found.update((s.sha256, s.bytes) for s in point.segments)
    return sum(found.values())


def _recorded(ctx: AppContext, operation: str, summary: list[str], *, by: str, reason: str) -> None:
    body = {"operation": operation, "summary": summary, "by": by, "reason": reason}
    ctx.ledger.append(kinds.DATA_APPLIED, app=ctx.app.key, body=body)


def _holder(what: str) -> str:
    return f"{what} by process {os.getpid()} on {socket.gethostname()}"


class _Reading:
    """Says every now and then how far it is."""

    def __init__(self, say: Say, what: str = "read") -> None:
        self._say, self._what, self._next = say, what, time.monotonic() + _PROGRESS_S
        self.bytes = self.objects = 0

    def seen(self, size: int) -> None:
        self.bytes += size
        self.objects += 1
        if time.monotonic() > self._next:
            self._next = time.monotonic() + _PROGRESS_S
            size_mb = f", {self.bytes / 1e6:.0f} MB" if self.bytes else ""
            self._say(f"{self.objects} objects {self._what}{size_mb}")
