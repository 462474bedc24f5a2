"""`reinstate coverage` reads the catalogue alone, and fails only when it is asked for more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from console import exits
from console.main import run

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "order-desk")


def test_the_share_and_the_rest_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["coverage", "-c", EXAMPLE]) == exits.OK
    told = capsys.readouterr().out
    assert "steps are taken back without a person" in told
    assert "payment: no canary proves it after a recovery" in told


def test_the_same_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["coverage", "-c", EXAMPLE, "--json"]) == exits.OK
    [found] = json.loads(capsys.readouterr().out)
    assert found["of"] == "order-desk"
    assert sum(w["steps"] for w in found["workflows"]) == found["steps"]
    assert 0 < found["covered"] <= 1


def test_ci_may_ask_for_a_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(EXAMPLE) / "catalog.yaml").read_text().replace("inverse: reversible", "inverse: irreversible", 1)
    (tmp_path / "catalog.yaml").write_text(text)
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "order.json").write_text("{}")
    assert run(["coverage", "-c", str(tmp_path), "--least", "0.5"]) == exits.OK
    assert run(["coverage", "-c", str(tmp_path), "--least", "0.99"]) == exits.REFUSED
    told = capsys.readouterr()
    assert "99.0% is asked for" in told.err
    assert "cannot be taken back; by hand: nobody wrote down how" in told.out
