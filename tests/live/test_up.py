"""`reinstate up` as its users meet it: behind its password, once however often it is started, gone when it is stopped;
and the anomaly end to end, from the wreck to an app that equals the oracle, with one person's yes in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from console import exits
from drills.order_desk import EXAMPLE
from estate import Estate, secrets
from tests.live import service

pytestmark = [pytest.mark.live]

FLOWS = {"protect", "watch", "contain", "recover", "resume", "drill", "maintain"}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home of its own, outside pytest's folders: PostgreSQL's own user must be able to reach it."""
    made = Path(tempfile.mkdtemp(prefix="reinstate-up-"))
    try:
        yield made
    finally:
        service.down(made)
        shutil.rmtree(made)


def deployed(prefect: service.Prefect) -> tuple[list[str], list[str], dict[str, bool]]:
    """Names of deployments and automations, and which schedules are on."""
    found = prefect.post("/deployments/filter", {})
    names = [f"{prefect.get('/flows/' + d['flow_id'])['name']}/{d['name']}" for d in found]
    on = {s["slug"]: s["active"] for d in found for s in d["schedules"]}
    return sorted(names), [a["name"] for a in prefect.post("/automations/filter", {})], on


def test_it_comes_up_behind_its_password_and_once_however_often_it_is_started(home: Path) -> None:
    with service.up(home) as first, service.Prefect(home) as prefect:
        ready = first.heard[-1]
        kept = secrets.read(home / secrets.FILE)["PREFECT_AUTH"]
        user, _, password = kept.partition(":")
        version = f"{ready['prefect']}/api/version"
        assert httpx.get(version, timeout=20).status_code == httpx.codes.UNAUTHORIZED
        assert httpx.get(version, timeout=20, auth=(user, "guess")).status_code == httpx.codes.UNAUTHORIZED
        assert httpx.get(version, timeout=20, auth=(user, password)).status_code == httpx.codes.OK
        assert httpx.get(ready["pages"], timeout=20).status_code == httpx.codes.UNAUTHORIZED
        assert httpx.get(ready["pages"], timeout=20, auth=(user, password)).status_code == httpx.codes.OK
        assert password not in json.dumps(first.heard) + (home / "up.err").read_text()
        before = deployed(prefect)
        assert before[0] == sorted(f"{f}/{service.APP}" for f in FLOWS)
        assert before[1] == [f"recover {service.APP} when contained"]
        assert before[2] == {"protect": True, "drill": True, "maintain": True}
        pause_a_schedule(prefect, "protect")
        second = service.Up(home)
        assert second.process.wait(60) == exits.UNREACHABLE
        second.close()
        assert "reinstate down" in (home / "up.err").read_text().splitlines()[-1]
        assert first.stop(signal.SIGINT) == exits.OK
        assert first_took(first, home) <= service.STOP_S
        assert service.left(home) == []
    with service.up(home) as again, service.Prefect(home) as prefect:
        names, automations, on = deployed(prefect)
        assert (names, automations) == before[:2]
        assert on == {"protect": False, "drill": True, "maintain": True}
        assert "kept as it was left" in json.dumps(again.heard)
        assert again.stop(signal.SIGTERM) == exits.OK
        assert first_took(again, home) <= service.STOP_S
        assert service.left(home) == []


def pause_a_schedule(prefect: service.Prefect, slug: str) -> None:
    """What the switch on the deployment's page does."""
    found = prefect.get(f"/deployments/name/{slug}/{service.APP}")
    for schedule in found["schedules"]:
        path = f"/deployments/{found['id']}/schedules/{schedule['id']}"
        prefect.ask("PATCH", path, {"active": False})


def first_took(up: service.Up, home: Path) -> float:
    """Seconds from the signal to the end, by its own news."""
    stopping = up.wait("stopping", timeout_s=5)
    stopped = up.wait("stopped", timeout_s=5)
    took = datetime.fromisoformat(stopped["at"]) - datetime.fromisoformat(stopping["at"])
    assert not any(p.state != "down" for p in Estate(home).status())
    return took.total_seconds()


