"""Each state change once per channel, whoever sends and whatever dies; promises kept; old news untold."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from catalog.errors import SecretMissing
from catalog.models import App, Channel
from incidents.notices import dispatch as dispatching
from incidents.notices import outbox
from incidents.notices.compose import Message
from incidents.notices.states import State
from ledger import Ledger, kinds
from tests.incidents.notice_desk import (
    ALARM,
    CAUSE,
    FINISHED,
    HASH,
    OPENED,
    PATHS,
    PROVEN,
    RELAPSE,
    STARTED,
    Desk,
    channel,
    make_app,
)

ROOT = Path(__file__).parents[2]
MAIL, CHAT = channel("mail"), channel("chat", "business")
WORSE = (kinds.INCIDENT_JOINED, {"severity": "sev1", "title": "worse"})


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(app=make_app(MAIL), path=tmp_path / "ledger.sqlite")
    yield made
    made.ledger.close()


def failures(desk: Desk) -> list[tuple[str, int, bool]]:
    return [
        (e.body["state"], e.body["attempt"], e.body["gave_up"])
        for e in desk.ledger.entries(kinds=[kinds.NOTICE_FAILED])
    ]


def with_channels(desk: Desk, *channels: Channel) -> App:
    desk.app = make_app(*channels)
    return desk.app


def test_every_change_is_told_once_in_order(desk: Desk) -> None:
    told = []
    for step in (OPENED, PROVEN, PROVEN, STARTED, RELAPSE, PROVEN, STARTED, FINISHED):
        desk.tell(step)
        told += [s.state for s in desk.dispatch() + desk.dispatch()]
    desk.close()
    assert desk.dispatch() == []
    assert told == desk.states()
    assert told == ["noticed", "contained", "recovering", "relapse", "contained", "recovering", "recovered"]
    assert len(desk.sent) == len(told)


def test_what_piled_up_is_told_in_one_go(desk: Desk) -> None:
    desk.reach(State.RECOVERED)
    assert [s.ok for s in desk.dispatch()] == [True] * 4
    assert desk.states() == ["noticed", "contained", "recovering", "recovered"]


def test_what_was_sent_is_on_record_with_the_promise(desk: Desk) -> None:
    desk.tell(OPENED)
    desk.dispatch()
    [entry] = desk.ledger.entries(kinds=[kinds.NOTICE_SENT])
    assert entry.incident == "INC-20261121-0001"
    assert {k: entry.body[k] for k in ("state", "audience", "channel", "about", "update")} == {
        "state": "noticed",
        "audience": "responders",
        "channel": "mail",
        "about": 1,
        "update": 0,
    }
    assert entry.body["next_by"] == (desk.now + timedelta(seconds=900)).isoformat()
    assert entry.body["subject"].startswith("[sev1]")
    assert set(entry.body) <= {
        *("channel", "audience", "state", "about", "update", "attempt", "begun", "subject", "seconds", "next_by")
    }


def test_several_incidents_and_channels(desk: Desk) -> None:
    with_channels(desk, MAIL, CHAT)
    desk.tell(OPENED, PROVEN, ALARM)
    desk.tell(OPENED, incident="INC-20261121-0002")
    desk.dispatch()
    assert Counter(u for u, _ in desk.sent) == {"mail": 4, "chat": 4}
    assert desk.dispatch() == []


def test_only_responders_are_asked_to_approve_and_only_while_it_matters(desk: Desk) -> None:
    with_channels(desk, MAIL, CHAT)
    desk.reach(State.WAITING)
    desk.dispatch()
    assert desk.states("mail")[-1] == "waiting for approval"
    assert desk.states("chat")[-1] == "contained"


def test_a_plan_that_was_approved_meanwhile_asks_nobody(desk: Desk) -> None:
    desk.reach(State.WAITING)
    desk.tell((kinds.PLAN_APPROVED, {"plan_hash": HASH}))
    desk.dispatch()
    assert desk.states() == ["noticed", "contained"]
    desk.tell(STARTED)
    desk.dispatch()
    assert desk.states()[-1] == "recovering"


def test_severities_are_filtered_until_they_count(desk: Desk) -> None:
    with_channels(desk, channel("mail", severities=["sev1"]))
    kind, body = OPENED
    desk.tell((kind, {**body, "severity": "sev3"}), PROVEN)
    assert desk.dispatch() == []
    desk.tell(WORSE)
    desk.dispatch()
    assert desk.states() == ["contained"]  # the present state, once
    desk.tell(STARTED)
    desk.dispatch()
    assert desk.states() == ["contained", "recovering"]


def test_a_failure_is_recorded_and_tried_again_with_growing_waits(desk: Desk) -> None:
    desk.tell(OPENED)
    desk.broken = {"mail"}
    waits = []
    began = desk.now
    while desk.now - began < timedelta(minutes=30):
        waits += [(desk.now - began).total_seconds() for s in desk.dispatch() if s.update == 0]
        desk.later(15)
    assert waits == [0, 15, 45, 105, 225, 465]
    assert failures(desk)[:6] == [("noticed", n, n == 6) for n in range(1, 7)]


def test_a_channel_that_comes_back_gets_the_notice(desk: Desk) -> None:
    desk.tell(OPENED)
    desk.broken = {"mail"}
    [failed] = desk.dispatch()
    assert (failed.ok, failed.gave_up, failed.why) == (False, False, "the receiver is away")
    assert desk.dispatch() == []
    desk.broken = set()
    desk.later(outbox.wait_s(1))
    [sent] = desk.dispatch()
    assert (sent.ok, sent.attempt) == (True, 2)
    assert desk.dispatch() == []


def test_after_a_failure_only_the_newest_state_is_told(desk: Desk) -> None:
    desk.broken = {"mail"}
    for step in (OPENED, PROVEN, CAUSE, STARTED):
        desk.tell(step)
        desk.dispatch()
    desk.broken = set()
    desk.later(15)
    desk.dispatch()
    desk.tell(FINISHED)
    desk.dispatch()
    assert desk.states() == ["recovering", "recovered"]


def test_a_broken_channel_keeps_no_other_waiting(desk: Desk) -> None:
    with_channels(desk, MAIL, CHAT)
    desk.reach(State.CONTAINED)
    desk.broken = {"mail"}
    sent = desk.dispatch()
    assert Counter((s.channel, s.ok) for s in sent) == {("mail", False): 1, ("chat", True): 2}


def test_whatever_goes_wrong_on_a_channel_is_a_failure_of_it_alone(desk: Desk) -> None:
    with_channels(desk, MAIL, CHAT)
    desk.tell(OPENED)

    def resolve(ref: str) -> str:
        if ref == "env:MAIL":
            raise SecretMissing("secret env:MAIL is missing or empty. Next: set MAIL")
        return "chat"

    def explode(url: str, message: Message) -> None:
        raise RuntimeError(f"token-of-{url}")

    first = dispatching.dispatch(desk.ledger, desk.app, resolve=resolve, now=desk.now, send=explode)
    assert {s.channel: s.why for s in first} == {
        "mail": "SecretMissing: secret env:MAIL is missing or empty. Next: set MAIL",
        "chat": "RuntimeError",
    }
    assert "token-of" not in str(desk.ledger.entries())


def test_the_promised_update_comes_until_the_end(desk: Desk) -> None:
    desk.reach(State.CONTAINED)
    desk.dispatch()
    told: list[tuple[float, str, int]] = []
    began = desk.now
    for _ in range(60):
        desk.later(60)
        told += [((desk.now - began).total_seconds() / 60, s.state, s.update) for s in desk.dispatch()]
    assert told == [(14, "contained", 1), (28, "contained", 2), (42, "contained", 3), (56, "contained", 4)]
    promised = [e.body["next_by"] for e in desk.ledger.entries(kinds=[kinds.NOTICE_SENT])]
    sent_at = [e.at.isoformat() for e in desk.ledger.entries(kinds=[kinds.NOTICE_SENT])]
    assert all(at < by for at, by in zip(sent_at[2:], promised[1:], strict=False))
    desk.tell(ALARM)
    desk.dispatch()
    desk.later(10_000)
    assert desk.dispatch() == []
    assert desk.states()[-1] == "false alarm"


def test_the_promise_that_was_made_counts_not_the_new_setting(desk: Desk) -> None:
    desk.tell(OPENED)
    desk.dispatch()
    with_channels(desk, channel("mail", updates_every_s=7200))
    desk.later(900)
    assert [s.update for s in desk.dispatch()] == [1]


def test_an_interim_notice_that_fails_is_tried_again(desk: Desk) -> None:
    desk.tell(OPENED)
    desk.dispatch()
    desk.later(900)
    desk.broken = {"mail"}
    assert [(s.update, s.attempt) for s in desk.dispatch()] == [(1, 1)]
    desk.broken = set()
    desk.later(15)
    assert [(s.update, s.attempt, s.ok) for s in desk.dispatch()] == [(1, 2, True)]
    assert desk.dispatch() == []


def test_a_new_channel_hears_no_old_news(desk: Desk) -> None:
    desk.reach(State.RECOVERED)
    desk.close()
    desk.later(3601)
    assert desk.dispatch() == []


def test_a_new_channel_hears_of_an_open_incident_once_however_old(desk: Desk) -> None:
    desk.reach(State.HELD)
    desk.dispatch()
    desk.later(8 * 3600)
    with_channels(desk, MAIL, CHAT)
    assert [(s.channel, s.state) for s in desk.dispatch() if s.channel == "chat"] == [("chat", "held")]
    assert [s for s in desk.dispatch() if s.channel == "chat"] == []


def test_a_channel_that_was_told_hears_the_end_however_late(desk: Desk) -> None:
    desk.reach(State.CONTAINED)
    desk.dispatch()
    desk.tell(STARTED, FINISHED)
    desk.close()
    desk.later(3 * 86400)
    assert [s.state for s in desk.dispatch()] == ["recovering", "recovered"]


def test_no_channels_no_work(desk: Desk) -> None:
    with_channels(desk)
    desk.reach(State.CONTAINED)
    assert dispatching.pending(desk.ledger, desk.app, desk.now) == []
    assert desk.dispatch() == []


def test_what_is_shown_is_what_is_sent_and_showing_changes_nothing(desk: Desk) -> None:
    desk.reach(State.CONTAINED)
    before = desk.ledger.head()
    shown = dispatching.pending(desk.ledger, desk.app, desk.now)
    assert desk.ledger.head() == before
    desk.dispatch()
    assert [(n.subject, n.text, n.html) for n in shown] == [(m.subject, m.text, m.html) for _, m in desk.sent]


def test_two_senders_at_once_send_each_notice_once(desk: Desk) -> None:
    with_channels(desk, MAIL, CHAT)
    desk.reach(State.RECOVERED)
    ready = threading.Barrier(3)
    errors: list[BaseException] = []

    def slow(url: str, message: Message) -> None:
        time.sleep(0.02)
        desk.sent.append((url, message))

    def sender() -> None:
        try:
            with Ledger(desk.path, clock=lambda: desk.now) as mine:
                ready.wait()
                for _ in range(6):
                    dispatching.dispatch(mine, desk.app, resolve=lambda r: r, now=desk.now, send=slow)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=sender) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    sent = Counter((url, message.subject) for url, message in desk.sent)
    assert set(sent.values()) == {1}
    assert len(sent) == 8
    for key in ("mail", "chat"):
        assert desk.states(key) == ["noticed", "contained", "recovering", "recovered"]


DIES = """
import os, sys
from pathlib import Path
from incidents.notices import dispatch
from ledger import Ledger
from tests.incidents.notice_desk import START, channel, make_app

