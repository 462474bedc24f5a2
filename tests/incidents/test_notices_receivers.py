"""Through Apprise to real receivers on the loopback: a mail server and a webhook; and nothing of an address leaks."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from incidents.errors import NotSent
from incidents.notices import dispatch as dispatching
from incidents.notices.compose import Message
from incidents.notices.dispatch import Sent
from incidents.notices.sending import apprise_send, scrub
from incidents.notices.states import State
from ledger import kinds
from tests.incidents.notice_desk import OPENED, Desk, channel, make_app
from tests.incidents.notice_receivers import Hook, Mailbox, running_hook

MESSAGE = Message(subject="[sev1] Desk: noticed - INC-1", text="What happened\n", html="<p>What</p>", tone="failure")


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    kept = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    controller = Controller(kept, hostname="127.0.0.1", port=port)
    controller.start()
    yield kept, port
    controller.stop()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with running_hook() as server:
        yield server


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(app=make_app(channel("mail"), channel("hook", "business")), path=tmp_path / "ledger.sqlite")
    yield made
    made.ledger.close()


def dispatch(desk: Desk, **urls: str) -> list[Sent]:
    return dispatching.dispatch(
        desk.ledger, desk.app, resolve=lambda ref: urls[ref.partition(":")[2].lower()], now=desk.now
    )


def mail_url(port: int) -> str:
    return f"mailto://127.0.0.1:{port}?from=reinstate@example.org&to=desk@example.org&mode=insecure"


def test_a_mail_and_a_webhook_receive_what_happened(desk: Desk, mailbox: tuple[Mailbox, int], hook: Hook) -> None:
    kept, port = mailbox
    desk.reach(State.CONTAINED)
    sent = dispatch(desk, mail=mail_url(port), hook=hook.url)
    assert [s.why for s in sent] == [""] * 4
    assert [m["subject"] for m in kept.mails] == [
        "[sev1] Order desk: noticed - INC-20261121-0001",
        "[sev1] Order desk: contained - INC-20261121-0001",
    ]
    assert [g["title"] for g in hook.got] == [m["subject"] for m in kept.mails]
    assert kept.rcpt == ["desk@example.org"] * 2
    mail = kept.mails[1]
    assert mail.defects == []
    assert mail["from"] == "reinstate@example.org"
    assert mail["to"] == "desk@example.org"
    assert mail["message-id"]
    assert mail["date"]
    html, plain = mail.get_body(("html",)), mail.get_body(("plain",))
    assert html is not None
    assert plain is not None
    assert "<h2" in html.get_content()
    assert "Paused, proven: intake, pay." in html.get_content()
    assert "Paused, proven: intake, pay." in plain.get_content()
    assert "<" not in plain.get_content()
    assert hook.got[1]["type"] == "warning"
    assert "Paused: Order intake, Payment." in hook.got[1]["message"]
    assert "<" not in hook.got[1]["message"]


def test_a_receiver_that_is_down_is_tried_again_and_holds_up_no_other(
    desk: Desk, mailbox: tuple[Mailbox, int], hook: Hook
) -> None:
    kept, port = mailbox
    hook.status = 503
    desk.tell(OPENED)
    sent = {s.channel: s for s in dispatch(desk, mail=mail_url(port), hook=hook.url)}
    assert sent["mail"].ok
    assert not sent["hook"].ok
    assert "503" in sent["hook"].why
    hook.status = 200
    desk.later(15)
    [again] = dispatch(desk, mail=mail_url(port), hook=hook.url)
    assert (again.channel, again.ok, again.attempt) == ("hook", True, 2)
    assert len(hook.got) == len(kept.mails) == 1
    recorded = desk.ledger.entries(kinds=[kinds.NOTICE_FAILED])
    assert "token-q7x9z" not in str(recorded)
    assert len(recorded) == 1


def test_nobody_there(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(NotSent, match="onnection") as refused:
        apprise_send(f"json://127.0.0.1:{port}/s3cr3t-path", MESSAGE)
    assert "s3cr3t" not in str(refused.value)
    assert "127.0.0.1" not in str(refused.value)  # with many services the host is a token
    with pytest.raises(NotSent, match="onnection"):
        apprise_send(mail_url(port), MESSAGE)


def test_a_receiver_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(NotSent, match="no answer within"):
            apprise_send(f"json://127.0.0.1:{silent.getsockname()[1]}?rto=1", MESSAGE, timeout_s=0.2)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("url", ["", "nonsense", "nosuch://host/secret-q7x9z", "json://127.0.0.1,json://127.0.0.2"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(NotSent, match="not one address") as said:
        apprise_send(url, MESSAGE)
    assert "q7x9z" not in str(said.value)


def test_no_log_says_where_it_went(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(1):
        logging.getLogger("urllib3.connectionpool").debug("somebody else's line")
        apprise_send(hook.url, MESSAGE)
        hook.status = 500
        with pytest.raises(NotSent):
            apprise_send(hook.url, MESSAGE)
        with pytest.raises(NotSent):
            apprise_send("mailto://bob:pw-q7x9z@127.0.0.1:1?to=a@example.org&from=b@example.org", MESSAGE)
    assert "q7x9z" not in caplog.text
    assert str(hook.server_port) not in caplog.text
    assert "somebody else's line" in caplog.text


def test_parts_of_an_address_are_masked() -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/TIia%21jkd/?footer=no&pw=abc"
    told = "posting T1JJ3T3L2 and TIia!jkd and TIia%21jkd with abc failed\nat once"
    assert scrub(told, url) == "posting *** and *** and *** with *** failed at once"


def test_a_test_message_cannot_be_taken_for_a_real_one(desk: Desk, mailbox: tuple[Mailbox, int]) -> None:
    kept, port = mailbox
    dispatching.send_test(desk.app, desk.app.channels[0], resolve=lambda _: mail_url(port), now=desk.now)
    [mail] = kept.mails
    assert mail["subject"] == "TEST, nothing happened - Order desk: channel mail"
    plain = mail.get_body(("plain",))
    assert plain is not None
    assert "there is nothing to do" in plain.get_content()
    assert desk.ledger.entries() == []
