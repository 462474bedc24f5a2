"""What each audience reads: five answers in every notice, in its own words, and nothing it must not see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incidents.notices import compose, facts, states
from incidents.notices import dispatch as dispatching
from incidents.notices.dispatch import Notice
from incidents.notices.facts import duration, latest, moment
from incidents.notices.states import State
from ledger import kinds
from tests.incidents.notice_desk import AUDIENCES, INCIDENT, PATHS, Desk, Told, channel, entries, make_app

CHANNELS = tuple(channel(a, a) for a in AUDIENCES)
HEADINGS = {
    "responders": (
        "What happened",
        "What is the impact",
        "What is being done, and the next command",
        "Who is responsible",
        "What comes next",
    ),
    "business": (
        "What happened",
        "What is the impact",
        "What is being done",
        "Who is responsible",
        "What comes next",
    ),
    "customers": (
        "What happened",
        "What it means for you",
        "What is being done",
        "Who is responsible",
        "What comes next",
    ),
}
JARGON = re.compile(
    r"\b(workflows?|rows?|tables?|schema|hash|ledger|fenced?|journal|replay\w*|undo\w*|catalogue|suite|sql|hook|"
    r"version|commit|rollback|shop\.\w+|intake|R1|wf_\w+|[0-9a-f]{8,})\b",
    re.IGNORECASE,
)


class Closed(HTMLParser):
    """Every element of a page that needs it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002 - the parser's signature
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@dataclass(frozen=True, kw_only=True)
class Read:
    """What one audience reads."""

    state: State
    subject: str
    text: str
    html: str
    next_by: datetime | None


def notices(*told: Told, later_s: float = 0.0, **app: Any) -> dict[str, Read]:
    """What each audience reads of the newest state after ``told``, which came one second after the other."""
    story = entries(*told)
    changed = states.changes(story)[INCIDENT]
    now = story[-1].at + timedelta(seconds=later_s)
    found = facts.gather(
        make_app(**app),
        story,
        changed,
        changed[-1],
        update=0,
        now=now,
        next_by=now + timedelta(seconds=900),
        addresses={"Prefect": "http://127.0.0.1:4200"},
    )
    read = {}
    for audience in AUDIENCES:
        said = compose.compose(audience, found)
        read[audience] = Read(
            state=found.state, subject=said.subject, text=said.text, html=said.html, next_by=found.next_by
        )
    return read


def sections(notice: Notice | Read) -> dict[str, list[str]]:
    parts = [p.splitlines() for p in notice.text.strip().split("\n\n")]
    return {p[0]: p[1:] for p in parts[1:-1]}


@pytest.mark.parametrize("state", State)
def test_every_notice_answers_five_questions(state: State) -> None:
    found = notices(*PATHS[state])
    for audience in AUDIENCES:
        notice = found[audience]
        assert notice.state is state
        answers = sections(notice)
        for heading in HEADINGS[audience]:
            assert answers[heading], f"{audience}: nothing under {heading}"
        assert "{" not in notice.text
        assert "None" not in notice.text
        assert "\n\n\n" not in notice.text
        page = Closed()
        page.feed(notice.html)
        assert page.open == []
        for line in notice.text.split():
            assert line in notice.html or line == "-" or not line.isalnum()
        expected = "last" in " ".join(answers["What comes next"])
        assert expected is state.final
        assert (notice.next_by is None) is state.final


@pytest.mark.parametrize("state", [State.WAITING, State.CONTAINED])
def test_an_interim_notice_tells_every_audience_the_present_state(tmp_path: Path, state: State) -> None:
    desk = Desk(app=make_app(*CHANNELS), path=tmp_path / "l")
    desk.tell(*PATHS[state])
    desk.dispatch()
    desk.later(900)
    found = {n.audience: n for n in dispatching.pending(desk.ledger, desk.app, desk.now)}
    desk.ledger.close()
    assert {(n.state, n.update) for n in found.values()} == {(state.value, 1)}
    for audience, notice in found.items():
        assert all(sections(notice)[h] for h in HEADINGS[audience])
    if state is State.WAITING:
        assert "waits for its approval, until 00:50 UTC on 22 November 2026." in found["business"].text


def test_responders_read_what_they_need_to_act() -> None:
    text = notices(*PATHS[State.WAITING])["responders"].text
    for needed in (
        "[sev1] Order desk: waiting for approval",
        "12 rows of shop.orders",
        "first bad write at 23:50:10 UTC",
        "Cause: version f00df00df00d of Order intake; 2 bad runs.",
        "Paused, proven: intake, pay.",
        "Plan abababababab waits for your approval until 00:50 UTC on 22 November 2026.",
        "reinstate plan --app desk",
        "A bad version writes wrong data (bad-version)",
        "\n1. Look at the evidence",
        "\n3. Read the report",
        "Ada Byron. Deputy: Grace Hopper.",
        "Desk: +49 30 5550 101",
        "Expected end: 23:56 UTC on 21 November 2026, the recovery time objective.",
        "Incident INC-20261121-0001, recovery R1, flow run run-77.",
        "Prefect: http://127.0.0.1:4200",
        "Approve or reject: http://127.0.0.1:4200/runs/flow-run/run-77",
    ):
        assert needed in text
    assert "Go home" not in text


