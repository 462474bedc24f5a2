"""Detectors find what recent changes broke, and nothing that was there before, was repaired, or is merely unusual."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from checks import detectors
from checks.errors import DetectorBroken
from checks.model import Finding
from snapshots import database
from snapshots.errors import Refused
from snapshots.model import Position
from tests.checks.conftest import Journaled, app_of
from tests.conftest import AppDb

pytestmark = pytest.mark.postgres

TWICE = {"key": "twice", "kind": "duplicates", "table": "shop.orders", "columns": ["ref"]}
ORPHANS = {
    "key": "orphans",
    "kind": "orphans",
    "table": "shop.items",
    "reference": {"columns": ["order_id"], "table": "shop.orders", "to": ["id"]},
}
EMPTY = {
    "key": "empty",
    "kind": "partial",
    "table": "shop.orders",
    "children": {"columns": ["order_id"], "table": "shop.items", "to": ["id"]},
    "grace_s": 5,
}
TOTALS = {
    "key": "totals",
    "kind": "rule",
    "table": "shop.orders",
    "sql": "r.total = (SELECT sum(i.qty * i.price) FROM shop.items i WHERE i.order_id = r.id)",
}
VALUE = {"key": "value", "kind": "value-drift", "table": "shop.orders", "columns": ["total"]}
VOLUME = {"key": "volume", "kind": "volume-drift", "table": "shop.orders"}


def find(journaled: Journaled, *rules: dict[str, Any], since: Position | None = None, **options: Any) -> list[Finding]:
    return detectors.run(journaled.watcher, app_of(*rules), since=since or journaled.since, **options)


def order(conn: psycopg.Connection[Any], number: int, ref: str, total: float = 50, at: str = "now()") -> None:
    conn.execute(
        f"INSERT INTO shop.orders (id, ref, customer, total, placed_at) VALUES ({number}, %s, 'c', %s, {at})",
        (ref, total),
    )


def test_quiet_data_gives_no_findings(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    order(intake, 2001, "fresh")
    intake.execute("INSERT INTO shop.items VALUES (2001, 1, 1, 50)")
    assert find(journaled, TWICE, ORPHANS, EMPTY, TOTALS) == []


def test_duplicates_are_the_rows_too_many(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    order(intake, 2001, "new")
    order(intake, 2002, "new")
    order(intake, 2003, "new")
    order(intake, 2004, "ref-5")  # repeats an old row
    intake.execute("INSERT INTO shop.orders (id, customer, total) VALUES (2005, 'c', 1), (2006, 'c', 1)")  # no ref
    [finding] = find(journaled, TWICE)
    assert finding.keys == (("2002",), ("2003",), ("2004",))
    assert finding.rows == 3
    assert finding.confirmed
    assert finding.contain
    assert "3 changed rows repeat another row's ref" in finding.message


def test_old_duplicates_are_not_found_again(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    order(intake, 2001, "ref-5")
    later = journaled.here()
    order(intake, 2002, "something else")
    assert find(journaled, TWICE, since=later) == []
    assert len(find(journaled, TWICE)) == 1


def test_repaired_rows_are_no_finding(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    order(intake, 2001, "ref-5")
    intake.execute("INSERT INTO shop.items VALUES (9999, 1, 1, 1)")
    assert {f.detector for f in find(journaled, TWICE, ORPHANS)} == {"twice", "orphans"}
    intake.execute("DELETE FROM shop.orders WHERE id = 2001")
    intake.execute("DELETE FROM shop.items WHERE order_id = 9999")
    assert find(journaled, TWICE, ORPHANS) == []


def test_a_transaction_open_across_the_position_is_seen(journaled: Journaled, shop: AppDb) -> None:
    with psycopg.connect(shop.dsn("wf_intake")) as open_one:
        order(open_one, 2001, "ref-5")
        since = journaled.here()
        open_one.commit()
    assert [f.keys for f in find(journaled, TWICE, since=since)] == [(("2001",),)]


def test_orphans_name_the_child_or_the_removed_parent(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    intake.execute("INSERT INTO shop.items VALUES (9999, 1, 1, 1), (9999, 2, 1, 1)")
    intake.execute("DELETE FROM shop.orders WHERE id = 7")
    children, parents = find(journaled, ORPHANS)
    assert (children.table, children.keys) == ("shop.items", (("9999", "1"), ("9999", "2")))
    assert (parents.table, parents.keys, parents.rows) == ("shop.orders", (("7",),), 1)


def test_partial_rows_are_judged_only_after_their_grace(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    order(intake, 2001, "without items")
    assert find(journaled, EMPTY) == []
    [finding] = find(journaled, EMPTY, now=datetime.now(UTC) + timedelta(seconds=10))
    assert finding.keys == (("2001",),)
    assert "5 s after they were written" in finding.message


def test_a_rule_is_judged_on_changed_rows_only(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    intake.execute("UPDATE shop.orders SET total = total + 1 WHERE id IN (3, 4)")
    intake.execute("UPDATE shop.orders SET status = 'paid' WHERE id IN (5, 6)")
    [finding] = find(journaled, TOTALS)
    assert finding.keys == (("3",), ("4",))


def test_few_rows_stay_unconfirmed(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    order(intake, 2001, "ref-5")
    assert [f.confirmed for f in find(journaled, TWICE | {"min_rows": 2})] == [False]
    order(intake, 2002, "ref-6")
    assert [f.confirmed for f in find(journaled, TWICE | {"min_rows": 2})] == [True]


def test_keys_are_bounded_and_rows_are_not(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    intake.execute(
        "INSERT INTO shop.orders (id, ref, customer, total) "
        "SELECT 5000 + g, 'ref-1', 'c', 1 FROM generate_series(1, 1200) g"
    )
    [finding] = find(journaled, TWICE)
    assert (finding.rows, len(finding.keys)) == (1200, detectors.KEYS_PER_FINDING)


def test_the_cost_follows_the_change(journaled: Journaled, intake: psycopg.Connection[Any], shop: AppDb) -> None:
    """With a business key's index, no plan of a detector reads the whole table."""
    with psycopg.connect(shop.installer) as owner:
        owner.execute(
            "INSERT INTO shop.orders (id, ref, customer, total, placed_at) "
            "SELECT 10000 + g, 'x' || g, 'c', 50, now() - interval '60 days' FROM generate_series(1, 30000) g"
        )
        owner.execute("ANALYZE shop.orders")
    since = journaled.here()
    order(intake, 2001, "ref-5")
    with database.connect(shop.capturer, purpose="statistics") as watcher:
        watcher.execute("SELECT pg_stat_force_next_flush()")
        watcher.commit()
        count = "SELECT coalesce(seq_tup_read, 0) FROM pg_stat_user_tables WHERE relname = 'orders'"
        before = watcher.execute(count).fetchone()
        watcher.commit()
        assert len(detectors.run(watcher, app_of(TWICE, ORPHANS), since=since)) == 1
        watcher.execute("SELECT pg_stat_force_next_flush()")
        watcher.commit()
        after = watcher.execute(count).fetchone()
    assert before == after