def test_a_killed_supervisor_is_replaced_by_the_next_one_which_takes_over(home: Path) -> None:
    with service.up(home) as first:
        parts = ("server", "steward", "watcher-order-desk", "pages", "prefect", "n8n")
        before = {part: service.pid(home, part) for part in parts}
        first.kill()
        with service.up(home) as second:
            assert {part: service.pid(home, part) for part in parts} == before
            assert {h["part"] for h in second.heard if h["event"] == "adopted"} == set(parts[:4])
            os.kill(before["steward"], signal.SIGKILL)
            second.wait("died", part="steward", code=None)
            second.wait("started", part="steward")
            assert service.pid(home, "steward") != before["steward"]
            down = subprocess.run(
                [sys.executable, "-m", "console", "down", "--json"],
                env={**os.environ, "REINSTATE_HOME": str(home)},
                capture_output=True,
                text=True,
                check=True,
            )
            assert json.loads(down.stdout)["was_running"] is True
            assert second.process.wait(10) == exits.OK
            assert service.left(home) == []


def test_an_anomaly_ends_at_the_oracle_with_one_approval(home: Path, tmp_path: Path) -> None:
    with service.up(home, "--fresh"), service.Prefect(home) as prefect, service.traffic(home, tmp_path) as driver:
        service.wreck(driver)
        waiting = prefect.wait("Suspended")
        assert waiting["parameters"]["trigger"] == "event"
        assert waiting["name"] == f"recover {service.APP} both #1"
        told_s = first_running(prefect, waiting) - announced(home)
        assert told_s <= 300, "an event is answered at all; how fast is for the benchmark"
        twice(prefect, home)
        prefect.answer(waiting, decision="approve", by="ada", reason="", plan=service.plan_hash(home))
        ended = prefect.wait("Recovered", "Failed", "Crashed", timeout_s=300)
        assert (ended["id"], ended["state_name"]) == (waiting["id"], "Recovered"), ended["state"]["message"]
        found = service.verdict(driver)
        assert (found["wrong_fields_after"], found["legit_events_lost"], found["legit_edits_lost"]) == (0, 0, 0)
        assert found["rows_damaged"] > 0
        [second] = [r for r in prefect.runs() if r["id"] != waiting["id"]]
        assert prefect.ended(second, timeout_s=180)["state_type"] == "COMPLETED", "the second event did nothing"
        assert len(service.entries(home, "recovery.started")) == 1


def twice(prefect: service.Prefect, home: Path) -> None:
    """The announcement arrives once more, as another event."""
    payload = {"incident": service.entries(home, "incident.announced")[-1].incident}
    resource = {"prefect.resource.id": f"reinstate.app.{service.APP}"}
    occurred = datetime.now().astimezone().isoformat()
    event = {"event": "reinstate.incident.contained", "occurred": occurred, "resource": resource, "payload": payload}
    prefect.post("/events", [{**event, "id": "9d7c6c1e-0000-4000-8000-000000000001"}])
    service.until(lambda: len(prefect.runs()) == 2, timeout_s=180, what="the second run")


def announced(home: Path) -> float:
    return float(service.entries(home, "incident.announced")[-1].at.timestamp())


def first_running(prefect: service.Prefect, run: dict[str, Any]) -> float:
    states = prefect.http.get("/flow_run_states/", params={"flow_run_id": run["id"]}).json()
    return min(datetime.fromisoformat(s["timestamp"]).timestamp() for s in states if s["name"] == "Running")


@pytest.mark.parametrize("fault", ["catalogue", "secret", "platform"])
def test_an_app_of_ones_own_is_checked_before_anything_starts(tmp_path: Path, fault: str) -> None:
    """One line says what is wrong; nothing is running afterwards."""
    folder = tmp_path / "mine"
    shutil.copytree(EXAMPLE, folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REINSTATE_"))}
    told = {
        f"ORDER_DESK_DB_{role}": "postgresql://a:b@127.0.0.1:1/x" for role in ("INSTALLER", "CAPTURER", "RECOVERER")
    }
    told |= {"ORDER_DESK_N8N_URL": "http://127.0.0.1:1", "ORDER_DESK_N8N_KEY": "key-of-nobody"}
    code, word = exits.UNREACHABLE, "127.0.0.1:1"
    if fault == "catalogue":
        (folder / "catalog.yaml").write_text("apps: []\n")
        code, word = exits.CATALOGUE, "apps"
    elif fault == "secret":
        del told["ORDER_DESK_N8N_KEY"]
        code, word = exits.CATALOGUE, "ORDER_DESK_N8N_KEY"
    ended = subprocess.run(
        [sys.executable, "-m", "console", "up", "--catalog", str(folder)],
        env={**environment, **told, "REINSTATE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    [line] = [text for text in ended.stderr.splitlines() if text.startswith("reinstate: ")]
    assert word in line
    assert "Traceback" not in ended.stderr
    assert service.left(tmp_path / "home") == []