def test_responders_of_a_held_recovery_read_why_and_how_to_go_on() -> None:
    stop = {"reason": "a suite failed", "next": "reinstate recover --continue"}
    text = notices(*PATHS[State.RECOVERING], (kinds.RECOVERY_STOPPED, stop))["responders"].text
    assert "The recovery stopped: a suite failed." in text
    assert "- reinstate recover --continue" in text
    said = {"plan_hash": "ab" * 32, "by": "Linus", "reason": "too many rows"}
    found = notices(*PATHS[State.WAITING], (kinds.PLAN_REJECTED, said))
    assert "The plan was rejected by Linus: too many rows." in found["responders"].text
    assert "The proposed repair was declined." in found["business"].text
    assert "Linus" not in found["business"].text + found["customers"].text


def test_business_reads_effect_duration_reason_and_what_was_rolled_back() -> None:
    text = notices(*PATHS[State.RECOVERED])["business"].text
    for needed in (
        "Order desk works again.",
        "Wrong results were written from 23:50 UTC on 21 November 2026 on.",
        "The reason: the automated step “Order intake” had been changed",
        "Customers are charged the wrong amount.",
        "It lasted 6 seconds, until 23:50 UTC on 21 November 2026.",
        "Rolled back: 815 entries were put right; other work was kept.",
        "Still affected: 1 case that a person has to look at.",
    ):
        assert needed in text


def test_later_work_in_doubt_is_not_called_wrong() -> None:
    made = (kinds.PLAN_MADE, {"suspects": 57})
    told = [*PATHS[State.RECOVERED][:3], made, *PATHS[State.RECOVERED][3:]]
    found = notices(*told)
    assert "In doubt: 57 later entries may rest on a wrong value" in found["business"].text
    assert "Still affected: 1 case" in found["business"].text
    assert "later writes in doubt: 57." in found["responders"].text
    assert "57" not in found["customers"].text


def test_nobody_is_told_that_things_were_put_right_when_they_were_not() -> None:
    closed = (kinds.INCIDENT_CLOSED, {"resolution": "resolved", "by": "ada", "reason": "override"})
    found = notices(*PATHS[State.CONTAINED], closed)
    assert "Nothing was rolled back" in found["business"].text
    assert "put right" not in found["customers"].text
    assert "Nothing is known to be affected" not in found["business"].text


def test_only_what_was_verified_is_called_right() -> None:
    passed, overridden = (kinds.VERIFY_PASSED, {}), (kinds.OVERRIDE, {"by": "ada", "reason": "r"})
    words = "The result was checked and found right."
    told = PATHS[State.RECOVERED]
    assert words not in notices(*told)["business"].text
    assert words in notices(*told[:-1], passed, told[-1])["business"].text
    assert words not in notices(*told[:-1], passed, overridden, told[-1])["business"].text
    assert words not in notices(*told[:-1], passed, (kinds.VERIFY_FAILED, {}), told[-1])["business"].text
    assert "It was not verified" in notices(*told)["responders"].text


def test_an_unproven_pause_is_called_that() -> None:
    found = notices(*PATHS[State.NOT_CONTAINED])
    assert "To be paused, NOT proven: intake, pay." in found["responders"].text
    assert "reinstate contain intake pay --app desk" in found["responders"].text
    assert "run 7 of intake is running" in found["responders"].text
    assert "more wrong results may be written" in found["business"].text
    assert "partly paused" not in found["customers"].text


def test_what_nobody_pauses_by_itself_is_said() -> None:
    found = notices(*PATHS[State.NOTICED], autonomy={"contain": False})
    assert "Nothing is paused by itself" in found["responders"].text
    assert "Nothing is paused, so more wrong results may be written." in found["business"].text


def test_a_goal_that_has_passed_is_not_promised_again() -> None:
    found = notices(*PATHS[State.HELD], later_s=600)
    assert "that has passed. A new time cannot be given yet." in found["business"].text
    assert "We cannot say yet when Order desk will work as usual." in found["customers"].text
    assert "We aim" not in found["customers"].text


@pytest.mark.parametrize("state", State)
def test_business_and_customers_read_no_jargon(state: State) -> None:
    found = notices(*PATHS[state])
    for audience in ("business", "customers"):
        body = re.sub(r"Order intake|INC-[\d-]+", "", found[audience].text)
        assert not JARGON.search(body), JARGON.search(body)


@pytest.mark.parametrize("state", State)
def test_customers_read_no_apology_and_what_to_do(state: State) -> None:
    notice = notices(*PATHS[state])["customers"]
    assert not re.search(r"sorry|apolog|regret|unfortunate|inconvenience", notice.text, re.IGNORECASE)
    assert sections(notice)["What you can do"]
    assert "sev" not in notice.subject