# Drift -------------------------------------------------------------------------------------------------------------


def add_orders(conn: psycopg.Connection[Any], first: int, n: int, total: float, spread: float = 10) -> None:
    conn.execute(
        """INSERT INTO shop.orders (id, ref, customer, total, placed_at)
           SELECT %(first)s + g, 'd' || %(first)s + g, 'c', %(total)s + %(spread)s * (g %% 11 - 5) / 5.0, now()
           FROM generate_series(1, %(n)s) g""",
        {"first": first, "n": n, "total": total, "spread": spread},
    )


def test_values_that_move_far_are_drift(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    add_orders(intake, 3000, 30, total=100)
    [finding] = find(journaled, VALUE)
    assert finding.rows == 30
    assert re.search(r"\+\d+% off the usual (49|50)", finding.message)


def test_a_burst_of_usual_values_is_no_value_drift(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    add_orders(intake, 3000, 500, total=52)
    assert find(journaled, VALUE) == []


def test_a_handful_of_values_is_too_few(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    add_orders(intake, 3000, 4, total=500)
    assert find(journaled, VALUE) == []


def test_values_left_alone_are_not_under_test(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    with psycopg.connect(journaled.db.installer) as owner:
        owner.execute("UPDATE shop.orders SET total = 900 WHERE id <= 40")
    since = journaled.here()
    intake.execute("UPDATE shop.orders SET status = 'paid' WHERE id <= 40")
    assert find(journaled, VALUE, since=since) == []
    assert len(find(journaled, VALUE)) == 1


def test_the_window_under_test_does_not_train_it(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    """Bad rows with old business times would otherwise become the history they are compared with."""
    intake.execute(
        "INSERT INTO shop.orders (id, ref, customer, total, placed_at) SELECT 3000 + g, 'd' || g, 'c', 100, "
        "now() - interval '1 hour' - g * interval '3 minutes' FROM generate_series(1, 3000) g"
    )
    [finding] = find(journaled, VALUE)
    assert re.search(r"off the usual (49|50)", finding.message)


def test_past_incidents_do_not_train_it(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    with psycopg.connect(journaled.db.installer) as owner:
        owner.execute("UPDATE shop.orders SET total = 100 WHERE id > 400")
    since = journaled.here()
    add_orders(intake, 3000, 30, total=100)
    incident = (since.at - timedelta(days=30), since.at - timedelta(hours=1, minutes=3 * 400))
    assert find(journaled, VALUE, since=since) == []
    [finding] = find(journaled, VALUE, since=since, excluded=[incident])
    assert re.search(r"off the usual (49|50)", finding.message)


def test_flat_history_does_not_fire_on_a_small_move(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    with psycopg.connect(journaled.db.installer) as owner:
        owner.execute("UPDATE shop.orders SET total = 50")
    since = journaled.here()
    add_orders(intake, 3000, 100, total=60, spread=0)
    assert find(journaled, VALUE, since=since) == []
    later = journaled.here()
    add_orders(intake, 4000, 100, total=70, spread=0)
    assert len(find(journaled, VALUE, since=later)) == 1


def test_tiny_history_never_fires(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    with psycopg.connect(journaled.db.installer) as owner:
        owner.execute("DELETE FROM shop.orders WHERE id > 60")  # three hours are left
    since = journaled.here()
    add_orders(intake, 3000, 100, total=500)
    assert find(journaled, VALUE, VOLUME, since=since) == []


def test_volume_surges_and_silence_are_drift(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    """One order in three minutes is usual."""
    ahead = journaled.since.at + timedelta(minutes=30)
    with psycopg.connect(journaled.db.installer) as owner:
        owner.execute("UPDATE shop.orders SET placed_at = placed_at + interval '1 hour'")
    usual = VOLUME | {"history_buckets": 48, "mads": 3}
    intake.execute(
        "INSERT INTO shop.orders (id, ref, customer, total, placed_at) SELECT 7000 + g, 'v' || g, 'c', 50, "
        "now() + g * interval '3 minutes' FROM generate_series(1, 10) g"
    )
    assert find(journaled, usual, now=ahead) == []
    add_orders(intake, 3000, 100, total=50)
    [surge] = find(journaled, usual, now=ahead)
    assert surge.rows in range(98, 103)
    assert len(surge.keys) > 100
    intake.execute("DELETE FROM shop.orders WHERE id > 2000")
    [silence] = find(journaled, usual, now=ahead)
    assert silence.keys == ()
    assert "-100% off the usual 10" in silence.message


# What cannot be judged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (TOTALS | {"sql": "r.nothing > 1"}, "detector totals: its query fails: column r.nothing does not exist"),
        (TOTALS | {"sql": "true) ; DELETE FROM shop.orders; --"}, "detector totals"),
        (TWICE | {"columns": ["nothing"]}, "detector twice: table shop.orders has no journaled column nothing"),
        (TWICE | {"table": "shop.gone"}, "table shop.gone is not in the journal"),
    ],
)
def test_a_wrong_detector_is_one_clear_line(
    journaled: Journaled, intake: psycopg.Connection[Any], rule: dict[str, Any], says: str
) -> None:
    order(intake, 2001, "ref-5")
    with pytest.raises(DetectorBroken) as caught:
        find(journaled, rule)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert intake.execute("SELECT count(*) FROM shop.orders").fetchone() == (1001,)


def test_detectors_cannot_write(journaled: Journaled, shop: AppDb, intake: psycopg.Connection[Any]) -> None:
    order(intake, 2001, "ref-5")
    with psycopg.connect(shop.installer) as owner:
        owner.execute("CREATE SEQUENCE shop.counter; GRANT ALL ON SEQUENCE shop.counter TO capturer")
    with pytest.raises(DetectorBroken, match="read-only"):
        find(journaled, TOTALS | {"sql": "nextval('shop.counter') > 0"})


def test_without_a_journal_nothing_is_judged(shop: AppDb) -> None:
    with database.connect(shop.capturer, purpose="watch") as watcher:
        here = Position(snapshot="1:1:", system_id="0", timeline=1, at=datetime.now(UTC))
        with pytest.raises(Refused, match="belongs to server"):
            detectors.run(watcher, app_of(TWICE), since=here)


def test_a_missing_journal_is_named(journaled: Journaled, shop: AppDb) -> None:
    with psycopg.connect(shop.installer) as owner:
        owner.execute("ALTER TABLE reinstate.journal_table RENAME TO gone")
    with pytest.raises(DetectorBroken, match="journal cannot be read"):
        find(journaled, TWICE)


WIPED = {"key": "wiped", "kind": "mass-delete", "table": "shop.orders", "min_rows": 20, "percent_floor": 5}


def test_a_mass_delete_is_found_by_actor_from_the_journal(
    journaled: Journaled, intake: psycopg.Connection[Any], shop: AppDb
) -> None:
    intake.execute("DELETE FROM shop.orders WHERE id <= 60")
    with psycopg.connect(shop.dsn("wf_payment")) as other:
        other.execute("DELETE FROM shop.orders WHERE id BETWEEN 61 AND 75")
    [finding] = find(journaled, WIPED)
    assert (finding.rows, finding.kind, finding.confirmed) == (60, "mass-delete", True)
    assert set(finding.keys) == {(str(n),) for n in range(1, 61)}
    assert "60 of 1000 rows (6.0%) were deleted by wf_intake" in finding.message


@pytest.mark.parametrize("rows", [10, 45], ids=["few-rows", "small-share"])
def test_a_small_clean_up_is_no_mass_delete(journaled: Journaled, intake: psycopg.Connection[Any], rows: int) -> None:
    intake.execute("DELETE FROM shop.orders WHERE id <= %s", (rows,))
    assert find(journaled, WIPED, {**WIPED, "key": "share", "min_rows": 5, "percent_floor": 4.6}) == []


def test_rows_that_are_back_and_what_an_undo_took_away_are_no_mass_delete(
    journaled: Journaled, intake: psycopg.Connection[Any], shop: AppDb
) -> None:
    intake.execute("DELETE FROM shop.orders WHERE id <= 60")
    intake.execute("INSERT INTO shop.orders (id, customer, total) SELECT g, 'c', 1 FROM generate_series(1, 60) g")
    with psycopg.connect(shop.recoverer) as undo:
        undo.execute("DELETE FROM shop.orders WHERE id > 900")
    assert find(journaled, WIPED) == []


def test_a_truncated_table_is_a_mass_delete(journaled: Journaled, shop: AppDb) -> None:
    with psycopg.connect(shop.installer) as owner:
        owner.execute("TRUNCATE shop.orders")
    [finding] = find(journaled, WIPED)
    assert (finding.rows, len(finding.keys)) == (1000, 1000)
    assert "1000 of 1000 rows (100.0%)" in finding.message


def test_a_rule_names_the_columns_it_is_about(journaled: Journaled, intake: psycopg.Connection[Any]) -> None:
    rule = {"key": "paid", "kind": "rule", "table": "shop.orders", "sql": "r.total >= 0", "columns": ["total"]}
    intake.execute("UPDATE shop.orders SET total = -1 WHERE id = 3")
    [finding] = find(journaled, rule)
    assert finding.columns == ("total",)
    with pytest.raises(DetectorBroken, match="no journaled column nothing"):
        find(journaled, {**rule, "columns": ["nothing"]})
