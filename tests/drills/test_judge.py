"""The judge must be able to fail: each kind of damage, loss and leftover turns its numbers red."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drills.dumps import Dump, TableDump
from drills.events import Event, Kind
from drills.judge import EXCLUDED_FIELDS, compare, judge, overlapping_pairs

ORDERS = ("id", "status", "total", "note", "updated_at")


def table(columns: tuple[str, ...], *rows: tuple[str, ...]) -> TableDump:
    return TableDump(columns=columns, key=columns[:1], lines={(r[0],): "\t".join(r).encode() for r in rows})


def desk(*orders: tuple[str, ...], payments: tuple[tuple[str, ...], ...] = ()) -> Dump:
    return {"desk.orders": table(ORDERS, *orders), "desk.payments": table(("id", "amount"), *payments)}


GOOD = desk(("1", "packed", "5.00", "\\N", "t1"), ("2", "new", "7.00", "call", "t1"), payments=(("p", "7.00"),))
BAD = desk(
    ("1", "on_hold", "5.00", "\\N", "t2"), ("2", "on_hold", "7.00", "call", "t2"), ("3", "new", "7.00", "\\N", "t2"),
    payments=(("p", "7.00"),),
)  # fmt: skip
NOTE = Event(key="note-1", kind=Kind.NOTE, row="2", body={"note": "call"})
STATUS = Event(key="status-1", kind=Kind.STAFF_STATUS, row="1", body={"status": "packed"})
PAYMENT = Event(key="payment-p", kind=Kind.PAYMENT, row="2", body={"payment_id": "p", "amount": "7.00"})
EVENTS = [NOTE, STATUS, PAYMENT]


def verdict(after: Dump, **changes: object):  # type: ignore[no-untyped-def]
    given = {"before": BAD, "oracle_before": GOOD, "oracle": GOOD, "events": EVENTS, "pairs": 20, **changes}
    return judge(after=after, **given)  # type: ignore[arg-type]


def changed(dump: Dump, name: str, *rows: tuple[str, ...], without: tuple[str, ...] = ()) -> Dump:
    """The dump with some rows replaced or added, and some taken away."""
    old = dump[name]
    lines = {k: v for k, v in old.lines.items() if k[0] not in without}
    return {**dump, name: replace(old, lines=lines | table(old.columns, *rows).lines)}


def test_a_full_recovery_is_green() -> None:
    found = verdict(GOOD)
    assert (found.rows_damaged, found.rows_repaired) == (3, 3)
    assert (found.legit_events, found.legit_events_lost) == (3, 0)
    assert (found.legit_edits_on_damaged_rows, found.legit_edits_lost) == (3, 0)
    assert found.wrong_fields_after == 0
    assert found.fields_compared == 2 * 4 + 2
    assert found.document()["excluded_fields"] == ("desk.orders.updated_at", "desk.products.updated_at")


def test_no_recovery_is_red() -> None:
    found = verdict(BAD)
    assert found.rows_repaired == 0
    assert found.wrong_fields_after == 1 + 1 + 4
    assert found.wrong_by_column["desk.orders.status"] == 3
    assert {"status-1", "payment-p"} == set(found.lost)
    assert found.legit_edits_lost == 2


@pytest.mark.parametrize(
    ("after", "lost"),
    [
        (changed(GOOD, "desk.orders", ("2", "new", "7.00", "\\N", "t1")), {"note-1"}),
        (changed(GOOD, "desk.orders", ("1", "new", "5.00", "\\N", "t1")), {"status-1"}),
        (changed(GOOD, "desk.payments", without=("p",)), {"payment-p"}),
        (changed(GOOD, "desk.orders", without=("2",)), {"note-1", "payment-p"}),
    ],
    ids=["note-overwritten", "status-of-the-point", "payment-gone", "order-gone"],
)
def test_lost_work_is_counted_and_named(after: Dump, lost: set[str]) -> None:
    found = verdict(after)
    assert set(found.lost) == lost
    assert found.legit_events_lost == len(lost)
    assert found.wrong_fields_after > 0
    assert found.examples


def test_a_row_too_many_is_wrong_though_nothing_is_lost() -> None:
    found = verdict(changed(GOOD, "desk.orders", ("9", "new", "7.00", "\\N", "t1")))
    assert found.legit_events_lost == 0
    assert found.wrong_fields_after == 4
    assert found.examples[0].expected is None


def test_a_missing_table_or_column_is_wrong() -> None:
    assert verdict({"desk.orders": GOOD["desk.orders"]}).wrong_fields_after == 2
    narrow = {**GOOD, "desk.payments": table(("id",), ("p",))}
    assert verdict(narrow).wrong_by_column == {"desk.payments.amount": 1}


def test_only_listed_fields_are_excluded() -> None:
    assert len(EXCLUDED_FIELDS) <= 3
    assert compare(changed(GOOD, "desk.orders", ("1", "packed", "5.00", "\\N", "later")), GOOD).wrong_fields == 0
    assert compare(changed(GOOD, "desk.orders", ("1", "packed", "5.01", "\\N", "t1")), GOOD).wrong_fields == 1


def test_rows_missing_before_the_recovery_are_not_damage() -> None:
    found = verdict(GOOD, before=changed(BAD, "desk.payments", without=("p",)))
    assert (found.rows_damaged, found.rows_missing_before) == (3, 1)


def test_every_wrong_column_has_an_example() -> None:
    many = changed(GOOD, "desk.orders", *((str(n), "new", "1.00", "\\N", "t") for n in range(100, 200)))
    columns = {w.column for w in compare(changed(many, "desk.payments", ("p", "8.00")), GOOD).examples(5)}
    assert columns == {"id", "status", "total", "note", "amount"}


def test_only_runs_that_overlap_make_a_pair() -> None:
    start = datetime(2026, 11, 1, tzinfo=UTC)

    def run(a: float, b: float) -> tuple[datetime, datetime]:
        return start + timedelta(seconds=a), start + timedelta(seconds=b)

    assert overlapping_pairs([run(0, 2), run(3, 4)], [run(1, 3.5), run(2, 3), run(4, 5)]) == 2
