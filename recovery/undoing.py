"""An undo that a person asked for, without an incident: selected, planned, shown, done under the app's lease, proven.

It is what a recovery does for its runs, open to every selection. It writes under an id of its own, so that it can be
undone in turn (``recoveries`` of :class:`Wanted`).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets as random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import psycopg

from catalog.models import Caps
from ledger import kinds
from recovery.containment import Say, quiet
from recovery.context import AppContext
from recovery.errors import NothingToRecover, Refused, StepFailed
from recovery.steps import data
from snapshots.model import Applied, Policy, RunRef, UndoPreview, UndoSpec
from snapshots.undo import undo, window

LEASE_S = 60.0
STEP = "undo"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to undo, as it was asked for: writes that meet all of it. ``runs`` and ``recoveries`` together are one
    part, and so are ``workflows`` and ``actors``. ``where``: (table, SQL condition over ``r``)."""

    runs: tuple[str, ...] = ()
    recoveries: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    transactions: tuple[int, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    tables: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    policy: Policy = Policy.REFUSE
    caps: Caps

    @property
    def sentence(self) -> str:
        """The selection in words. Conditions are not quoted: they may hold personal values."""
        parts = [
            f"{name} {', '.join(str(v) for v in values)}"
            for name, values in (
                ("run", self.runs),
                ("recovery", self.recoveries),
                ("workflow", self.workflows),
                ("role", self.actors),
                ("transaction", self.transactions),
                ("table", self.tables),
            )
            if values
        ]
        parts += [f"from {self.since.isoformat()}"] if self.since else []
        parts += [f"until {self.until.isoformat()}"] if self.until else []
        parts += [f"rows of {table} that meet a condition" for table in sorted({table for table, _ in self.where})]
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class UndoPlan:
    """One frozen undo. ``joined``: what a cascade drew in. ``hash`` covers what was asked for and what was shown."""

    wanted: Wanted
    spec: UndoSpec
    preview: UndoPreview
    joined: tuple[undo.EntangledTx, ...]
    suspects: undo.Suspects

    @property
    def hash(self) -> str:
        shown = {
            "wanted": {**asdict(self.wanted), "caps": self.wanted.caps.model_dump()},
            "counts": [asdict(c) | {"table_rows": None} for c in self.preview.counts],
            "conflicts": self.preview.conflict_counts,
            "joined": [tx.xid for tx in self.joined],
        }
        return hashlib.sha256(json.dumps(shown, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def summary(self) -> list[str]:
        """The plan in sentences, without a value of any row."""
        lines = [f"undo of {self.wanted.sentence}, policy {self.wanted.policy}"]
        lines += [
            f"{c.table}: delete {c.delete}, update {c.update}, insert {c.insert}, later work kept on {c.merged}"
            for c in self.preview.counts
            if c.delete or c.update or c.insert
        ]
        lines += [f"{rows} rows in conflict: {kind}" for kind, rows in sorted(self.preview.conflict_counts.items())]
        if self.joined:
            lines.append(f"{len(self.joined)} later transactions are undone as well")
        if self.suspects.count:
            lines.append(f"{self.suspects.count} later transactions may have read damaged values; they stay")
        return lines


@contextmanager
def look(ctx: AppContext, wanted: Wanted, *, say: Say = quiet) -> Iterator[tuple[UndoPlan, undo.Look]]:
    """The plan as of now, and all of its conflicts while the block lasts. Changes nothing. Raises :class:`Refused` for
    a selection of nothing or of unknown names."""
    with ctx.connect("capturer", "undo plan") as connection:
        spec = spec_of(ctx, connection, wanted)
        connection.rollback()
        reads = {w.role: w.reads for w in ctx.app.workflows if w.reads}
        joined: tuple[undo.EntangledTx, ...] = ()
        if wanted.policy is Policy.CASCADE:
            say("looking for what cannot stand without the selection")
            spec, joined = undo.cascade(connection, spec, reads=reads)
        say("computing the undo")
        suspects = undo.suspects(connection, spec, reads=reads)
        with undo.look(connection, spec) as seen:
            yield (
                UndoPlan(wanted=wanted, spec=spec, preview=seen.preview, joined=joined, suspects=suspects),
                seen,
            )


def spec_of(ctx: AppContext, connection: psycopg.Connection, wanted: Wanted) -> UndoSpec:
    """The selection for the database. One that is open to what is written next ends now: what was not shown is not
    undone."""
    tables = {t.name for t in ctx.app.tables}
    roles = {w.key: w.role for w in ctx.app.workflows}
    for name in (*wanted.tables, *(table for table, _ in wanted.where)):
        if name not in tables:
            raise Refused(f"table {name} is not in the catalogue of {ctx.app.key}; it has {', '.join(sorted(tables))}")
    for key in wanted.workflows:
        if key not in roles:
            raise Refused(f"workflow {key} is not in the catalogue of {ctx.app.key}; it has {', '.join(sorted(roles))}")
    with ctx.connect("recoverer", "undo plan") as own:
        recoverer = own.info.user
    runs = [RunRef(actor="", run=run) for run in wanted.runs]
    runs += [RunRef(actor=recoverer, run=recovery) for recovery in wanted.recoveries]
    spec = UndoSpec(
        tables=ctx.tables,
        runs=tuple(runs),
        policy=wanted.policy,
        xids=wanted.transactions,
        actors=tuple(sorted({*wanted.actors, *(roles[key] for key in wanted.workflows)})),
        since=window.begin(connection, wanted.since) if wanted.since else None,
        until=window.end(connection, wanted.until) if wanted.until else None,
        only=wanted.tables,
        where=wanted.where,
        **wanted.caps.model_dump(),
    )
    if not spec.selects:
        raise Refused("undo: nothing is selected; name a run, workflow, role, transaction, recovery, time or table")
    if spec.until is None and not spec.runs and not spec.xids:
        spec = replace(spec, until=window.end(connection))
    return spec


@dataclass(frozen=True, kw_only=True)
class Undone:
    """``recovery`` is what to name to undo the undo."""

    recovery: str
    applied: Applied


def undo_it(
    ctx: AppContext, plan: UndoPlan, *, by: str, reason: str, plan_hash: str | None = None, say: Say = quiet
) -> Undone:
    """Do what ``plan`` showed, once, and prove that nothing is left. ``plan_hash``: what was approved; another plan is
    :class:`Refused`. Raises ``LeaseHeld`` while a recovery of the app runs, and the errors of :func:`undo.apply`;
    nothing is changed then. :class:`StepFailed` when planning again still finds something."""
    app = ctx.app.key
    if plan_hash is not None and plan_hash != plan.hash:
        raise Refused(f"the plan is {plan.hash[:12]} by now and not {plan_hash[:12]}: look at it again, then decide")
    if plan.preview.problems:
        raise Refused("; ".join(plan.preview.problems))
    if plan.preview.empty:
        raise NothingToRecover(f"undo of {plan.wanted.sentence}: there is nothing to undo")
    recovery = f"undo-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{random.token_hex(4)}"
    body = {"operation": "undo", "plan_hash": plan.hash, "by": by, "reason": reason, "summary": plan.summary}
    with ctx.ledger.lease(app, f"undo by process {os.getpid()} on {socket.gethostname()}", LEASE_S) as lease:
        ctx.ledger.append(kinds.DATA_PLANNED, app=app, recovery=recovery, body=body, lease=lease)
        say("writing")
        with ctx.connect("recoverer", "undo") as connection:
            applied = undo.apply(
                connection,
                plan.spec,
                recovery_id=recovery,
                step=STEP,
                plan_hash=plan.hash,
                expected=plan.preview.counts,
                known_conflicts=tuple(plan.preview.conflict_counts),
            )
            counts = applied.detail["tables"]
            ctx.ledger.append(
                kinds.DATA_APPLIED, app=app, recovery=recovery, body={**body, "counts": counts}, lease=lease
            )
            say("planning again, which must find nothing")
            left = data.left_over(undo.preview(connection, undo.extend(plan.spec, [applied.xid])))
    if left:
        raise StepFailed(
            f"undo {recovery}: it is done, but planning it again still finds {'; '.join(left)}; look at these rows"
        )
    return Undone(recovery=recovery, applied=applied)
