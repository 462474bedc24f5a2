"""A whole drill as the flow that the schedule starts; drills that are killed or told to stop leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from estate import process
from ledger import Ledger
from tests.conftest import RunningEstate
from tests.live.service import Patient

pytestmark = [pytest.mark.live]

DRILL = """
import json
from drills import rehearsal
from flows.drill import drill

rehearsal.CONTAIN_S = 30.0  # the machine may be busy with other tests; the loop's test holds the 3 s
state = drill("order-desk", return_state=True)
print(json.dumps({"state": state.name, "message": state.message, "run": str(state.state_details.flow_run_id)}))
"""
STEP_S = 180.0


@pytest.fixture
def home() -> Iterator[Path]:
    """Outside pytest's folders: PostgreSQL's own user must be able to reach it."""
    with tempfile.TemporaryDirectory(prefix="reinstate-drill-") as folder:
        yield Path(folder)


def surroundings(home: Path, **more: str) -> dict[str, str]:
    """What a drill inherits: among it, addresses of somebody's real app, which it must not touch."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REINSTATE_HOME"))}
    real = {"ORDER_DESK_N8N_URL": "http://127.0.0.1:1", "ORDER_DESK_DB_RECOVERER": "postgresql://127.0.0.1:1/real"}
    return {**kept, **real, "REINSTATE_HOME": str(home), **more}


def reinstate(home: Path, *arguments: str) -> Any:
    ended = subprocess.run(
        [sys.executable, "-m", "console", *arguments, "--json"],
        env=surroundings(home), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_drill_passes_as_a_flow_and_leaves_only_its_scorecard(home: Path, estate: RunningEstate) -> None:
    at = estate.addresses
    server = {"PREFECT_API_URL": at.prefect_api_url, "PREFECT_API_AUTH_STRING": at.prefect_auth}
    ran = subprocess.run(
        [sys.executable, "-c", DRILL], env=surroundings(home, **server), capture_output=True, text=True, timeout=1500,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said["state"] == "Passed", f"{said} {ran.stderr}"

    (card,) = reinstate(home, "drill", "list")
    assert card == reinstate(home, "drill", "show", card["drill"])
    assert (card["passed"], card["reasons"], card["events_lost"], card["wrong_fields_after"]) == (True, [], 0, 0)
    assert (card["precision"], card["recall"], card["replay_success"], card["loss_s"]) == (1.0, 1.0, 1.0, 0.0)
    assert card["control"]["acted"] is None
    assert card["rows_wrong"] >= 600
    assert 0 < card["contain_s"] <= card["contain_target_s"]
    assert 0 < card["recover_s"] < card["total_s"] < card["rto_s"]
    assert {"undo", "replay", "verify"} <= set(card["steps"])

    with Ledger(home / "ledger.sqlite") as ledger:
        (scored,) = ledger.entries()
        assert (scored.kind, scored.app, scored.body) == ("drill.scored", "order-desk", card)
        assert ledger.verify() == []
    assert [p.name for p in (home / "drills").iterdir()] == ["drill.lock"]
    assert (home / "scorecards" / f"{card['drill']}.json").stat().st_mode & 0o777 == 0o600
    assert card["drill"] in (home / "trends.html").read_text("utf-8")

    user, _, password = at.prefect_auth.partition(":")
    with httpx.Client(base_url=at.prefect_api_url, auth=(user, password), transport=Patient()) as api:
        run = api.get(f"/flow_runs/{said['run']}").json()
        assert run["name"] == "drill order-desk bad-version #1"
        assert run["state"]["name"] == "Passed"
        ours = {"artifacts": {"flow_run_id": {"any_": [said["run"]]}}}
        artifacts = {a["key"]: a for a in api.post("/artifacts/filter", json=ours).json()}
        assert "Passed" in artifacts["scorecard-order-desk"]["data"]
        assert artifacts["drill-order-desk"]["data"] == 100.0
        tasks = api.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [said["run"]]}}}).json()
        assert {"negative control", "fault and containment", "judge"} <= {t["name"] for t in tasks}


def started(home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "console", "drill", "run"]
    with (home / "drill.log").open("ab") as log:
        return subprocess.Popen(command, env=surroundings(home), stdout=log, stderr=log)


def until(condition: Callable[[], bool], drill: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STEP_S
    while not condition():
        assert drill.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def recorded(folder: Path) -> list[process.ProcessRecord]:
    """Every process that a sandbox has on record."""
    found = [process.read_record(f) for f in folder.rglob("*.pid") if "data" not in f.parts]
    return [r for r in found if r is not None]


def test_a_killed_drill_is_cleared_by_the_next_and_a_stopped_one_clears_itself(home: Path) -> None:
    log = home / "drill.log"
    first = started(home)
    try:
        until(lambda: any((home / "drills").glob("DRILL-*/processes/driver.pid")), first, log)
        (folder,) = (home / "drills").glob("DRILL-*")
        left = recorded(folder)
    finally:
        first.kill()
        first.wait()
    assert len(left) == 4  # PostgreSQL, n8n, watcher, driver
    assert sum(r.process() is not None for r in left) >= 3  # the driver may have noticed that nobody listens any more

    second = started(home)
    try:
        until(lambda: any(p != folder for p in (home / "drills").glob("DRILL-*")), second, log)
        assert not folder.exists()
        assert [r for r in left if r.process() is not None] == []
        (newer,) = (home / "drills").glob("DRILL-*")
        until(lambda: len(recorded(newer)) >= 2, second, log)
        running = recorded(newer)
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 128 + signal.SIGTERM
    finally:
        second.kill()
        second.wait()
    assert not newer.exists()
    assert [r for r in running if r.process() is not None] == []
    assert list((home / "scorecards").glob("*")) == []
