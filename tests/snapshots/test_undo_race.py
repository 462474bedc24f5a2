"""Between computing without locks and holding them others go on: what they did counts; little is computed again."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from undo_desk import Desk, build, close

from snapshots.model import Applied, Policy
from snapshots.undo import plan, undo, write
from snapshots.undo.errors import Drift, UndoBusy, UndoRefused

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


def _undo(desk: Desk, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object], **changes: Any) -> Applied:
    """Undo, while ``meanwhile`` happens after the computation and before the locks."""
    lock = write.lock

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(write, "lock", lock)
        meanwhile()
        lock(*arguments)

    spec = desk.spec(**{"policy": Policy.KEEP_LATER, **changes})
    expected = desk.preview(spec).counts
    monkeypatch.setattr(write, "lock", late)
    return undo.apply(
        desk.recoverer,
        spec,
        recovery_id="rec-1",
        step="undo",
        plan_hash="h",
        expected=expected,
        known_conflicts=["created-then-edited"],
    )


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    called: list[str] = []
    for module, name in ((plan, "redo"), (plan, "compute")):
        real = getattr(module, name)

        def spy(*arguments: Any, _name: str = name, _real: Any = real, **given: Any) -> Any:
            called.append(_name)
            return _real(*arguments, **given)

        monkeypatch.setattr(module, name, spy)
    return called


def test_nothing_moved_nothing_is_computed_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0")
    called = _counting(monkeypatch)
    _undo(desk, monkeypatch, lambda: desk.clerk("UPDATE shop.orders SET note = 'elsewhere' WHERE id = 'o1'"))
    assert called == []
    assert desk.value("SELECT min(qty) FROM shop.stock") == 100


def test_an_edit_of_a_selected_row_is_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bad("UPDATE shop.stock SET qty = 7, note = 'bad'")
    called = _counting(monkeypatch)
    _undo(desk, monkeypatch, lambda: desk.good("UPDATE shop.stock SET qty = qty - 1, note = 'mine' WHERE sku = 'sku0'"))
    assert called == ["redo"]
    assert desk.value("SELECT string_agg(note || qty, ' ' ORDER BY sku) FROM shop.stock") == "mine99 first100 first100"


def test_a_new_row_that_needs_one_that_goes_is_a_conflict(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bad("INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 1, 3)")
    with pytest.raises(Drift, match="referenced"):
        _undo(desk, monkeypatch, lambda: desk.clerk("INSERT INTO shop.payments VALUES (50, 'n1', 3, 'paid')"))
    assert desk.value("SELECT count(*) FROM shop.orders WHERE id = 'n1'") == 1


def test_a_value_taken_meanwhile_is_a_conflict(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bad("UPDATE shop.customers SET email = 'bad' WHERE id = 1")
    with pytest.raises(Drift, match="key-taken"):
        _undo(desk, monkeypatch, lambda: desk.clerk("INSERT INTO shop.customers VALUES (20, 'c1@example.com')"))


def test_a_selected_run_that_writes_on_is_undone_as_well(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bad("UPDATE shop.stock SET qty = 7")
    _undo(desk, monkeypatch, lambda: desk.bad("UPDATE shop.stock SET note = 'bad'"))
    assert (
        desk.value("SELECT string_agg(note || qty, ' ' ORDER BY sku) FROM shop.stock") == "first100 first100 first100"
    )


def test_a_selected_run_that_reaches_a_further_table_is_retryable(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bad("UPDATE shop.stock SET qty = 7")
    with pytest.raises(UndoBusy, match="a further table"):
        _undo(desk, monkeypatch, lambda: desk.bad("UPDATE shop.payments SET amount = 0"))
    assert desk.value("SELECT max(qty) FROM shop.stock") == 7


def test_a_write_past_the_journal_is_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap is found; were it not, the rows are not where they were."""
    desk.bad("UPDATE shop.stock SET qty = 7")

    def unseen() -> None:
        desk.act(
            "installer",
            None,
            "ALTER TABLE shop.stock DISABLE TRIGGER rj_update",
            "UPDATE shop.stock SET qty = 8",
            "ALTER TABLE shop.stock ENABLE ALWAYS TRIGGER rj_update",
        )

    with pytest.raises(UndoRefused, match="trigger-disabled"):
        _undo(desk, monkeypatch, unseen)
    desk.act("installer", None, "ALTER TABLE shop.stock DISABLE TRIGGER rj_update")
    desk.good("UPDATE shop.stock SET qty = 7")
    desk.act("installer", None, "ALTER TABLE shop.stock ENABLE ALWAYS TRIGGER rj_update")
    monkeypatch.setattr(plan, "_journal_problems", lambda *_: [])
    with pytest.raises(UndoRefused, match="0 rows updated instead of 3"):
        _undo(desk, monkeypatch, unseen)
    assert desk.value("SELECT max(qty) FROM shop.stock") == 8


def test_an_undo_by_somebody_else_meanwhile_leaves_nothing_to_do(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bad("UPDATE shop.stock SET qty = 7")
    spec = desk.spec()
    other = desk.connect("recoverer")
    expected = desk.preview(spec).counts
    call = {"recovery_id": "rec-1", "step": "undo", "plan_hash": "h", "expected": expected}
    done = _undo(desk, monkeypatch, lambda: undo.apply(other, spec, **call))
    other.close()
    assert undo.applied(desk.recoverer, "rec-1", "undo") == done
    desk.recoverer.rollback()
    assert desk.value("SELECT count(*) FROM reinstate.applied") == 1
