"""Every scenario beside the bad version, end to end on real parts: found, contained, recovered, equal to the oracle."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from console.wreck import Wreck
from drills import dumps, processes
from drills.errors import DrillError
from drills.events import look
from drills.judge import compare
from drills.needed import shortfalls
from drills.order_desk import DATABASE, EXAMPLE, OrderDesk
from drills.scenarios import SCENARIOS, Scenario
from estate import secrets
from recovery import session, setup
from recovery.context import AppContext, open_app
from recovery.diagnosed import latest
from recovery.plan import Plan
from recovery.protect import protect
from tests.conftest import RunningEstate

pytestmark = pytest.mark.live

APP = "order-desk"
OTHERS = [s for s in SCENARIOS.values() if s.key != "bad-version"]
DAMAGE = {
    "schedule-ran-twice": {"desk.products.stock", "desk.products.received"},
    "bulk-delete": {"desk.orders.note", "desk.status_changes.id", "desk.tidy_ups.removed"},
}
"""What is wrong as long as nobody recovers."""


@pytest.fixture
def desk(estate: RunningEstate, monkeypatch: pytest.MonkeyPatch) -> Iterator[OrderDesk]:
    """The order desk on its first day, protected, with ledger and store in a home of their own."""
    at = estate.addresses
    with tempfile.TemporaryDirectory(prefix="reinstate-scenario-") as folder:
        monkeypatch.setenv("REINSTATE_HOME", folder)
        desk = OrderDesk(superuser_dsn=at.superuser_dsn, n8n_url=at.n8n_url, n8n_key=at.n8n_api_key, home=Path(folder))
        desk.provision()
        with open_app(EXAMPLE, APP, desk.home) as ctx:
            setup.install_roles(ctx, desk.superuser_dsn(DATABASE))
            setup.install_journal(ctx)
            assert protect(ctx).verified
        yield desk


def wrong_columns(desk: OrderDesk, work: Path) -> set[str]:
    """What the app holds other than the oracle, which knows the events up to the driver's last dump."""
    known = secrets.read(desk.driver_file)
    live = dumps.take(known["DRIVER_DB_JUDGE"], work / "now")
    return set(compare(live, dumps.take(known["DRIVER_DB_ORACLE"], work / "now-oracle")).by_column())


def recover(incident: str) -> dict[str, Any]:
    with open_app(EXAMPLE, APP) as ctx:
        plan: Plan = session.make(ctx, incident, mode="both", policy="refuse", point=None)
        session.record_plan(ctx, plan)
    assert session.approve(EXAMPLE, APP, plan, by="tester", reason="scenario")
    session.started(EXAMPLE, APP, plan)
    for step in plan.steps:
        session.step(EXAMPLE, APP, plan.recovery_id, step.id)
    return session.finished(EXAMPLE, APP, plan)


def check_diagnosis(ctx: AppContext, scenario: Scenario, incident: str) -> None:
    found = latest(ctx, incident)
    assert found.workflow == scenario.workflow
    assert found.confidence > 0.9  # the good version deletes some too
    assert found.unattributed == ()


