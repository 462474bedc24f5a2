"""Bring live tables back to a recovery point or to an earlier position. Everything written since is overwritten.

This is the blunt tool: it cannot tell damage from later legitimate work. It is offered when the journal cannot vouch
for an undo, always with what it would overwrite (:func:`plan`), and never chosen automatically.

What differs is computed first, on one snapshot and without a lock. Then the tables are locked, what moved meanwhile is
looked at again, and the rows are written, checked and proven. Both cost what differs, not what the tables hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from psycopg import Connection

from snapshots.capture import shape
from snapshots.database import set_triggers
from snapshots.errors import Refused
from snapshots.model import Applied, Position, RecoveryPoint, TableSpec
from snapshots.points.errors import CapPassed, StepApplied, translated
from snapshots.restore import by_journal, by_scan, checks, rows, staging
from snapshots.restore.diff import computed, loss_of, recounted
from snapshots.restore.frame import Frame, Target, counts, drop, frames, target_of
from snapshots.restore.lost_table import forward
from snapshots.restore.model import Caps, RestorePlan, Source, TableDiff
from snapshots.store.store import Store
from snapshots.undo.step import applied, record, tag

__all__ = ["Caps", "RestorePlan", "apply", "forward", "plan"]


def plan(
    conn: Connection[Any],
    target: RecoveryPoint | Position,
    store: Store | None,
    tables: Sequence[TableSpec],
    *,
    source: Source = "auto",
) -> RestorePlan:
    """What :func:`apply` would do now: rows by table, whose later work it takes back, what stands against it.

    ``conn`` is idle; its role is the capturer or the recoverer. Changes nothing and takes no lock. ``store`` is only
    read where the journal does not reach. Raises :class:`Refused` and its kind where nothing can be compared.
    """
    goal = target_of(target)
    with translated(), staging.transaction(conn, repeatable=True):
        made, gaps = frames(conn, goal, tables, source)
        found = computed(conn, made, goal, store)
        problems = checks.problems(conn, tables, made)
        views = checks.views(conn, made)
        ahead = _behind(conn, goal, [f.name for f in made])
        loss = loss_of(conn, goal, found, gaps)
        drop(conn, made)
    return RestorePlan(
        point=goal.point.id if goal.point else None,
        position=goal.position,
        loss=loss,
        sequences=ahead,
        views=views,
        problems=problems,
    )


def apply(
    conn: Connection[Any],
    target: RecoveryPoint | Position,
    store: Store | None,
    tables: Sequence[TableSpec],
    *,
    recovery_id: str,
    step: str,
    plan_hash: str,
    source: Source = "auto",
    caps: Caps | None = None,
    expected: Sequence[TableDiff] = (),
) -> Applied:
    """Make ``tables`` equal to the target, in one transaction, and record it in ``reinstate.applied`` with the effect.

    ``conn`` is idle; its role is the recoverer. What differs is held against ``caps`` and, where given, against the
    ``expected`` diff that was shown and approved. Rows keep their exact images; identity values are kept; generated
    columns are computed by the database; sequences only move forward. Triggers in ``TableSpec.suppress`` are off inside
    the transaction only. Calling again with the same recovery and step returns what was recorded and changes no row.

    With the journal the tables are the target's at the moment of the lock. Without it they are so at the moment of the
    look before it: what others write to other rows in between comes after the restore.

    Raises :class:`CapPassed`, :class:`WouldBreak`, :class:`ShapeChanged`, :class:`StepApplied`, :class:`Busy`
    (worth trying again) and the errors of the store; in each case nothing was changed.
    """
    goal = target_of(target)
    made: tuple[Frame, ...] = ()
    try:
        with translated():
            with staging.transaction(conn, repeatable=True):
                done = _done(conn, recovery_id, step, plan_hash)
                if done is None:
                    made, _ = frames(conn, goal, tables, source)
                    _refuse(checks.problems(conn, tables, made))
                    looked = computed(conn, made, goal, store, look=False)
                    seen = checks.here(conn)
            if done is None:
                with staging.transaction(conn):
                    done = _write(
                        conn,
                        goal,
                        tables,
                        made,
                        seen=seen,
                        looked=looked,
                        recovery_id=recovery_id,
                        step=step,
                        plan_hash=plan_hash,
                        caps=caps or Caps(),
                        expected=expected,
                    )
    finally:
        drop(conn, made)
    return refreshed(conn, done)


def refreshed(conn: Connection[Any], done: Applied) -> Applied:
    """A restore that is committed, with the materialised views that it left refreshed, or named as ``stale`` (role: the
    recoverer). It may run again."""
    stale = checks.refresh(conn, done.detail.get("views", []))
    return replace(done, detail={**done.detail, "stale": list(stale)}) if stale else done


def _write(
    conn: Connection[Any],
    goal: Target,
    tables: Sequence[TableSpec],
    made: Sequence[Frame],
    *,
    seen: Position,
    looked: Sequence[TableDiff],
    recovery_id: str,
    step: str,
    plan_hash: str,
    caps: Caps,
    expected: Sequence[TableDiff],
) -> Applied:
    """The transaction under locks."""
    by_name = {f.name: f for f in made}
    foreign = shape.foreign_keys(conn, by_name)
    relations = tuple(dict.fromkeys((*foreign, *_declared(tables, foreign))))
    views = checks.views(conn, made)
    checks.lock(conn, by_name, relations)
    if done := _done(conn, recovery_id, step, plan_hash):
        return done
    _catch_up(conn, made, seen)
    planned = rows.tally(conn, by_name)
    found = recounted(conn, looked, by_name, planned)
    _within_caps(found, caps, expected)
    rows.refuse_erasing(conn, by_name, foreign)
    looked_after = rows.kept(by_name, relations)
    rows.note_vacated(conn, by_name, looked_after)
    tag(conn, recovery_id)
    set_triggers(conn, tables, enabled=False)
    rows.bring_back(conn, by_name, planned, shape.parents_first(by_name, relations), relations)
    set_triggers(conn, tables, enabled=True)
    rows.refuse_orphans(conn, by_name, looked_after)
    moved = forward(conn, goal.point.sequences, list(by_name)) if goal.point else []
    detail = {
        "kind": "restore",
        "point": goal.point.id if goal.point else None,
        "position": goal.position.snapshot,
        "tables": {t.table: {"delete": t.added, "update": t.changed, "insert": t.deleted} for t in found},
        "how": {t.table: t.how for t in found},
        "sequences": list(moved),
        "views": list(views),
    }
    return record(conn, recovery_id, step, plan_hash, detail)


def _catch_up(conn: Connection[Any], made: Sequence[Frame], seen: Position) -> None:
    """Under the lock: what moved since the look."""
    through = [f for f in made if f.how == "journal"]
    if through:
        checks.refuse_new_gaps(conn, seen, [f.name for f in through])
    for frame in made:
        if frame.how == "journal":
            by_journal.catch_up(conn, frame, seen)
            if broken := counts(conn, frame)["X"]:
                raise Refused(f"The journal missed changes of {broken} rows of {frame.name}; plan again.")
        else:
            by_scan.catch_up(conn, frame)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise Refused("; ".join(problems))


def _behind(conn: Connection[Any], goal: Target, tables: Sequence[str]) -> tuple[str, ...]:
    if goal.point is None:
        return ()
    known = goal.point.sequences
    return tuple(n for n, c in shape.sequences(conn, tables).items() if n in known and c.behind(known[n]))


def _within_caps(found: Sequence[TableDiff], caps: Caps, expected: Sequence[TableDiff]) -> None:
    if crossed := cap_problem(found, caps):
        raise CapPassed(crossed)
    planned = {e.table: e for e in expected}
    for now in found:
        then = planned.get(now.table)
        if then and any(
            abs(a - b) > caps.drift_rows
            for a, b in ((now.added, then.added), (now.changed, then.changed), (now.deleted, then.deleted))
        ):
            raise CapPassed(f"Table {now.table} has drifted from the plan by over {caps.drift_rows} rows; plan again.")


def cap_problem(found: Sequence[TableDiff], caps: Caps) -> str | None:
    """The first cap that these changes would pass, as a sentence."""
    for now in found:
        share = now.added / now.live_rows if now.live_rows else 0.0
        if now.added > caps.max_deleted_rows or share > caps.max_deleted_share:
            return (
                f"The restore would delete {now.added} of {now.live_rows} rows of {now.table}, more than its cap "
                f"({caps.max_deleted_rows} rows, {caps.max_deleted_share:.0%}); raise the cap or undo by run."
            )
    changed = sum(t.rows for t in found)
    if changed > caps.max_changed_rows:
        return (
            f"The restore would change {changed} rows, more than its cap of {caps.max_changed_rows}; "
            "raise the cap on purpose or undo by run."
        )
    return None


def _declared(tables: Sequence[TableSpec], foreign: Sequence[shape.Relation]) -> list[shape.Relation]:
    known = {(r.child, r.columns, r.parent, r.to) for r in foreign}
    return [
        shape.Relation(child=t.name, columns=columns, parent=parent, to=to)
        for t in tables
        for columns, parent, to in t.references
        if (t.name, columns, parent, to) not in known
    ]


def _done(conn: Connection[Any], recovery_id: str, step: str, plan_hash: str) -> Applied | None:
    done = applied(conn, recovery_id, step)
    if done is not None and done.plan_hash != plan_hash:
        raise StepApplied(f"Step {step} of recovery {recovery_id} was applied by another plan; start a new recovery.")
    return done
