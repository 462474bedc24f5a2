"""From findings in a real journal to the version, its runs and the point before it."""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from catalog.models import App
from checks import detectors
from checks.diagnosis import culprits, diagnose, interrupted
from checks.errors import Undiagnosed
from checks.model import Diagnosis, Finding
from platforms.base import Run, RunState
from snapshots.model import RecoveryPoint, WorkflowState
from tests.checks.conftest import Journaled, app_of
from tests.checks.shop_platform import IDS, ShopPlatform, version

pytestmark = pytest.mark.postgres

RULES = (
    {"key": "twice", "kind": "duplicates", "table": "shop.orders", "columns": ["ref"]},
    {"key": "positive", "kind": "rule", "table": "shop.orders", "sql": "r.total >= 0"},
    {
        "key": "orphans",
        "kind": "orphans",
        "table": "shop.items",
        "reference": {"columns": ["order_id"], "table": "shop.orders", "to": ["id"]},
    },
)


class Shop:
    """Runs of both workflows over the real database, as the platform would record them."""

    def __init__(self, journaled: Journaled, clock_s: float = 0.0) -> None:
        self.journaled = journaled
        self.platform = ShopPlatform(clock_s=clock_s)
        self.numbers = itertools.count(1)
        self.live = {"intake": "good-1", "payment": "pay-1"}
        self.app: App = app_of(*RULES)
        self.watcher = journaled.watcher

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.platform.clock_s)

    def publish(self, workflow: str, content: str) -> None:
        self.live[workflow] = content
        history = self.platform.history.setdefault(IDS[workflow], [])
        history.insert(0, version(IDS[workflow], content, self.now()))

    @contextmanager
    def run(
        self, workflow: str, *, content: str | None = None, state: RunState = RunState.SUCCESS, tagged: bool = True
    ) -> Iterator[psycopg.Connection[Any]]:
        run = Run(
            id=str(next(self.numbers)),
            workflow_id=IDS[workflow],
            state=state,
            started_at=self.now(),
            stopped_at=None,
            version_hash=content or self.live[workflow],
        )
        with psycopg.connect(self.journaled.db.dsn(f"wf_{workflow}")) as conn:
            if tagged:
                conn.execute("SELECT set_config('reinstate.run', %s, false)", (run.id,))
            yield conn
            conn.commit()
        self.platform.all_runs.append(replace(run, stopped_at=self.now()))

    def order(self, number: int, **how: Any) -> None:
        """An order taken as the version does: bad ones write it twice, with a wrong total, half of the time."""
        with self.run("intake", **how) as conn:
            bad = (how.get("content") or self.live["intake"]).startswith("bad") and number % 2 == 0
            total = -50 if bad else 50
            sql = "INSERT INTO shop.orders (id, ref, customer, total) VALUES (%s, %s, 'c', %s)"
            conn.execute(sql, (number, f"n{number}", total))
            if bad:
                conn.execute(sql, (number + 50_000, f"n{number}", total))

    def pay(self, number: int, **how: Any) -> None:
        with self.run("payment", **how) as conn:
            conn.execute("UPDATE shop.orders SET status = 'paid' WHERE id = %s", (number,))

    def point(self, name: str, *, verified: bool = True) -> RecoveryPoint:
        here = self.journaled.here()
        states = [
            WorkflowState(workflow=k, platform_id=IDS[k], active=True, version_hash=v, definition={})
            for k, v in self.live.items()
        ]
        return RecoveryPoint(
            id=name, app="shop", taken_at=here.at, position=here, workflows=tuple(states), in_flight=(), tables=(),
            sequences={}, verification={"passed": verified},
        )  # fmt: skip

    def findings(self) -> list[Finding]:
        return detectors.run(self.watcher, self.app, since=self.journaled.since)

    def diagnose(self, *points: RecoveryPoint, **how: Any) -> Diagnosis:
        return diagnose(self.watcher, self.app, self.platform.port(), self.findings(), points=points, **how)


@pytest.fixture
def world(journaled: Journaled) -> Shop:
    return Shop(journaled)


def incident(world: Shop, **how: Any) -> tuple[RecoveryPoint, set[str]]:
    """Good orders, a point, good orders, then a bad version; good runs in flight at the publish, payments in between.
    Returns the point and the ids of the bad runs."""
    for n in range(3001, 3004):
        world.order(n, **how)
    point = world.point("P1")
    for n in range(3004, 3008):
        world.order(n, **how)
    with world.run("intake", **how) as in_flight:  # begun before the publish, written and ended after it
        world.publish("intake", "bad-1")
        for n in range(3010, 3020):
            world.order(n, **how)
        in_flight.execute("INSERT INTO shop.orders (id, ref, customer, total) VALUES (3900, 'n3900', 'c', 50)")
    for n in (3004, 3005, 3010, 3013):
        world.pay(n, **how)
    return point, {r.id for r in world.platform.all_runs if r.version_hash == "bad-1"}


