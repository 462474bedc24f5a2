"""Discovery on every live platform: the draft of the story's shop says what a person wrote about it, and it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from catalog.load import load
from catalog.models import App
from console import exits
from tests.live.logic_stage import STAGES, WORKFLOWS, Stage
from tests.live.logic_story import APP, Story, staged

pytestmark = pytest.mark.live


def reinstate(story: Story, *words: str) -> tuple[int, dict[str, Any]]:
    """One command in the story's home; its exit code and what it said as JSON."""
    settings = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {
        "REINSTATE_HOME": str(story.home)
    }
    done = subprocess.run(
        [sys.executable, "-m", "console", *words, "--json"], env=settings, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def written(app: App) -> dict[str, set[str]]:
    """The tables that each workflow writes, by its name."""
    return {w.name: {".".join(each.split(".")[:2]) for each in w.writes} for w in app.workflows}


@pytest.mark.parametrize("stage", STAGES)
def test_the_draft_says_what_a_person_wrote(stage: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    on: Stage = request.getfixturevalue(stage)
    with staged(on, tmp_path) as story:
        where = ("--platform", on.kind, "--url", "env:STORY_URL", "--key", "env:STORY_KEY")
        source = ("--database", "env:STORY_INSTALLER", "--out", str(tmp_path / "draft"))
        code, told = reinstate(story, "discover", "--app", APP, *where, *source)
        assert code == exits.OK, told
        person, found = load(story.catalog).apps[0], load(tmp_path / "draft").apps[0]
        mine = {name: tables for name, tables in written(found).items() if name in WORKFLOWS.values()}
        assert mine == written(person)
        for workflow in (w for w in found.workflows if w.name in mine):
            theirs = next(w for w in person.workflows if w.name == workflow.name)
            assert workflow.trigger.kind == theirs.trigger.kind
        assert {t.name for t in person.tables} <= {t.name for t in found.tables}
        code, told = reinstate(story, "check", "--catalog", str(story.catalog))
        wrong = [f for f in told["findings"] if f["severity"] == "error"]
        assert not wrong, wrong
