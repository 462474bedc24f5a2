"""`reinstate wreck` breaks nothing it should not, tells what happens, and says the verdict it was given."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from console import exits
from console import wreck as story
from console.commands import wreck as command
from console.main import run
from console.wreck import Wreck, right, sentence
from drills import processes
from drills.errors import DrillError
from drills.scenarios import SCENARIOS
from estate import Estate
from incidents import record
from ledger import Ledger
from platforms.base import WorkflowInfo
from recovery.context import AppContext
from recovery.errors import Refused

GOOD: dict[str, Any] = {
    "wrong_fields_after": 0, "fields_compared": 1_526_003, "legit_events_lost": 0, "legit_edits_lost": 0,
    "legit_events": 2499, "events_without_effect": 0, "lost": [], "wrong_by_column": {},
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REINSTATE_HOME", str(tmp_path))
    monkeypatch.delenv("REINSTATE_CATALOG", raising=False)
    return tmp_path


def test_without_an_estate_it_says_what_to_start(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["wreck"]) == exits.UNREACHABLE
    assert "run `reinstate up` first" in capsys.readouterr().err
    assert list(home.iterdir()) == []


def test_an_app_of_ones_own_is_never_broken(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = home / "catalog.yaml"
    mine.write_text("apps: []")
    assert run(["wreck", "--catalog", str(mine)]) == exits.REFUSED
    assert "not the example's catalogue" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_an_unknown_scenario_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["wreck", "--scenario", "flood"]) == exits.USAGE
    assert "bad-version, schedule-ran-twice, bulk-delete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verdict", "code"), [(GOOD | {"right": True}, exits.OK), (GOOD | {"right": False}, exits.NOT_PROVEN)]
)
@pytest.mark.usefixtures("home")
def test_the_exit_code_is_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdict: dict[str, Any], code: int
) -> None:
    monkeypatch.setattr(command, "play", lambda *_, **__: verdict)
    assert run(["wreck", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == verdict


@pytest.mark.parametrize(
    "flaw", ["wrong_fields_after", "legit_events_lost", "legit_edits_lost", "events_without_effect"]
)
def test_a_single_flaw_is_not_right(flaw: str) -> None:
    assert right(GOOD)
    assert not right({**GOOD, flaw: 1})


def test_the_verdict_is_one_sentence() -> None:
    assert sentence(GOOD) == "0 of 1,526,003 fields wrong, 0 of 2,499 events lost"


class Stage:
    """A wreck without a platform or a driver: what they would say is put in by the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(story, "LOOK_S", 0.0)
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.active = True
        self.said: list[str] = []
        app = SimpleNamespace(key="order-desk")
        info = WorkflowInfo(id="1", name="Stock sync", active=True)
        context = SimpleNamespace(
            app=app,
            ledger=self.ledger,
            catalog_path=folder,
            infos=lambda: {
                "stock-sync": info if self.active else WorkflowInfo(id="1", name="Stock sync", active=False)
            },
        )
        self.wreck = Wreck(
            ctx=cast("AppContext", context),
            estate=Estate(folder),
            scenario=SCENARIOS["schedule-ran-twice"],
            say=self.said.append,
            patience_s=20.0,
        )
        self.driver = cast(
            "processes.LineProcess", SimpleNamespace(process=SimpleNamespace(poll=lambda: None), log=folder / "log")
        )

    def incident(self) -> record.Incident:
        return record.open_incident(
            self.ledger,
            "order-desk",
            severity="sev2",
            title="twice",
            impact="Stock is wrong.",
            workflows=["stock-sync"],
        )

    def hear(self, event: str, **content: Any) -> None:
        self.wreck.hear({"event": event, **content})


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_an_open_incident_or_a_paused_workflow_refuses(stage: Stage) -> None:
    stage.active = False
    with pytest.raises(Refused, match="stock-sync of order-desk is paused"):
        stage.wreck.refuse_unfit()
    found = stage.incident()
    with pytest.raises(Refused, match=f"incident {found.id} is open"):
        stage.wreck.refuse_unfit()


def test_damage_that_nobody_contains_ends_with_what_to_do(stage: Stage) -> None:
    stage.hear("exposure-over")
    with pytest.raises(DrillError, match="reinstate contain stock-sync"):
        stage.wreck.until_contained(stage.driver)


def test_a_pause_by_hand_is_no_incident(stage: Stage) -> None:
    stage.hear("paused", held=0)
    with pytest.raises(DrillError, match="somebody paused it by hand"):
        stage.wreck.until_contained(stage.driver)


def test_a_driver_that_dies_is_named_with_its_reason(stage: Stage) -> None:
    stage.hear("error", message="n8n is gone")
    cast("Any", stage.driver.process).poll = lambda: 1
    with pytest.raises(DrillError, match="its driver ended: n8n is gone"):
        stage.wreck.until_contained(stage.driver)


def test_it_waits_for_the_end_of_the_incident_and_for_its_events(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    found = stage.incident()
    stage.hear("paused", held=0)
    assert stage.wreck.until_contained(stage.driver).id == found.id
    rounds: list[Callable[[], object]] = [
        lambda: None,
        lambda: stage.hear("resumed", held=7),
        lambda: record.close(stage.ledger, found.id, reason="recovered"),
    ]
    monkeypatch.setattr(time, "sleep", lambda _: rounds.pop(0)())
    stage.wreck.until_recovered(stage.driver, found)
    assert rounds == []
    assert f"{found.id} is open" in stage.said
    assert f"{found.id} is resolved" in stage.said
    assert any("7 kept events follow" in line for line in stage.said)


def test_closed_but_still_paused_is_not_the_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "RESUME_S", -1.0)
    found = stage.incident()
    record.close(stage.ledger, found.id, reason="nothing to see", false_alarm=True)
    with pytest.raises(DrillError, match="takes no events; resume it"):
        stage.wreck.until_recovered(stage.driver, found)
