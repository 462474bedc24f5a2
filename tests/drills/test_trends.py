"""Trends: what got worse is named, noise and red drills teach nothing, and the page opens without a network."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from console import exits
from console.main import run
from drills import score_files, trend_charts, trend_page, trends
from drills.scorecard import Scorecard

MONDAY = datetime(2026, 9, 7, 5, tzinfo=UTC)
WOBBLE = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 1.5)


def card(number: int, **changes: Any) -> Scorecard:
    """One of a steady series of green drills."""
    wobble = WOBBLE[number % len(WOBBLE)]
    usual = Scorecard(
        drill=f"DRILL-20260907-{number:04d}",
        scenario="bad-version",
        title="A bad version of order intake",
        app="order-desk",
        at=(MONDAY + timedelta(days=7 * number)).isoformat(),
        passed=True,
        rto_s=300.0,
        rpo_s=0.0,
        contain_target_s=3.0,
        detect_s=0.8 + wobble / 20,
        contain_s=1.8 + wobble / 20,
        recover_s=30.0 + wobble,
        verify_s=1.0,
        total_s=38.0 + wobble,
        loss_s=0.0,
        precision=1.0,
        recall=1.0,
        replay_success=1.0,
    )
    return replace(usual, **changes)


def red(number: int, **changes: Any) -> Scorecard:
    return card(number, passed=False, reasons=("3 fields are <b>wrong</b>",), red=("fields-wrong",), **changes)


def worse(cards: list[Scorecard]) -> dict[str, str]:
    """Figure -> sentence."""
    found = trends.regressions(trends.frame(cards), {c.drill: c.reasons for c in cards})
    return {r.figure: r.text for r in found}


STEADY = [card(n) for n in range(8)]


def test_a_steady_series_has_nothing_that_got_worse() -> None:
    assert worse([*STEADY, card(8)]) == {}


@pytest.mark.parametrize(
    ("figure", "value", "said"),
    [
        ("detect_s", 4.0, "time to detect was 4.0 s"),
        ("contain_s", 2.9, "time to contain was 2.9 s"),
        ("recover_s", 55.0, "time to recover was 55.0 s in drill DRILL-20260907-0009, usual are 30.2 s (8 drills)"),
        ("total_s", 60.0, "time in all was 60.0 s"),
        ("loss_s", 1.0, "work lost was 1.0 s"),
        ("precision", 0.99, "precision was 99.0%, "),
        ("recall", 0.99, "recall was 99.0%"),
        ("replay_success", 0.5, "replay success was 50.0%"),
    ],
)
def test_what_is_worse_than_usual_is_named(figure: str, value: float, said: str) -> None:
    found = worse([*STEADY, card(9, **{figure: value})])
    assert list(found) == [figure]
    assert said.rstrip(", ") in found[figure]


@pytest.mark.parametrize(
    ("figure", "value"),
    [("detect_s", 1.7), ("contain_s", 2.2), ("recover_s", 37.0), ("recover_s", 12.0), ("detect_s", 0.1)],
    ids=["within-noise", "within-its-noise", "within-a-quarter", "better", "much-better"],
)
def test_noise_and_improvements_are_no_regression(figure: str, value: float) -> None:
    assert worse([*STEADY, card(9, **{figure: value})]) == {}


def test_red_drills_do_not_train() -> None:
    """Ten slow red drills must not make slowness usual."""
    slow = [red(n, recover_s=200.0) for n in range(8, 18)]
    assert "recover_s" in worse([*STEADY, *slow, card(18, recover_s=60.0)])
    green = [card(n, recover_s=200.0) for n in range(8, 40)]
    assert worse([*STEADY, *green, card(40, recover_s=201.0)]) == {}


def test_two_green_drills_teach_nothing_yet() -> None:
    assert worse([card(0), card(1), card(2, recover_s=500.0)]) == {}


def test_the_newest_drill_being_red_is_told_with_its_reasons() -> None:
    assert "after a green one: 3 fields" in worse([*STEADY, red(8)])[""]
    assert "not for the first time" in worse([*STEADY, red(8), red(9)])[""]
    assert "the first of its scenario" in worse([red(1)])[""]
    assert worse([*STEADY, red(8), card(9)]) == {}


def test_each_scenario_has_its_own_usual() -> None:
    other = [card(n, scenario="bulk-delete", drill=f"DRILL-20260908-{n + 100:04d}", recover_s=90.0) for n in range(5)]
    assert worse([*STEADY, *other]) == {}
    slow = card(9, scenario="bulk-delete", recover_s=150.0)
    assert worse([*STEADY, *other, slow])["recover_s"].startswith("bulk-delete: ")


def test_order_comes_from_the_time_not_from_the_files() -> None:
    table = trends.frame([STEADY[3], STEADY[0], STEADY[2]])
    assert list(table["drill"]) == [STEADY[n].drill for n in (0, 2, 3)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for one in (*STEADY, red(8, recover_s=None, total_s=None), card(9, recover_s=70.0)):
        score_files.keep(tmp_path, one)
    (tmp_path / "scorecards" / "DRILL-20260907-0077.json").write_text('{"drill": 1}', "utf-8")
    return tmp_path


def pictures(page: str) -> list[tuple[str, ElementTree.Element]]:
    """(text, picture) of each chart on the page."""
    found = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)">', page)
    assert len(found) == page.count("<img")
    return [(alt, ElementTree.fromstring(base64.b64decode(data))) for data, alt in found]  # noqa: S314 - our own


def test_the_page_opens_offline_and_is_escaped(home: Path) -> None:
    made = trend_page.publish(home)
    page = made.file.read_text("utf-8")
    assert made.file == home / "trends.html"
    assert made.file.stat().st_mode & 0o777 == 0o600
    assert not re.search(r"https?://|//cdn|<script|<link|url\(|@import", page)
    assert "<b>wrong</b>" not in page
    assert "3 fields are &lt;b&gt;wrong&lt;/b&gt;" in page
    assert made.drills == 10
    assert [r.figure for r in made.regressions] == ["recover_s"]
    assert "time to recover was 70.0 s" in page


def test_charts_have_texts_and_mark_red_drills_without_relying_on_colour(home: Path) -> None:
    drawn = pictures(trend_page.publish(home).file.read_text("utf-8"))
    assert len(drawn) == 2
    assert "Targets: contain within 3 s, in all within 300 s" in drawn[0][0]
    assert "precision newest 100.0%, median 100.0%" in drawn[1][0]
    for alt, picture in drawn:
        assert "Red drills, marked by an X: DRILL-20260907-0008." in alt
        assert picture.tag.endswith("svg")
        colours = set(re.findall(r"#[0-9a-f]{6}", ElementTree.tostring(picture, encoding="unicode").lower()))
        assert trend_charts.RED.lower() in colours
        assert not colours & {"#ff0000", "#008000", "#00ff00"}
    palette = [trend_charts.BLUE, trend_charts.ORANGE, trend_charts.GREEN, trend_charts.RED]
    assert len({luminance(c) for c in palette}) == len(palette)
    for pair in (*trend_charts.TIMES, trend_charts.SHARES):
        assert len({s.marker for s in pair}) == len({s.line for s in pair}) == len(pair)


def luminance(colour: str) -> float:
    """How bright a colour is: what is left of it for who sees no colours."""
    red_, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return round(0.2126 * red_ + 0.7152 * green + 0.0722 * blue)


def test_a_page_without_drills_says_what_to_do(tmp_path: Path) -> None:
    page = trend_page.publish(tmp_path).file.read_text("utf-8")
    assert "reinstate drill run" in page
    assert pictures(page) == []


def test_one_drill_makes_a_page_too(tmp_path: Path) -> None:
    score_files.keep(tmp_path, red(0, detect_s=None, rto_s=None, contain_target_s=None, recall=None))
    page = trend_page.publish(tmp_path).file.read_text("utf-8")
    assert "Targets: none" in pictures(page)[0][0]
    assert "detect never measured" in page


def test_the_commands_list_show_and_write_the_page(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REINSTATE_HOME", str(home))

    def said(*words: str, code: int = exits.OK) -> str:
        assert run(["drill", *words]) == code
        return capsys.readouterr().out

    assert [c["drill"] for c in json.loads(said("list", "--json"))][-1] == "DRILL-20260907-0009"
    assert "fields-wrong" in said("list")
    assert json.loads(said("show", "DRILL-20260907-0008", "--json"))["passed"] is False
    assert "NOT REACHED: 3 fields are <b>wrong</b>" in said("show", "DRILL-20260907-0008")
    assert json.loads(said("trends", "--out", str(home / "t.html"), "--json"))["drills"] == 10
    assert (home / "t.html").is_file()
    assert "time to recover" in said("trends")
    said("show", "DRILL-1", code=exits.NOTHING)
    said("trends", "--out", str(home / "no" / "t.html"), code=exits.USAGE)
    said("run", "--scenario", "none", code=exits.USAGE)
    assert json.loads(said("clear", "--json")) == {"cleared": []}
