"""Selective undo: take back exactly what a selection of runs wrote, and keep everything else.

``preview`` shows, ``apply`` does; both compute by the rule of docs/design.md, "The undo rule". ``apply`` is one
transaction with its row in ``reinstate.applied``: that row is the truth about whether it happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from snapshots import position, undo_write
from snapshots.model import Applied, TableCounts, UndoPreview, UndoSpec
from snapshots.undo_errors import Drift, UndoBusy, UndoRefused
from snapshots.undo_plan import Computed, compute, conflicts
from snapshots.undo_reads import EntangledTx, Suspects, TableDamage, damage, entangled, entangled_closure, suspects
from snapshots.undo_select import SELECTED, require_journal, select
from snapshots.undo_step import LOCK_TIMEOUT_S, already, applied, applied_steps, one_transaction, record, tag
from snapshots.undo_tables import fix_output, read_relations

__all__ = [
    "EntangledTx",
    "Suspects",
    "TableDamage",
    "applied",
    "applied_steps",
    "apply",
    "damage",
    "entangled",
    "entangled_closure",
    "extend",
    "preview",
    "suspects",
]


def preview(conn: psycopg.Connection[Any], spec: UndoSpec) -> UndoPreview:
    """What ``apply`` would do now. Capturer or recoverer; one repeatable-read snapshot; changes nothing.

    What speaks against the undo is not an error but in ``problems``. Raises :class:`Incomplete` without a journal.
    """
    with one_transaction(conn, snapshot=True):
        computed = compute(conn, spec)
        return UndoPreview(
            counts=computed.counts,
            conflicts=conflicts(conn, computed),
            conflict_counts=dict(computed.conflict_counts),
            first_at=computed.selection.first_at,
            position=position.current(conn),
            problems=computed.problems,
        )


def apply(
    conn: psycopg.Connection[Any],
    spec: UndoSpec,
    *,
    recovery_id: str,
    step: str,
    plan_hash: str,
    expected: Sequence[TableCounts],
    known_conflicts: Sequence[str] | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Applied:
    """Undo the selection, once per (``recovery_id``, ``step``); called again it returns what it did. Recoverer.

    ``expected`` are the counts of the plan and ``known_conflicts`` the kinds of conflict it showed: a table whose
    counts moved by more than ``spec.drift_rows``, or a blocking kind that the plan did not show, raises
    :class:`Drift`. ``known_conflicts`` ``None`` accepts any kind (rows in conflict are never touched).
    Raises :class:`UndoBusy` (retryable) when locks are not free within ``lock_timeout_s`` seconds,
    :class:`UndoRefused` for problems, :class:`StepTaken` when another plan already applied this step. After any of
    them nothing has changed. :class:`OutcomeUnknown` when the connection broke: ask :func:`applied` on a new one, or
    call again.
    """
    with one_transaction(conn, lock_timeout_s=lock_timeout_s):
        require_journal(conn)
        done = already(conn, recovery_id, step, plan_hash)
        if done is not None:
            return done
        fix_output(conn)
        locked = select(conn, spec).tables
        conn.execute(sql.SQL("DROP TABLE {}").format(SELECTED))
        undo_write.lock(conn, locked, read_relations(conn, spec.tables))
        done = already(conn, recovery_id, step, plan_hash)
        if done is not None:
            return done
        computed = compute(conn, spec)
        if set(computed.selection.tables) - set(locked):
            raise UndoBusy("the selected runs wrote to a further table just now: pause them, then try again")
        if computed.problems:
            raise UndoRefused("; ".join(computed.problems))
        check_drift(spec, expected, computed, known_conflicts)
        detail = {
            "kind": "undo",
            "tables": {
                count.table: {
                    "delete": count.delete,
                    "update": count.update,
                    "insert": count.insert,
                    "merged": count.merged,
                }
                for count in computed.counts
            },
            "conflicts": dict(computed.conflict_counts),
            "left": [
                {"table": conflict.table, "key": list(conflict.key), "kind": conflict.kind}
                for conflict in conflicts(conn, computed)
                if conflict.blocking
            ],
        }
        tag(conn, recovery_id)
        undo_write.write(conn, computed)
        return record(conn, recovery_id, step, plan_hash, detail)


def check_drift(
    spec: UndoSpec, expected: Sequence[TableCounts], computed: Computed, known_conflicts: Sequence[str] | None
) -> None:
    """Raise :class:`Drift` when the recomputed counts are too far from ``expected``."""
    planned = {count.table: count for count in expected}
    now = {count.table: count for count in computed.counts}
    for table in sorted({*planned, *now}):
        zero = TableCounts(table=table, delete=0, update=0, insert=0, merged=0, table_rows=0)
        was, is_ = planned.get(table, zero), now.get(table, zero)
        moved = abs(was.delete - is_.delete) + abs(was.update - is_.update) + abs(was.insert - is_.insert)
        if moved > spec.drift_rows:
            raise Drift(
                f"table {table}: {is_.delete} deletes, {is_.update} updates, {is_.insert} inserts instead of the "
                f"planned {was.delete}, {was.update}, {was.insert} (more than {spec.drift_rows} apart): plan again"
            )
    if known_conflicts is not None:
        new = computed.blocking_kinds - set(known_conflicts)
        if new:
            raise Drift(f"conflicts of a kind that the plan did not show ({', '.join(sorted(new))}): plan again")


def extend(spec: UndoSpec, xids: Sequence[int]) -> UndoSpec:
    """``spec`` after its own transactions ``xids``: planning again with it yields nothing."""
    return replace(spec, cancelled=tuple(sorted({*spec.cancelled, *xids})))