@pytest.mark.parametrize("scenario", OTHERS, ids=lambda s: s.key)
def test_the_scenario_is_red_until_it_is_recovered_and_then_equals_the_oracle(
    desk: OrderDesk, tmp_path: Path, scenario: Scenario
) -> None:
    with (
        processes.watcher(desk.home, EXAMPLE, tmp_path) as watcher,
        processes.driver(desk.driver_file, tmp_path, mode=scenario.mode) as driver,
    ):
        watcher.wait_event("watching", timeout_s=60)
        driver.wait_event("ready", timeout_s=60)
        driver.send("start")
        caught = watcher.wait_event("contained", timeout_s=120)
        driver.wait_event("paused", timeout_s=60)
        driver.send("dump before")
        before = driver.wait_event("dumped", timeout_s=60)
        assert wrong_columns(desk, tmp_path) >= DAMAGE[scenario.key]
        assert caught["workflows"] == [scenario.workflow]
        with open_app(EXAMPLE, APP) as ctx:
            check_diagnosis(ctx, scenario, str(caught["incident"]))
        done = recover(str(caught["incident"]))
        assert done["state"] == "resumed"
        driver.wait_event("resumed", timeout_s=60)
        driver.send("fresh 2")
        driver.wait_event("fresh-over", timeout_s=60)
        driver.send("finish 60")
        verdict = driver.wait_event("result", timeout_s=180)
        driver.send("quit")
    assert before["rows_wrong"] > 0
    assert (verdict["wrong_by_column"], verdict["lost"]) == ({}, [])
    assert (verdict["ambiguous_events"], verdict["events_without_effect"]) == ([], 0)
    figures = {**verdict, "resumed": True}
    assert shortfalls(figures, scenario=scenario.key) == []


@pytest.mark.parametrize("scenario", OTHERS, ids=lambda s: s.key)
def test_a_harmless_version_of_the_same_workflow_stays_quiet(
    desk: OrderDesk, tmp_path: Path, scenario: Scenario
) -> None:
    options = ["--normal-s", "2", "--exposure-max-s", "6"]
    with (
        processes.watcher(desk.home, EXAMPLE, tmp_path) as watcher,
        processes.driver(desk.driver_file, tmp_path, mode=scenario.negative_mode, options=options) as driver,
    ):
        watcher.wait_event("watching", timeout_s=60)
        driver.wait_event("ready", timeout_s=60)
        driver.send("start")
        driver.wait_event("exposure-over", timeout_s=120)
        driver.send("finish 30")
        verdict = driver.wait_event("result", timeout_s=120)
        driver.send("quit")
        with pytest.raises(DrillError, match="no answer"):
            watcher.wait_event("contained", timeout_s=2)
    assert verdict["wrong_by_column"] == {}
    with open_app(EXAMPLE, APP) as ctx:
        assert all(i.active for i in ctx.infos().values())


def wrecked_and_recovered(
    estate: RunningEstate, desk: OrderDesk, work: Path, key: str
) -> tuple[dict[str, Any], list[str]]:
    """The verdict of `reinstate wreck`, and what it said, while a watcher contains and this test recovers."""
    said: list[str] = []
    with (
        processes.watcher(desk.home, EXAMPLE, work) as watcher,
        open_app(EXAMPLE, APP) as ctx,
        ThreadPoolExecutor(1) as pool,
    ):
        watcher.wait_event("watching", timeout_s=60)
        wreck = Wreck(ctx=ctx, estate=estate.estate, scenario=SCENARIOS[key], say=said.append, patience_s=300.0)
        playing = pool.submit(wreck.play)
        caught = watcher.wait_event("contained", timeout_s=180)
        while not any("Ctrl-C" in line for line in said):
            assert not playing.done(), playing.result()
            time.sleep(0.2)
        recover(str(caught["incident"]))
        return playing.result(timeout=300), said


def test_two_wrecks_in_a_row_need_no_reset(estate: RunningEstate, desk: OrderDesk, tmp_path: Path) -> None:
    """The judge's truth is the app as it was found: an order from elsewhere in between is no damage."""
    for round_, key in enumerate(("schedule-ran-twice", "schedule-ran-twice")):
        verdict, said = wrecked_and_recovered(estate, desk, tmp_path, key)
        assert (verdict["wrong_by_column"], verdict["lost"]) == ({}, [])
        assert verdict["right"]
        assert verdict["rows_wrong_before"] > 0
        assert any("its truth starts from now" in line for line in said) is (round_ == 1)
        world = look(secrets.read(desk.driver_file)["DRIVER_DB_JUDGE"], None)
        answer = httpx.post(f"{desk.n8n_url}/webhook/order-intake", json=world.order().body, timeout=30)
        assert answer.status_code == httpx.codes.OK
