"""The page about new adapters: its code runs, and its table names every capability."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from platforms.base import Capabilities
from platforms.limits import EXTRA, MISSING, PRESENT

PAGE = (Path(__file__).parents[2] / "docs" / "extend-platform.md").read_text()


def test_the_code_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    world: dict[str, object] = {}
    found = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) >= 5
    for block in found:
        exec(compile(block, "docs/extend-platform.md", "exec"), world)  # noqa: S102 - our own page
    said = capsys.readouterr().out
    assert MISSING["retriggers"] in said
    assert "the platform cannot run it again" in said


def test_the_page_names_every_capability() -> None:
    assert {field.name for field in fields(Capabilities)} == {*MISSING, *PRESENT, *EXTRA}
    assert {name for name in (*MISSING, *PRESENT) if f"`{name}`" not in PAGE} == set()