WORD = st.from_regex(r"\A[a-z]{3,7}q[a-z]{3,7}\Z")


@settings(deadline=None)
@given(state=st.sampled_from(State), words=st.lists(WORD, min_size=12, max_size=12, unique=True))
def test_customers_read_no_name_from_inside(state: State, words: list[str]) -> None:
    """Names of workflows, tables, versions, people and every text of the record stay inside, whatever they are."""
    names = iter(words)
    owned = {"owner": next(names), "deputy": next(names)}
    key, shown_name, table, version, person = (next(names) for _ in range(5))
    rest = list(names)
    app: dict[str, Any] = {
        "workflows": [
            {"key": key, "name": shown_name, "role": f"wf_{key}", "trigger": {"kind": "webhook"}, **owned},
            {"key": "other", "name": "Other", "role": "wf_other", "trigger": {"kind": "webhook"}, **owned},
        ],
        "tables": [{"name": f"shop.{table}"}],
        **owned,
    }

    def inside(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: inside(v) for k, v in value.items()}
        if isinstance(value, list):
            return [inside(v) for v in value]
        swaps = {"intake": key, "shop.orders": f"shop.{table}", "ada": person, "f00d" * 16: version}
        return swaps.get(value, value) if isinstance(value, str) else value

    texts = {"title", "impact", "reason", "why", "message"}
    told = []
    for kind, body in PATHS[state]:
        changed = inside(body)
        for name in texts & set(changed):
            changed[name] = f"{rest[0]} {table} {person}"
        for finding in changed.get("findings", []):
            if isinstance(finding, dict):
                finding["message"] = f"{rest[1]} {table}"
        told.append((kind, changed))
    notice = notices(*told, **app)["customers"]
    for word in words:
        assert word not in notice.subject + notice.text + notice.html


@pytest.mark.parametrize("state", State)
def test_values_of_rows_and_secrets_are_in_no_notice(state: State) -> None:
    leak = "Key (email)=(carol@shop.example) already exists, dsn postgresql://bob:s3cr3t-pw@db/x"
    told = [
        (kind, {**body, **{k: leak for k in ("reason", "why", "title", "impact", "by") if k in body or k == "reason"}})
        for kind, body in PATHS[state]
    ]
    told[0][1]["findings"] = [{"detector": "d", "message": leak}]
    for notice in notices(*told).values():
        for secret in ("carol", "s3cr3t-pw"):
            assert secret not in notice.subject + notice.text + notice.html


def test_html_is_escaped_and_text_is_not() -> None:
    found = notices(*PATHS[State.CONTAINED], title="Fish & <script>alert(1)</script>")
    for notice in found.values():
        assert "Fish & <script>alert(1)</script>" in notice.text
        assert "<script" not in notice.html
        assert "Fish &amp; &lt;script&gt;alert(1)&lt;/script&gt;" in notice.html


def test_subjects_are_short_and_alike() -> None:
    found = notices(*PATHS[State.CONTAINED])
    assert found["responders"].subject == "[sev1] Order desk: contained - INC-20261121-0001"
    assert found["business"].subject == found["responders"].subject
    assert found["customers"].subject == "Order desk: partly paused - INC-20261121-0001"
    broken = notices(*PATHS[State.CONTAINED], title="Order\r\nBcc: all@example.org")
    assert "\n" not in broken["responders"].subject


def test_a_notice_that_comes_late_tells_of_its_own_time(tmp_path: Path) -> None:
    desk = Desk(app=make_app(CHANNELS[0]), path=tmp_path / "l")
    desk.tell(*PATHS[State.RECOVERED])
    found = dispatching.pending(desk.ledger, desk.app, desk.now)
    desk.ledger.close()
    assert [n.state for n in found] == ["noticed", "contained", "recovering", "recovered"]
    assert "Cause" not in found[0].text
    assert "Cause" in found[3].text
    assert "Rows undone" in found[3].text


def test_the_playbook_on_record_wins_over_the_first() -> None:
    first = make_app().playbooks[0].model_dump()
    both = [first, {**first, "key": "lost-table", "title": "A table is gone"}]
    kind, body = PATHS[State.NOTICED][0]
    text = notices((kind, {**body, "playbook": {"key": "lost-table"}}), playbooks=both)["responders"].text
    assert "A table is gone (lost-table)" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "less than a second"),
        (1, "1 second"),
        (42.4, "42 seconds"),
        (185, "3 minutes 5 seconds"),
        (3600, "1 hour"),
        (7800, "2 hours 10 minutes"),
        (273600, "3 days 4 hours"),
        (-5, "less than a second"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_times_in_words_name_their_zone() -> None:
    at = datetime(2026, 11, 21, 23, 59, 1, tzinfo=UTC)
    assert moment(at) == "23:59 UTC on 21 November 2026"
    assert latest(at) == "00:00 UTC on 22 November 2026"
    assert latest(at - timedelta(seconds=1)) == moment(at)
