"""What was shown is what is approved and run; a no changes nothing; a watcher stops when it is told to."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from console import exits
from console.commands import recover
from console.main import run
from tests.conftest import AppDb
from tests.console.desk import CONTAINED, DIAGNOSED, OPENED, PROVEN, Desk, answering
from tests.snapshots import point_desk

pytestmark = pytest.mark.postgres


@pytest.fixture
def contained(live_desk: Desk, app_db: AppDb, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """An incident that can be recovered in mode logic, with a Prefect server that is said to be there."""
    point, _ = point_desk.take(app_db, live_desk.home / "store")
    kind, body = DIAGNOSED
    live_desk.tell(OPENED, CONTAINED, PROVEN, (kind, {**body, "point_id": point.id}))
    monkeypatch.setattr("recovery.context.open_platform", answering)
    monkeypatch.setattr(recover, "prefect_address", lambda: "")
    return live_desk


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the flow was started with."""
    started: list[dict[str, Any]] = []

    def note(*, say: Any, **parameters: Any) -> dict[str, Any]:
        started.append(parameters)
        return {"recovery": parameters["recovery"], "state": "logic-restored"}

    monkeypatch.setattr(recover, "run_recovery", note)
    return started


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def kinds(desk: Desk) -> list[str]:
    return [e.kind for e in desk.entries()]


def test_a_no_changes_nothing(
    contained: Desk,
    flow: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contained.entries()
    answer(monkeypatch, "n\n")
    assert contained.run("recover", "--mode", "logic") == exits.USAGE
    assert capsys.readouterr().err == "reinstate: stopped; nothing was changed\n"
    assert contained.entries() == before
    assert flow == []


def test_what_was_shown_is_what_is_approved_and_run(
    contained: Desk,
    flow: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer(monkeypatch, "y\n")
    assert contained.run("recover", "--mode", "logic", "--by", "ada", "--reason", "checked") == exits.OK
    shown = capsys.readouterr().out
    [plan] = [e for e in contained.entries() if e.kind == "plan.made"]
    [approved] = [e for e in contained.entries() if e.kind == "plan.approved"]
    assert f"plan {plan.body['hash'][:12]}" in shown
    assert approved.body["plan_hash"] == plan.body["hash"]
    assert (approved.body["by"], approved.body["reason"]) == ("ada", "checked")
    assert not approved.body["identity_proven"]
    [given] = flow
    assert given["recovery"] == plan.recovery
    assert "approved_by" not in given


def test_yes_asks_nothing_and_speaks_json(
    contained: Desk, flow: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert contained.run("recover", "--mode", "logic", "--yes", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["state"] == "logic-restored"
    assert len(flow) == 1


@pytest.mark.usefixtures("flow")
def test_a_dry_run_records_nothing(contained: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    before = contained.entries()
    assert contained.run("recover", "--mode", "logic", "--dry-run", "--json") == exits.OK
    assert len(json.loads(capsys.readouterr().out)["hash"]) == 64
    assert contained.entries() == before


def test_there_is_nothing_to_continue(
    contained: Desk, flow: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert contained.run("recover", "--continue") == exits.NOTHING
    assert "no interrupted recovery" in capsys.readouterr().err
    assert flow == []


@pytest.mark.usefixtures("flow")
def test_a_replay_comes_after_the_undo(contained: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert contained.run("recover", "--mode", "logic", "--yes") == exits.OK
    recovery = next(e.recovery for e in contained.entries() if e.kind == "plan.made")
    capsys.readouterr()
    assert contained.run("replay", str(recovery)) == exits.NOTHING
    assert "replays nothing" in capsys.readouterr().err
    assert "step.intent" not in kinds(contained)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watcher_stops_when_it_is_told_to(live_desk: Desk, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "console", "watch", "--json", "--catalog", str(live_desk.catalog)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as watcher:
        assert watcher.stdout is not None
        assert json.loads(watcher.stdout.readline()) == {"event": "watching", "app": "desk"}
        watcher.send_signal(number)
        _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == exits.OK
    assert "Traceback" not in said


def test_the_journal_by_commands(live_desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert live_desk.run("journal", "install", "--dry-run") == exits.OK
    assert "nothing would be run" in capsys.readouterr().out
    assert live_desk.run("journal", "status", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["installed"] is True
    assert live_desk.run("journal", "prune", "--json") == exits.OK
    assert "pruned" in json.loads(capsys.readouterr().out)
    assert live_desk.run("journal", "remove", "--yes", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["removed"]
    assert live_desk.run("journal", "status") == exits.REFUSED
    assert "reinstate journal install" in capsys.readouterr().out


def test_no_points_yet(live_desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert live_desk.run("points") == exits.OK
    assert "reinstate protect" in capsys.readouterr().out
    assert live_desk.run("points", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out) == []


def test_roles_are_printed_without_passwords(live_desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert live_desk.run("roles", "--json") == exits.OK
    text = json.loads(capsys.readouterr().out)["sql"]
    assert "capturer" in text
    assert "test-capturer" not in text


def test_two_apps_need_a_name(live_desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    content = yaml.safe_load(live_desk.catalog.read_text())
    content["apps"].append({**content["apps"][0], "key": "other"})
    live_desk.catalog.write_text(yaml.safe_dump(content))
    assert run(["points", "-c", str(live_desk.catalog)]) == exits.CATALOGUE
    line = capsys.readouterr().err
    assert "desk" in line
    assert "other" in line