def test_the_bad_version_all_its_runs_and_nothing_else(world: Shop) -> None:
    point, bad = incident(world)
    found = world.diagnose(point)
    assert (found.workflow, found.bad_version, found.good_version) == ("intake", "bad-1", "good-1")
    assert {b.run_id for b in found.bad_runs} == bad  # ten, of which five did visible damage
    assert len(bad) == 10
    assert {b.why for b in found.bad_runs} == {"bad-version"}
    assert {b.attribution for b in found.bad_runs} == {"exact"}
    assert all(len(b.xids) == 1 for b in found.bad_runs)
    assert found.point_id == "P1"
    assert found.confidence == 1.0
    assert found.unattributed == ()


def test_the_first_bad_commit_is_read_from_the_journal(world: Shop) -> None:
    point, _ = incident(world)
    found = world.diagnose(point)
    with psycopg.connect(world.journaled.db.superuser) as conn:
        twin = conn.execute("SELECT twin FROM reinstate.journal_table WHERE table_name = 'shop.orders'").fetchone()
        assert twin is not None
        row = conn.execute(
            f"SELECT rj_xid::text::bigint, rj_at FROM reinstate.{twin[0]} WHERE id = 3010 AND rj_op = 'I'"
        ).fetchone()
    assert row == (found.first_bad_xid, found.first_bad_at)
    assert found.published_at is not None
    assert found.published_at < found.first_bad_at


def test_the_evidence_has_its_numbers(world: Shop) -> None:
    point, _ = incident(world)
    text = "\n".join(world.diagnose(point).evidence)
    assert "(twice 5, positive 10); 10 of them traced since point P1" in text
    assert "10 of 10 were written by runs of version bad-1 of intake" in text
    assert "5 of its 10 writing runs wrote a violating row; all 10 runs of it count as bad" in text
    assert "1 runs of other versions of intake overlap bad runs and are not selected" in text
    assert "good is version good-1, verified with point P1" in text


@pytest.mark.parametrize("clock_s", [-5.0, 5.0])
def test_a_platform_clock_that_is_wrong_changes_nothing(journaled: Journaled, clock_s: float) -> None:
    world = Shop(journaled, clock_s)
    point, bad = incident(world)
    found = world.diagnose(point)
    assert {b.run_id for b in found.bad_runs if b.attribution == "exact"} == bad
    assert found.published_at is not None
    assert abs(found.published_at - found.first_bad_at) < timedelta(seconds=1)


def test_untagged_writes_are_told_apart_by_time_or_listed(world: Shop) -> None:
    world.order(3001, tagged=False)
    point = world.point("P1")
    time.sleep(0.6)
    with world.run("intake", tagged=False):  # a good run in flight at the publish
        world.publish("intake", "bad-1")
        world.order(3010, tagged=False)
    for n in (3012, 3014):
        time.sleep(0.6)
        world.order(n, tagged=False)
    found = world.diagnose(point, offset_s=0.0)
    assert found.bad_version == "bad-1"
    by_attribution = sorted((b.attribution, len(b.xids)) for b in found.bad_runs)
    assert by_attribution == [("none", 0), ("unique", 1), ("unique", 1)]
    assert "ambiguous" in {u["attribution"] for u in found.unattributed}
    assert found.confidence == pytest.approx((2 + 0.5) / 3, abs=0.01)
    assert any("may also be of runs that overlapped" in line for line in found.evidence)


def test_writes_that_are_surely_nobodys_are_no_basis(world: Shop) -> None:
    point, _ = incident(world, tagged=False)
    with pytest.raises(Undiagnosed, match="no single write can be told to be its own"):
        world.diagnose(point, offset_s=0.0)


def test_a_point_taken_after_the_bad_publish_is_passed_over(world: Shop) -> None:
    point, bad = incident(world)
    late = world.point("P2")
    for n in range(3020, 3026):
        world.order(n)
    found = world.diagnose(point, late)
    assert found.point_id == "P1"
    assert len(found.bad_runs) == len(bad) + 6
    assert any("point P2 was passed over" in line for line in found.evidence)


def test_a_point_between_two_stays_of_the_bad_version_is_passed_over(world: Shop) -> None:
    first = world.point("P1")
    time_of_trial = world.now()
    world.publish("intake", "bad-1")
    world.order(3010)
    world.publish("intake", "good-1")
    for run in list(world.platform.all_runs):  # long enough ago for any uncertainty of clocks
        world.platform.all_runs.remove(run)
        world.platform.all_runs.append(replace(run, started_at=time_of_trial, stopped_at=None, state=RunState.CRASHED))
    between = replace(world.point("P2"), taken_at=world.now())
    between = replace(between, position=replace(between.position, at=between.position.at + timedelta(seconds=2)))
    world.live["intake"] = "bad-1"
    for n in range(3012, 3018):
        world.order(n)
    found = world.diagnose(first, between, offset_s=0.0)
    assert found.point_id == "P1"
    assert any("P2 was passed over: the bad version had run before it" in line for line in found.evidence)


