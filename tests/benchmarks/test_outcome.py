"""What a benchmark found is told as it is: which figure counts, whether the target holds, what stays in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.outcome import Machine, Outcome, document, table, write
from benchmarks.service import BenchmarkError, until
from benchmarks.stage import Stage

QUIET = Machine(processors=2, load=0.4)


@pytest.mark.parametrize(
    ("outcome", "ours", "ratio", "holds"),
    [
        (Outcome(id="a", target=3.0, seconds=(1.0, 2.0, 9.0)), 2.0, None, True),
        (Outcome(id="a", target=3.0, seconds=(1.0, 2.0, 9.0), figure="worst"), 9.0, None, False),
        (Outcome(id="a", target=0.5, seconds=(1.0,), rival="pg", rival_seconds=(4.0, 2.0, 1.0)), 1.0, 0.5, True),
        (Outcome(id="a", target=0.4, seconds=(1.0,), rival="pg", rival_seconds=(2.0,)), 1.0, 0.5, False),
        (Outcome(id="a", target=9.0, seconds=(1.0,), rival="pg"), 1.0, None, False),
    ],
)
def test_the_figure_that_counts_is_held_against_the_target(
    outcome: Outcome, ours: float, ratio: float | None, holds: bool
) -> None:
    assert (outcome.ours_s, outcome.ratio, outcome.holds) == (ours, ratio, holds)
    found = outcome.document()
    assert set(found) >= {"id", "rival", "ratio", "target", "ours_s", "rival_s", "runs"}
    assert (found["ours_s"], found["ratio"], found["runs"]) == (ours, ratio, len(outcome.seconds))


def test_the_table_says_what_is_missing_and_what_was_missed() -> None:
    lines = table(
        [
            Outcome(id="fast", target=3.0, seconds=(1.0,), how="from here to there"),
            Outcome(id="slow", target=0.4, seconds=(1.0,), rival="pg"),
        ],
        QUIET,
    ).splitlines()
    assert lines[1].split() == ["fast", "1.00", "s", "(median)", "-", "-", "at", "most", "3", "s", "-", "1", "holds"]
    assert lines[2].endswith("MISSED")
    assert "missing" in lines[2]
    assert lines[-2] == "fast: from here to there"
    assert lines[-1] == "measured on 2 processors, load 0.4 before the start"


def test_a_busy_machine_is_said_to_be_busy() -> None:
    assert "busy with other work" in table([], Machine(processors=2, load=9.0))


def test_results_of_what_did_not_run_stay(tmp_path: Path) -> None:
    file = tmp_path / "results" / "results.json"
    write(file, document(7, [Outcome(id=i, target=3.0, seconds=(1.0,)) for i in ("a", "b")], QUIET))
    write(file, document(8, [Outcome(id="b", target=3.0, seconds=(2.0,))], QUIET))
    found = json.loads(file.read_text())
    assert found["rows"] == 8
    assert [(r["id"], r["ours_s"]) for r in found["results"]] == [("a", 1.0), ("b", 2.0)]


def test_the_command_prints_writes_and_says_with_its_code_what_was_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(stage: Stage) -> tuple[Outcome, ...]:
        return (Outcome(id="a", target=3.0, seconds=(float(stage.laps),)),)

    monkeypatch.setattr(command, "ALL", {"a": measured})
    out = tmp_path / "results.json"
    assert command.main(["--rounds", "2", "--json", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert command.main(["--rounds", "4", "--only", "a", "--out", str(out)]) == command.MISSED

    def broken(stage: Stage) -> tuple[Outcome, ...]:
        raise BenchmarkError("traffic: nothing was taken")

    monkeypatch.setattr(command, "ALL", {"a": broken})
    capsys.readouterr()
    assert command.main(["--out", str(out)]) == command.MISSED
    assert "traffic: nothing was taken" in capsys.readouterr().err
    assert json.loads(out.read_text())["results"][0]["ours_s"] == 4.0


def test_waiting_ends() -> None:
    with pytest.raises(BenchmarkError, match="an event: not within 0 s"):
        until(lambda: None, timeout_s=0.03, what="an event")
    assert until(lambda: 5, timeout_s=1.0, what="an event") == 5
