"""Selective undo: take back exactly what a selection of runs wrote, and keep everything else.

``preview`` shows, ``apply`` does; both compute by the rule of docs/design.md, "The undo rule". ``apply`` is one
transaction with its row in ``reinstate.applied``: that row is the truth about whether it happened. What an undo writes
is journaled with its recovery's id as the run, so that it can itself be undone, as any other run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from snapshots import position
from snapshots.erasure import erasure
from snapshots.model import Applied, TableCounts, UndoPreview, UndoSpec
from snapshots.undo import catchup, write
from snapshots.undo.conflicts import Disagreement, conflicts, listing
from snapshots.undo.errors import Drift, UndoRefused
from snapshots.undo.plan import Computed, compute
from snapshots.undo.reads import EntangledTx, Suspect, Suspects, cascade, entangled, suspects
from snapshots.undo.select import require_journal
from snapshots.undo.step import LOCK_TIMEOUT_S, already, applied, applied_steps, one_transaction, record, tag
from snapshots.undo.tables import fix_output

__all__ = [
    "Disagreement",
    "EntangledTx",
    "Look",
    "Suspect",
    "Suspects",
    "applied",
    "applied_steps",
    "apply",
    "cascade",
    "entangled",
    "extend",
    "look",
    "preview",
    "suspects",
]


@dataclass(frozen=True, kw_only=True)
class Look:
    """An undo as it would be now, while its transaction is open: the summary, and every conflict as it is asked for."""

    preview: UndoPreview
    conn: psycopg.Connection[Any]
    computed: Computed

    def disagreements(self, *, show_values: bool = False) -> Iterator[Disagreement]:
        """Every conflict with its values before, now and wanted, streamed; masked unless public or ``show_values``."""
        return listing(self.conn, self.computed, show_values=show_values)


@contextmanager
def look(conn: psycopg.Connection[Any], spec: UndoSpec) -> Iterator[Look]:
    """What ``apply`` would do now, from one repeatable-read snapshot that is rolled back at the end. Capturer or
    recoverer; changes nothing.

    What speaks against the undo is not an error but in ``preview.problems``. Raises :class:`Incomplete` without a
    journal, :class:`UndoRefused` for a condition that is none.
    """
    with one_transaction(conn, snapshot=True):
        computed = compute(conn, spec)
        shown = UndoPreview(
            counts=computed.counts,
            conflicts=conflicts(conn, computed),
            conflict_counts=dict(computed.conflict_counts),
            first_at=computed.selection.first_at,
            position=position.current(conn),
            problems=computed.problems,
            erased=erasure.images_gone(conn, spec),
        )
        yield Look(preview=shown, conn=conn, computed=computed)


def preview(conn: psycopg.Connection[Any], spec: UndoSpec) -> UndoPreview:
    """The summary of :func:`look`."""
    with look(conn, spec) as seen:
        return seen.preview


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

    Computes first, without locks; then locks, computes again what moved meanwhile, writes and checks: other writers
    wait only for that.

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
        seen = position.current(conn)
        computed = compute(conn, spec)
        write.lock(conn, computed.selection.tables, computed.relations)
        done = already(conn, recovery_id, step, plan_hash)
        if done is not None:
            return done
        computed = catchup.catch_up(conn, spec, computed, seen)
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
        write.write(conn, computed)
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
