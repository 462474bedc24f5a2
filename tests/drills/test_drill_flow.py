"""The flow `drill`: its states mean something, and what it offers is what there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from prefect.client.schemas.objects import StateType
from prefect.logging import disable_run_logger

from drills import rehearsal, trend_page
from drills.scenarios import SCENARIOS
from drills.scorecard import Scorecard
from flows import drill as module

GREEN = Scorecard(
    drill="DRILL-20261121-0001",
    scenario="bulk-delete",
    title="A clean-up with a wrong filter",
    app="order_desk",
    at="2026-11-21T12:00:00+00:00",
    passed=True,
)
RED = replace(GREEN, passed=False, reasons=("7 fields are wrong", "it was slow"), red=("fields-wrong", "rto"))


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the flow shows on the server."""
    shown: dict[str, Any] = {}

    def bar(percent: float, *, key: str, **_: Any) -> str:
        shown[key] = percent
        return key

    monkeypatch.setenv("REINSTATE_HOME", str(tmp_path))
    monkeypatch.delenv("REINSTATE_CATALOG", raising=False)
    monkeypatch.setattr(module, "create_progress_artifact", bar)
    monkeypatch.setattr(module, "update_progress_artifact", lambda key, percent: shown.update({key: percent}))
    monkeypatch.setattr(module, "create_markdown_artifact", lambda text, *, key, **_: shown.update({key: text}))
    return shown


def playing(card: Scorecard, asked: dict[str, Any]) -> Callable[..., Scorecard]:
    def play(scenario: str, **given: Any) -> Scorecard:
        asked.update(given, scenario=scenario)
        return card

    return play


@pytest.mark.parametrize("card", [GREEN, RED], ids=["green", "red"])
def test_the_final_state_says_how_the_drill_ended(
    card: Scorecard, artifacts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(rehearsal, "play", playing(card, asked))
    with disable_run_logger():
        state = module.drill.fn("order-desk", "bulk-delete")
    assert (asked["scenario"], asked["app"], asked["home"]) == ("bulk-delete", "order-desk", tmp_path)
    expected = ("Passed", StateType.COMPLETED) if card.passed else ("Failed drill", StateType.FAILED)
    assert (state.name, state.type) == expected
    assert "DRILL-20261121-0001" in state.message
    assert all(reason in state.message for reason in card.reasons)
    assert artifacts["scorecard-order-desk"].startswith("# Passed" if card.passed else "# Failed")
    assert artifacts["drill-order-desk"] == 100.0
    assert (tmp_path / trend_page.FILE).is_file()


def test_an_app_that_cannot_be_found_is_refused_before_anything_starts(
    artifacts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "play", playing(GREEN, {}))
    with disable_run_logger(), pytest.raises(Exception, match="shop is in no catalogue"):
        module.drill.fn("shop")
    assert artifacts == {}


def test_the_form_offers_every_scenario() -> None:
    assert get_args(module.Scenario) == tuple(SCENARIOS)
    offered = module.drill.parameters.properties["scenario"]
    assert offered["enum"] == list(SCENARIOS)
    assert offered["default"] == "bad-version"


def test_a_server_that_takes_no_artifact_does_not_stop_a_drill(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(module, "create_progress_artifact", refuses)
    module.progress("order-desk")(50.0)


def test_keys_of_artifacts_are_such_as_the_server_takes() -> None:
    assert module.key("scorecard", "order_desk") == "scorecard-order-desk"