def test_unverified_points_are_not_used(world: Shop) -> None:
    point, _ = incident(world)
    with_history = world.diagnose(replace(point, verification={"passed": False}))
    assert with_history.point_id is None
    assert with_history.good_version == "good-1"
    assert any("no point verified it" in line for line in with_history.evidence)


def test_two_bad_versions_in_a_row_are_both_selected(world: Shop) -> None:
    point, bad = incident(world)
    world.publish("intake", "bad-2")
    for n in range(3020, 3026):
        world.order(n)
    found = world.diagnose(point)
    assert found.bad_version == "bad-1"
    assert len(found.bad_runs) == len(bad) + 6
    assert found.good_version == "good-1"


def test_a_harmless_new_version_beside_a_persons_damage_is_not_blamed(world: Shop) -> None:
    point = world.point("P1")
    world.publish("intake", "good-2")
    for n in range(3001, 3020):
        world.order(n)
    dsn = world.journaled.db.role("ada")
    with psycopg.connect(world.journaled.db.installer) as owner:
        owner.execute("GRANT USAGE ON SCHEMA shop TO ada; GRANT ALL ON shop.orders TO ada")
    with psycopg.connect(dsn) as ada:
        ada.execute("UPDATE shop.orders SET total = -1 WHERE id BETWEEN 100 AND 140")
    with pytest.raises(Undiagnosed, match="ada: 41"):
        world.diagnose(point)


def test_a_known_good_version_is_not_blamed(world: Shop) -> None:
    point = world.point("P1")
    with world.run("intake") as conn:
        conn.execute("UPDATE shop.orders SET total = -1 WHERE id < 10")
    with pytest.raises(Undiagnosed, match="no new version explains the 9 violating rows"):
        world.diagnose(point)


def test_no_findings_is_no_diagnosis(world: Shop) -> None:
    with pytest.raises(Undiagnosed, match="no finding names a row"):
        world.diagnose(world.point("P1"))


def test_a_workflow_missing_in_the_platform_is_named(world: Shop) -> None:
    point, _ = incident(world)
    world.app = world.app.model_copy(
        update={"workflows": (world.app.workflows[0].model_copy(update={"name": "Gone"}), world.app.workflows[1])}
    )
    with pytest.raises(Undiagnosed, match="0 workflows named 'Gone'"):
        world.diagnose(point)


# Culprits, for containment ----------------------------------------------------------------------------------------


def test_the_culprit_is_who_wrote_the_rows_not_who_touched_some(world: Shop) -> None:
    incident(world)
    found = culprits(world.watcher, world.app, world.findings())
    assert found == {"intake"}


def test_culprits_of_damage_to_old_rows_are_the_recent_writers(world: Shop) -> None:
    with world.run("payment") as conn:
        conn.execute("UPDATE shop.orders SET total = -1 WHERE id < 50")
    assert culprits(world.watcher, world.app, world.findings(), since=world.journaled.since) == {"payment"}


def test_two_workflows_that_wrote_the_same_rows_are_both_culprits(world: Shop) -> None:
    for workflow in ("intake", "payment"):
        with world.run(workflow) as conn:
            conn.execute("UPDATE shop.orders SET total = -1 WHERE id < 50")
    assert culprits(world.watcher, world.app, world.findings()) == {"intake", "payment"}


def test_a_person_is_no_culprit_workflow(world: Shop) -> None:
    with psycopg.connect(world.journaled.db.installer) as owner:
        owner.execute("UPDATE shop.orders SET total = -1 WHERE id < 50")
    assert culprits(world.watcher, world.app, world.findings()) == frozenset()


# Interrupted runs ------------------------------------------------------------------------------------------------


def test_runs_that_were_cut_off_are_found_whatever_their_version(world: Shop) -> None:
    world.order(3001, state=RunState.ERROR)
    start = datetime.now(UTC)
    world.order(3002)
    world.order(3003, state=RunState.ERROR)
    world.pay(3002, state=RunState.CANCELED)
    with world.run("payment", state=RunState.CRASHED):
        pass
    found = interrupted(
        world.watcher, world.app, world.platform.port(), workflows=frozenset({"payment", "intake"}), since=start
    )  # fmt: skip
    states = {(b.workflow, b.state, len(b.xids)) for b in found}
    assert {("intake", "error", 1), ("payment", "canceled", 1), ("payment", "crashed", 0)} <= states
    assert {b.why for b in found} == {"interrupted"}
    only = interrupted(world.watcher, world.app, world.platform.port(), workflows=frozenset({"payment"}), since=start)
    assert {b.workflow for b in only} == {"payment"}