def send(url, message):
    with open(sys.argv[2], "a") as file:
        file.write("sent\\n")
    os._exit(9)

ledger = Ledger(Path(sys.argv[1]), clock=lambda: START)
dispatch.dispatch(ledger, make_app(channel("mail")), resolve=lambda ref: ref, now=START, send=send)
"""


def die(desk: Desk, arrived: Path) -> int:
    """A process that is killed after the message went out and before that is recorded."""
    command = [sys.executable, "-c", DIES, str(desk.path), str(arrived)]
    return subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode


def test_killed_between_sending_and_recording_it_is_sent_once_more(desk: Desk, tmp_path: Path) -> None:
    arrived = tmp_path / "arrived"
    desk.tell(OPENED, apart_s=0)
    assert die(desk, arrived) == 9
    assert [s.ok for s in desk.dispatch()] == [True]
    assert desk.dispatch() == []
    assert arrived.read_text().count("sent") + len(desk.sent) == 2


def test_killed_again_and_again_it_is_given_up_and_said(desk: Desk, tmp_path: Path) -> None:
    arrived = tmp_path / "arrived"
    desk.tell(OPENED, apart_s=0)
    assert [die(desk, arrived), die(desk, arrived)] == [9, 9]
    [given_up] = desk.dispatch()
    assert (given_up.ok, given_up.gave_up) == (False, True)
    assert "not known" in given_up.why
    assert die(desk, arrived) == 0
    assert arrived.read_text().count("sent") == 2
    assert desk.sent == []
    desk.tell(PROVEN)
    desk.dispatch()
    assert desk.states() == ["contained"]


def test_an_attempt_under_way_elsewhere_is_left_alone_until_its_time_is_up(desk: Desk) -> None:
    desk.tell(OPENED)
    desk.later(0)

    def hang(url: str, message: Message) -> None:
        assert desk.dispatch() == []
        desk.later(dispatching.CLAIM.total_seconds() + 1)
        assert [s.ok for s in desk.dispatch()] == [True]

    dispatching.dispatch(desk.ledger, desk.app, resolve=lambda r: r, now=desk.now, send=hang)
    desk.later(1)
    assert desk.dispatch() == []


@pytest.mark.parametrize("state", [State.RECOVERED, State.RELAPSE])
@pytest.mark.parametrize("breaks", [0, 1, 2, 3])
def test_any_failing_moment_loses_no_end(desk: Desk, state: State, breaks: int) -> None:
    """Wherever the channel breaks for a while, the last state arrives, and none twice."""
    for number, step in enumerate(PATHS[state]):
        desk.broken = {"mail"} if number == breaks else set()
        desk.tell(step)
        desk.dispatch()
    desk.broken = set()
    for _ in range(4):
        desk.later(20)
        desk.dispatch()
    told = desk.states()
    assert told[-1] == state.value
    assert len(set(told)) == len(told)
