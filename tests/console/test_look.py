"""`status` and `report`: what waits for a decision and how to decide, the playbook, and where the report lands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.models import App
from console import exits
from console.commands import look
from incidents import record
from incidents.record import Incident
from ledger import kinds
from recovery.standing import Standing
from tests.console.desk import APP, CONTAINED, OPENED, PROVEN, Desk
from tests.console.report_desk import HASH, Page, Teller
from tests.console.test_docs import parse

PLAYBOOK = {
    "key": "bad-version",
    "title": "A bad version",
    "scenario": "s",
    "trigger": "t",
    "impact": "i",
    "steps": ["Contain it.", "Recover it."],
    "verification": ["v"],
    "rollback": ["r"],
    "complete_when": ["c"],
    "terminate_when": ["t"],
    "owner": "Ada",
    "contacts": ["Grace: 101"],
}
SHOWN = {"plan_hash": HASH, "flow_run": "f-1", "expires_at": "2026-11-21T13:00:00+00:00"}


@pytest.fixture
def teller(tmp_path: Path) -> Iterator[Teller]:
    made = Teller(tmp_path)
    made.opened()
    yield made
    made.ledger.close()


def incident(teller: Teller) -> Incident:
    return record.read(teller.ledger, teller.incident)


def test_a_waiting_approval_comes_with_its_time_and_commands_that_parse(teller: Teller) -> None:
    teller.say(kinds.PLAN_SHOWN, "R1", **SHOWN)
    first, *commands = look.next_steps(incident(teller))
    assert first == f"waiting: plan {HASH[:12]} of R1 for approval until 2026-11-21 13:00:00 UTC"
    assert [c.split(":")[0].strip() for c in commands] == ["read it", "approve", "reject"]
    for line in commands[1:]:
        command = line.partition(":")[2].strip()
        parse(command)
        assert {HASH[:12], "R1"} < set(shlex.split(command))


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (kinds.PLAN_REJECTED, {"by": "ann", "reason": "too many"}, "by ann: too many; the app stays paused"),
        (kinds.PLAN_EXPIRED, {}, "nobody decided"),
    ],
)
def test_after_a_no_or_nothing_it_says_what_to_do(teller: Teller, kind: str, body: dict[str, str], said: str) -> None:
    teller.say(kinds.PLAN_SHOWN, "R1", **SHOWN)
    teller.say(kind, "R1", plan_hash=HASH, **body)
    lines = list(look.next_steps(incident(teller)))
    assert said in lines[0]
    assert "`reinstate recover`" in lines[1]


def test_the_playbook_is_the_recorded_one_else_the_first_of_the_catalogue(teller: Teller) -> None:
    app = App.model_validate({**APP, "playbooks": [PLAYBOOK]})
    plain = incident(teller)
    assert look.handled_by(app, plain)["key"] == "bad-version"
    assert look.handled_by(App.model_validate(APP), plain) == {}
    assert list(look.about({})) == []
    lines = list(look.about(look.handled_by(app, plain)))
    assert lines == ["playbook: A bad version; owner Ada", "  1. Contain it.", "  2. Recover it.", "  call Grace: 101"]


def test_the_report_lands_in_the_home_or_where_it_is_wanted(desk: Desk, tmp_path: Path) -> None:
    desk.tell(OPENED, CONTAINED, PROVEN)
    assert desk.run("report") == exits.OK
    page = desk.home / "reports" / "INC-1.html"
    assert "Wrong totals" in Page(page.read_text()).text
    assert page.stat().st_mode & 0o777 == 0o600
    assert desk.run("report", "--markdown") == exits.OK
    assert (desk.home / "reports" / "INC-1.md").read_text().startswith("# Wrong totals\n")
    for option in ("--out", "--output", "-o"):
        wanted = tmp_path / "wanted.html"
        assert desk.run("report", "--incident", "INC-1", option, str(wanted)) == exits.OK
        assert wanted.read_text().startswith("<!DOCTYPE html>")
        wanted.unlink()


def test_a_report_into_nowhere_is_refused(desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk.tell(OPENED)
    assert desk.run("report", "--out", str(tmp_path / "none" / "r.html")) == exits.USAGE
    assert "there is no folder" in capsys.readouterr().err


def test_status_shows_what_is_open_and_waits(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = Standing(app="desk", workflows=(), incident="INC-1", point=None, lines=("journal: 2 tables",))
    monkeypatch.setattr("recovery.standing.standing", lambda _ctx: calm)
    desk.tell(OPENED, CONTAINED, PROVEN, (kinds.PLAN_SHOWN, SHOWN))
    assert desk.run("status") == exits.REFUSED
    said = capsys.readouterr().out
    assert "journal: 2 tables" in said
    assert f"waiting: plan {HASH[:12]}" in said
    assert desk.run("status", "--json") == exits.REFUSED
    document = json.loads(capsys.readouterr().out)
    assert document["incident"] == "INC-1"
    assert document["awaiting"]["plan_hash"] == HASH
    assert document["playbook"] == {}
