"""The driver against a real n8n: its oracle is right about good versions, and its judge is red about the bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drills import processes
from drills.order_desk import OrderDesk
from tests.conftest import RunningEstate

pytestmark = pytest.mark.live

ANSWER_S = 120.0


@pytest.fixture(scope="module")
def desk(estate: RunningEstate) -> OrderDesk:
    at = estate.addresses
    return OrderDesk(superuser_dsn=at.superuser_dsn, n8n_url=at.n8n_url, n8n_key=at.n8n_api_key, home=estate.home)


def play(desk: OrderDesk, work: Path, mode: str, *, dump_before: bool = False) -> dict[str, Any]:
    desk.provision()
    options = ["--normal-s", "3", "--exposure-max-s", "4"]
    with processes.driver(desk.driver_file, work, mode=mode, options=options) as driver:
        driver.wait_event("ready", timeout_s=ANSWER_S)
        driver.send("start")
        driver.wait_event("exposure-over", timeout_s=ANSWER_S)
        if dump_before:
            driver.send("dump before")
            driver.wait_event("dumped", timeout_s=ANSWER_S)
        driver.send("finish 60")
        found = driver.wait_event("result", timeout_s=2 * ANSWER_S)
        driver.send("quit")
    return found


@pytest.mark.parametrize("mode", ["good", "harmless"])
def test_good_versions_equal_the_oracle_field_by_field(desk: OrderDesk, tmp_path: Path, mode: str) -> None:
    found = play(desk, tmp_path, mode)
    assert (found["wrong_by_column"], found["lost"], found["ambiguous_events"]) == ({}, [], [])
    assert found["events_without_effect"] == 0
    assert found["fields_compared"] >= 500_000
    assert set(found["events_by_kind"]) == {
        "order", "payment", "status", "delivery", "note", "tag", "attribute", "staff-status",
    }  # fmt: skip


def test_the_bad_version_unrecovered_is_red_and_as_heavy_as_the_scenario_asks(desk: OrderDesk, tmp_path: Path) -> None:
    found = play(desk, tmp_path, "bad", dump_before=True)
    assert found["rows_damaged"] >= 600
    assert found["legit_edits_on_damaged_rows"] >= 50
    assert found["overlapping_run_pairs"] >= 20
    assert found["legit_events_lost"] > 0
    assert found["legit_edits_lost"] > 0
    assert found["wrong_fields_after"] > 1000
    assert found["examples"]