def test_a_run_that_refused_its_event_before_containment_is_not_interrupted(world: Shop) -> None:
    start = datetime.now(UTC)
    with world.run("payment", state=RunState.ERROR):
        pass
    world.pay(7, state=RunState.ERROR)
    contained = datetime.now(UTC) + timedelta(seconds=30)
    found = interrupted(
        world.watcher, world.app, world.platform.port(), workflows=frozenset({"payment"}), since=start,
        contained_at=contained,
    )  # fmt: skip
    assert [len(b.xids) for b in found] == [1]


WIPED = {"key": "wiped", "kind": "mass-delete", "table": "shop.orders", "min_rows": 20, "percent_floor": 5}
LEVEL = {"key": "level", "kind": "rule", "table": "shop.orders", "sql": "r.total >= 0"}


def test_a_mass_delete_leads_to_who_deleted_not_to_who_wrote_before(world: Shop) -> None:
    world.app = app_of(WIPED)
    point = world.point("P1")
    for n in range(1, 61):  # payments touch the very rows, from many runs
        world.pay(n)
    with world.run("intake") as conn:
        conn.execute("DELETE FROM shop.orders WHERE id BETWEEN 500 AND 502")
    world.publish("intake", "bad-1")
    with world.run("intake") as conn:
        conn.execute("DELETE FROM shop.orders WHERE id BETWEEN 1 AND 60")
    findings = world.findings()
    assert culprits(world.watcher, world.app, findings) == {"intake"}
    found = world.diagnose(point)
    assert (found.workflow, found.bad_version, found.good_version) == ("intake", "bad-1", "good-1")
    assert len(found.bad_runs) == 1
    assert found.confidence > 0.9  # three rows were deleted by the good version


def test_who_changed_none_of_a_rules_columns_is_not_to_blame(world: Shop) -> None:
    """Payments touch every damaged row, from a new version; only intake changed the total."""
    point = world.point("P1")
    world.publish("intake", "bad-1")
    world.publish("payment", "pay-2")
    for n in range(1, 9):
        with world.run("intake") as conn:
            conn.execute("UPDATE shop.orders SET total = -5 WHERE id = %s", (n,))
        world.pay(n)
    world.app = app_of(LEVEL)
    assert culprits(world.watcher, world.app, world.findings()) == {"intake", "payment"}
    with pytest.raises(Undiagnosed, match="both are new"):
        world.diagnose(point)
    world.app = app_of({**LEVEL, "columns": ["total"]})
    assert culprits(world.watcher, world.app, world.findings()) == {"intake"}
    assert world.diagnose(point).bad_version == "bad-1"


def forget_versions(world: Shop, runs: Sequence[str]) -> None:
    """The platform does not tell what these runs used, as if they had fallen between two looks."""
    world.platform.draft[IDS["intake"]] = world.live["intake"]
    world.platform.all_runs = [replace(r, version_hash=None) if r.id in runs else r for r in world.platform.all_runs]


def test_runs_of_an_unknown_version_beside_the_bad_one_count_as_bad(world: Shop) -> None:
    point, bad = incident(world)
    first, second = sorted(bad, key=int)[:2]
    last_good = str(int(first) - 1)
    forget_versions(world, [last_good, first, second])
    found = world.diagnose(point)
    assert found.bad_version == "bad-1"
    why = {b.run_id: b.why for b in found.bad_runs}
    assert why == {
        r: "version-unknown" if r in (last_good, first, second) else "bad-version" for r in bad | {last_good}
    }
    assert any("3 runs of intake do not tell their version and may have used it" in line for line in found.evidence)


def test_a_bad_version_that_no_run_tells_is_found_by_what_is_saved_now(world: Shop) -> None:
    """The damage was contained before anybody looked at the workflow again."""
    point, bad = incident(world)
    forget_versions(world, sorted(bad))
    world.platform.live[IDS["intake"]] = None
    world.platform.draft[IDS["intake"]] = "bad-1"
    found = world.diagnose(point)
    assert (found.bad_version, found.good_version) == ("bad-1", "good-1")
    assert {b.run_id for b in found.bad_runs} >= bad
    assert {b.why for b in found.bad_runs} == {"version-unknown"}
    assert found.confidence == 0.5, "nothing is sure"


def test_an_unknown_version_between_two_stays_of_a_good_one_is_shown_and_not_blamed(world: Shop) -> None:
    point, bad = incident(world)
    good = [r.id for r in world.platform.all_runs if r.version_hash == "good-1" and r.workflow_id == IDS["intake"]]
    forget_versions(world, good[1:2])
    found = world.diagnose(point)
    assert {b.run_id for b in found.bad_runs} == bad
    assert any("1 runs of intake do not tell their version and are not selected" in line for line in found.evidence)
