"""Applying an undo: once, under lock, within its caps, or not at all."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from undo_desk import ORDERS, TABLES, Desk, build, close

from snapshots.errors import Incomplete
from snapshots.journal import journal
from snapshots.model import Policy, RunRef, TableSpec
from snapshots.undo import undo, write
from snapshots.undo.errors import Drift, OutcomeUnknown, StepTaken, UndoBusy, UndoRefused

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


def _unchanged(desk: Desk, error: type[Exception], match: str, **call: Any) -> None:
    """The call raises, and neither rows nor triggers nor the record of steps have changed."""
    before = desk.dump()
    spec = call.pop("spec", desk.spec())
    with pytest.raises(error, match=match):
        undo.apply(
            desk.recoverer,
            spec,
            **{"recovery_id": "rec-1", "step": "undo", "plan_hash": "h", "expected": desk.preview(spec).counts, **call},
        )
    assert desk.dump() == before
    assert desk.value("SELECT count(*) FROM reinstate.applied") == 0
    assert desk.value("SELECT count(*) FROM pg_trigger WHERE tgenabled = 'D' AND tgname LIKE 'orders%'") == 0


def test_applying_twice_changes_nothing(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0")
    first = desk.undo(desk.spec(), step="undo")
    desk.good("UPDATE shop.stock SET qty = 55")
    call = {"recovery_id": "rec-1", "step": "undo", "expected": ()}
    assert undo.apply(desk.recoverer, desk.spec(), plan_hash="hash", **call) == first
    assert desk.value("SELECT max(qty) FROM shop.stock") == 55
    with pytest.raises(StepTaken, match="already applied by plan"):
        undo.apply(desk.recoverer, desk.spec(), plan_hash="other", **call)


def test_two_at_once_apply_once(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = qty - 5")
    spec = desk.spec()
    expected = desk.preview(spec).counts
    call = {"recovery_id": "rec-1", "step": "undo", "plan_hash": "h", "expected": expected}
    second = desk.connect("recoverer")
    with ThreadPoolExecutor() as pool, second:
        first_done = pool.submit(undo.apply, desk.recoverer, spec, **call)
        second_done = pool.submit(undo.apply, second, spec, **call)
        assert first_done.result() == second_done.result()
    assert desk.value("SELECT count(*) FROM reinstate.applied") == 1
    assert desk.value("SELECT max(qty) FROM shop.stock") == 100


def _end_session(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.OperationalError):
        conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    raise psycopg.OperationalError("gone")


def test_a_connection_lost_in_the_middle_changes_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bad("UPDATE shop.orders SET note = 'bad'")
    with monkeypatch.context() as patched:
        patched.setattr(write, "_update", lambda conn, *_, **__: _end_session(conn))
        _unchanged(desk, OutcomeUnknown, "ask whether the step was applied")
    desk.connections["recoverer"] = desk.connect("recoverer")
    desk.undo(desk.spec())


def test_a_connection_lost_after_the_commit_is_answered_by_the_record(desk: Desk) -> None:
    desk.bad("UPDATE shop.orders SET note = 'bad'")
    done = desk.undo(desk.spec(), step="undo")
    desk.good("UPDATE shop.orders SET note = 'later'")
    desk.recoverer.close()
    desk.connections["recoverer"] = desk.connect("recoverer")
    call = {"recovery_id": "rec-1", "step": "undo", "plan_hash": "hash", "expected": ()}
    assert undo.apply(desk.recoverer, desk.spec(), **call) == done
    assert undo.applied_steps(desk.recoverer, "rec-1", prefix="un") == (done,)
    assert undo.applied_steps(desk.recoverer, "rec-1", prefix="carry") == ()
    assert desk.value("SELECT DISTINCT note FROM shop.orders") == "later"


def test_a_constraint_the_result_would_break_is_named(desk: Desk) -> None:
    """Two rows that swapped a unique value: no order of single-row updates passes an immediate constraint."""
    desk.bad(
        "UPDATE shop.customers SET email = NULL WHERE id = 1",
        "UPDATE shop.customers SET email = 'c1@example.com' WHERE id = 2",
        "UPDATE shop.customers SET email = 'c2@example.com' WHERE id = 1",
    )
    _unchanged(desk, UndoRefused, "customers_email_key of table shop.customers")


def test_a_missing_right_is_named(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0")
    desk.act("installer", None, "REVOKE UPDATE ON shop.stock FROM recoverer")
    _unchanged(desk, UndoRefused, "role recoverer: permission denied for table stock")


def test_a_step_that_did_not_happen_has_no_record(desk: Desk) -> None:
    assert undo.applied(desk.recoverer, "rec-1", "undo") is None


def test_a_selection_that_would_empty_a_table_is_refused(desk: Desk) -> None:
    """A planner's mistake: the history of the table is taken for the bad run's work."""
    rows = desk.bad(
        "INSERT INTO shop.payments SELECT n, 'o1', n, 'legit' FROM generate_series(100, 189) n", run="history"
    )
    spec = desk.spec(xids=[rows], max_deleted_share=0.2)
    assert any("90 of 100 rows of shop.payments" in problem for problem in desk.preview(spec).problems)
    _unchanged(desk, UndoRefused, "90 of 100 rows of shop.payments", spec=spec)
    _unchanged(desk, UndoRefused, "90 rows would be deleted", spec=desk.spec(xids=[rows], max_deleted_rows=89))
    _unchanged(desk, UndoRefused, "90 rows would change", spec=desk.spec(xids=[rows], max_changed_rows=89))


def test_a_lock_that_is_not_free_is_retryable(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0")
    writer = desk.connections["clerk"]
    with writer.transaction():
        writer.execute("UPDATE shop.stock SET note = 'mine' WHERE sku = 'sku0'")
        _unchanged(desk, UndoBusy, "try again", lock_timeout_s=0.2)
    desk.undo(desk.spec())
    assert desk.value("SELECT (qty, note)::text FROM shop.stock WHERE sku = 'sku0'") == "(100,mine)"


def test_writers_between_plan_and_apply_are_kept(desk: Desk) -> None:
    desk.bad("UPDATE shop.orders SET state = 'sent'")
    planned = desk.preview(desk.spec())
    desk.clerk(
        "UPDATE shop.orders SET note = 'late' WHERE id = 'o1'", "UPDATE shop.orders SET state = 'paid' WHERE id = 'o2'"
    )
    desk.undo(desk.spec(), expected=planned.counts)
    assert desk.value("SELECT (state, note)::text FROM shop.orders WHERE id = 'o1'") == "(new,late)"
    assert desk.value("SELECT state::text FROM shop.orders WHERE id = 'o2'") == "paid"


def test_more_drift_than_allowed_is_refused(desk: Desk) -> None:
    desk.bad("UPDATE shop.orders SET state = 'sent'")
    planned = desk.preview(desk.spec()).counts
    desk.bad("DELETE FROM shop.payments")
    _unchanged(desk, Drift, "10 inserts instead of the planned 0, 0, 0", spec=desk.spec(drift_rows=9), expected=planned)
    desk.undo(desk.spec(drift_rows=10), expected=planned)


def test_a_new_kind_of_conflict_is_drift(desk: Desk) -> None:
    desk.bad("INSERT INTO shop.payments VALUES (50, 'o1', 1, 'bad')")
    desk.clerk("UPDATE shop.payments SET status = 'checked' WHERE id = 50")
    spec = desk.spec(policy=Policy.NON_CONFLICTING_ONLY)
    _unchanged(desk, Drift, "created-then-edited", spec=spec, known_conflicts=["referenced"])
    desk.undo(spec, known_conflicts=["created-then-edited"])


def test_a_trigger_that_is_not_suppressed_is_noticed(desk: Desk) -> None:
    desk.bad("UPDATE shop.orders SET note = 'bad'")
    tables = tuple(replace(table, suppress=()) if table is ORDERS else table for table in TABLES)
    _unchanged(desk, UndoRefused, "declare it as suppressed", spec=desk.spec(tables=tables))


def test_an_undeclared_trigger_is_a_problem(desk: Desk) -> None:
    desk.bad("UPDATE shop.orders SET note = 'bad'")
    tables = tuple(replace(t, undeclared_triggers=("orders_touch",)) if t is ORDERS else t for t in TABLES)
    _unchanged(desk, UndoRefused, "orders_touch are not declared", spec=desk.spec(tables=tables))


def test_a_lost_image_is_a_broken_chain(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 1")
    desk.good("UPDATE shop.stock SET qty = 2 WHERE sku = 'sku0'")
    desk.good("UPDATE shop.stock SET qty = 3 WHERE sku = 'sku0'")
    twin = desk.value("SELECT twin FROM reinstate.journal_table WHERE table_name = 'shop.stock'")
    desk.act("installer", None, f"DELETE FROM reinstate.{twin} WHERE qty = 2 AND rj_side = 'n'")
    _unchanged(desk, UndoRefused, "shop.stock: the journal missed changes of 1 selected rows")


def test_a_write_past_the_journal_is_a_gap_and_a_broken_chain(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 1")
    desk.act("installer", None, "ALTER TABLE shop.stock DISABLE TRIGGER rj_update")
    desk.good("UPDATE shop.stock SET qty = 2")
    desk.act("installer", None, "ALTER TABLE shop.stock ENABLE ALWAYS TRIGGER rj_update")
    problems = " ".join(desk.preview(desk.spec()).problems)
    assert "trigger-disabled" in problems
    assert "missed changes of 3 selected rows" in problems
    _unchanged(desk, UndoRefused, "trigger-disabled")


def test_a_gap_on_another_table_counts_too(desk: Desk) -> None:
    """Nobody knows whether the bad run wrote there."""
    desk.bad("UPDATE shop.stock SET qty = 1")
    desk.act("installer", None, "ALTER TABLE shop.payments DISABLE TRIGGER rj_delete")
    _unchanged(desk, UndoRefused, "journal of shop.payments may miss changes")


def test_a_selection_beyond_the_declared_tables_is_a_problem(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 1", "UPDATE shop.payments SET amount = 0")
    _unchanged(desk, UndoRefused, "also wrote to shop.payments", spec=desk.spec(tables=TABLES[:4]))


def test_what_the_journal_cannot_know_is_a_problem(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 1")
    extra = (*TABLES, TableSpec(name="shop.absent", key=("id",)))
    assert "shop.absent does not exist" in " ".join(desk.preview(desk.spec(tables=extra)).problems)
    assert "transaction 3 is not in the journal" in " ".join(desk.preview(desk.spec(xids=[3])).problems)
    desk.act("installer", None, "CREATE TABLE shop.extra (id int PRIMARY KEY)", "GRANT ALL ON shop.extra TO capturer")
    extra = (*TABLES, TableSpec(name="shop.extra", key=("id",)))
    assert "shop.extra is not journaled" in " ".join(desk.preview(desk.spec(tables=extra)).problems)
    tables = tuple(replace(table, additive=("note",)) if table.name == "shop.stock" else table for table in TABLES)
    assert "shop.stock.note of type text cannot be additive" in " ".join(
        desk.preview(desk.spec(tables=tables)).problems
    )


def test_a_column_the_journal_does_not_know_is_a_problem(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 1")
    desk.act("installer", None, "ALTER TABLE shop.stock ADD COLUMN colour text")
    _unchanged(desk, UndoRefused, "differ in columns colour")


def test_a_transaction_shared_with_another_run_is_a_problem(desk: Desk) -> None:
    desk.bad(
        "UPDATE shop.stock SET qty = 1",
        "SELECT set_config('reinstate.run', 'innocent', true)",
        "DELETE FROM shop.payments",
    )
    _unchanged(desk, UndoRefused, "run innocent of wf_bad shares a transaction", spec=desk.spec("bad-1"))
    both = replace(desk.spec(), runs=(RunRef(actor="wf_bad", run="bad-1"), RunRef(actor="wf_bad", run="innocent")))
    desk.undo(both)


def test_without_a_journal_there_is_no_undo(desk: Desk) -> None:
    journal.remove(desk.connections["installer"])
    for call in (undo.preview, undo.entangled, undo.suspects, undo.cascade):
        with pytest.raises(Incomplete, match="has no journal"):
            call(desk.capturer, desk.spec())


def test_a_connection_in_use_is_not_taken(desk: Desk) -> None:
    desk.capturer.execute("SELECT 1")
    with pytest.raises(UndoRefused, match="in the middle of a transaction"):
        undo.preview(desk.capturer, desk.spec())
    desk.capturer.rollback()


def test_a_preview_leaves_nothing_behind(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 1")
    assert undo.preview(desk.capturer, desk.spec()) is not None
    assert desk.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'rj\\_fin%'") == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        desk.capturer.execute("UPDATE shop.stock SET qty = 1")
    desk.capturer.rollback()
