"""The report's page: readable by everybody, every decision on it, and claiming no more than the record shows."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from incidents.report.collect import collect
from incidents.report.render import render
from ledger import kinds
from tests.console.report_desk import HASH, Page, Teller


@pytest.fixture
def teller(tmp_path: Path) -> Iterator[Teller]:
    made = Teller(tmp_path)
    yield made
    made.ledger.close()


def page(teller: Teller) -> Page:
    return Page(render(collect(teller.ledger, teller.incident)))


def test_it_is_readable_without_eyes_or_a_mouse(teller: Teller) -> None:
    teller.happy()
    tags = page(teller).tags
    assert {a.get("scope") for t, a in tags if t == "th"} == {"col", "row"}
    assert sum(t == "caption" for t, _ in tags) == sum(t == "table" for t, _ in tags)
    regions = [a for _, a in tags if a.get("role") == "region"]
    assert all(a.get("aria-label") and a.get("tabindex") == "0" for a in regions)
    levels = [int(t[1]) for t, _ in tags if re.fullmatch(r"h[1-6]", t)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [a["id"] for _, a in tags if a.get("id")]
    assert len(ids) == len(set(ids))
    linked = {str(a["href"])[1:] for t, a in tags if t == "a"}
    assert linked | {a["aria-labelledby"] for t, a in tags if t == "section"} <= set(ids)


def light(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_can_be_told_apart_by_day_and_night(teller: Teller) -> None:
    teller.opened()
    text = render(collect(teller.ledger, teller.incident))
    themes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    ]
    assert len(themes) == 2
    for theme in themes:
        pairs = [(ink, ground) for ink in ("ink", "soft", "accent", "good", "bad", "warn") for ground in ("paper",)]
        pairs += [("ink", "panel"), ("soft", "panel"), *((t, f"{t}-bg") for t in ("good", "bad", "warn"))]
        for ink, ground in pairs:
            one, other = sorted((light(theme[ink]), light(theme[ground])))
            assert (other + 0.05) / (one + 0.05) >= 4.5, f"{ink} on {ground}"


def test_every_decision_and_notice_is_on_the_page(teller: Teller) -> None:
    teller.opened()
    teller.planned()
    expires = {"plan_hash": HASH, "flow_run": "f", "expires_at": "2026-11-21T13:00:00+00:00"}
    teller.say(kinds.RECOVERY_REQUESTED, "R1", flow_run="f", trigger="event", number=12, mode="both")
    teller.say(kinds.PLAN_SHOWN, "R1", **expires)
    assert "waits for a decision until 2026-11-21 13:00:00 UTC" in page(teller).text
    teller.say(kinds.PLAN_EXPIRED, "R1", **expires)
    teller.say(kinds.PLAN_REJECTED, "R1", plan_hash=HASH, by="ann", reason="too many rows")
    teller.say(kinds.RECOVERY_CONTINUED, "R1", flow_run="g", previous="f", why="its process died", attempt=1)
    notice = {"state": "contained", "audience": "business", "channel": "mail", "subject": "Orders are paused"}
    teller.say(kinds.NOTICE_SENT, **notice)
    teller.say(kinds.NOTICE_FAILED, **{**notice, "channel": "chat"}, why="no answer", attempt=1)
    text = page(teller).text
    for part in (
        "Plan expired by nobody in time",
        "Plan rejected by ann",
        "too many rows (identity unproven)",
        "business, by mail Orders are paused sent",
        "business, by chat Orders are paused not sent: no answer",
        "#12: started by event (f)",
        "continued: its process died (g)",
    ):
        assert re.sub(r"\s+", "", part) in re.sub(r"\s+", "", text), part
    assert "waits for a decision" not in text


def test_the_first_page_speaks_of_the_business(teller: Teller) -> None:
    rule = "orders: 2 changed rows break the rule 'r.a = (SELECT b (c))' (Customers pay twice.)"
    teller.opened(title=rule, impact="Customers pay twice.")
    found = page(teller)
    assert [a.get("id") for t, a in found.tags if t == "h1"] == [None]
    assert "Customers pay twice Noticed: orders: 2 changed rows break a rule of the catalogue The damage" in found.text


def test_what_remains_is_on_the_first_page(teller: Teller) -> None:
    teller.happy()
    text = page(teller).text
    first = text[: text.index("Where the time went")]
    assert "3 later writes may have used a damaged value: somebody has to look." in first
    assert "1 row left as they are because of a conflict: somebody has to decide." in first
    assert "Later legitimate work on 51 rows" in first
    assert "603 rows in 1 table: 2 removed, 601 corrected, 0 brought back" in first
    assert "12 of 12 events from outside" in first


def test_nothing_lost_is_claimed_only_when_the_record_shows_it(teller: Teller) -> None:
    teller.opened()
    teller.say(kinds.PLAN_MADE, "R1", hash=HASH, events=[{}] * 2, steps=[])
    teller.say(kinds.RECOVERY_STARTED, "R1", mode="both")
    teller.step("undo", "undo", "done", tables={})
    teller.step("replay", "replay", "done", events=2, replayed=1, already_there=0)
    teller.say(kinds.RECOVERY_FINISHED, "R1", state="resumed", objectives={"rpo_s": 0})
    assert "Data lost not measured" in page(teller).text
    teller.step("replay", "replay", "done", events=2, replayed=1, already_there=1)
    assert "Data lost none on record 0.0 s met" in page(teller).text
    teller.say(kinds.RECOVERY_FINISHED, "R1", state="resumed", left_out=["e-1"])
    teller.step(
        "compensate", "compensate", "done", done=2, not_needed=1, by_hand=["mail of intake, run 7: write to them"]
    )
    text = page(teller).text
    assert "Data lost not measured" in text
    assert "Outside the rows, by hand: mail of intake, run 7: write to them." in text
    assert "3 steps outside the rows taken back" in text
    assert "1 event failed in the good version too" in text
    assert "e-1" not in text
