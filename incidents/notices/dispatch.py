"""Sending what the ledger says is due (:mod:`incidents.notices.outbox`): claim under its lock, send, record.

Channels do not wait for each other. On one channel notices go out in order, and a failure ends the channel's turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from catalog.models import App, Channel, SecretRef
from incidents.errors import NotSent
from incidents.notices import compose, facts, outbox
from incidents.notices.compose import Message
from incidents.notices.outbox import Due
from incidents.notices.sending import SEND_S, apprise_send
from ledger import kinds
from ledger.entry import Draft, Entry
from ledger.process import current
from ledger.timeline import story

if TYPE_CHECKING:
    from ledger.ledger import Ledger, View

Send = Callable[[str, Message], None]
"""Takes an Apprise URL and a message; raises ``NotSent``."""

CLAIM: Final = timedelta(seconds=SEND_S + 30)
"""How long an attempt may be under way before others take it for cut off."""
ONE_TURN: Final = 20
"""So many notices at most on one channel per call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What is due on one channel, as its audience will read it. ``update`` is 0 for the state change itself."""

    app: str
    incident: str
    channel: str
    audience: str
    state: str
    about: int
    update: int
    attempt: int
    subject: str
    text: str
    html: str
    next_by: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What became of one notice. ``gave_up``: it is not tried again."""

    incident: str
    channel: str
    audience: str
    state: str
    about: int
    update: int
    attempt: int
    subject: str
    ok: bool
    why: str = ""
    gave_up: bool = False
    seconds: float = 0.0


class _Taken(Exception):
    """What was due is not due any more."""


def pending(ledger: Ledger, app: App, now: datetime, *, addresses: Mapping[str, str] | None = None) -> list[Notice]:
    """What is due at ``now``, composed; nothing is sent or recorded. ``addresses`` are shown to responders."""
    found = outbox.read(ledger, app, now) if app.channels else None
    if found is None:
        return []
    return [
        _notice(app, due, *_composed(ledger, app, found, due, now=now, addresses=addresses))
        for due in outbox.due(app, found, now)
        if not due.give_up
    ]


def dispatch(
    ledger: Ledger,
    app: App,
    *,
    resolve: Callable[[SecretRef], str],
    now: datetime,
    send: Send = apprise_send,
    addresses: Mapping[str, str] | None = None,
) -> list[Sent]:
    """Send what is due at ``now`` and record it; safe to call from several processes at once.

    ``resolve`` turns a channel's secret reference into its Apprise URL. A failure is recorded as ``notice.failed``
    and tried again by a later call, with growing waits, a bounded number of times. Takes at most about
    ``SEND_S`` seconds per notice. Raises what the ledger raises, once every channel has had its turn."""
    if not app.channels:
        return []
    due = {d.channel.key for d in outbox.due(app, outbox.read(ledger, app, now), now)}
    turns = [
        _Turn(ledger=ledger, app=app, channel=c, resolve=resolve, now=now, send=send, addresses=addresses)
        for c in app.channels
        if c.key in due
    ]
    return [sent for sents in _at_once([turn.run for turn in turns]) for sent in sents]


def send_test(
    app: App, channel: Channel, *, resolve: Callable[[SecretRef], str], now: datetime, send: Send = apprise_send
) -> Message:
    """Send a message that is clearly a test. Raises ``NotSent`` or what ``resolve`` raises."""
    message = compose.test_message(app, channel, now)
    send(resolve(channel.to), message)
    return message


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """What one channel sends in one call."""

    ledger: Ledger
    app: App
    channel: Channel
    resolve: Callable[[SecretRef], str]
    now: datetime
    send: Send
    addresses: Mapping[str, str] | None

    def run(self) -> list[Sent]:
        done: list[Sent] = []
        while len(done) < ONE_TURN:
            found = outbox.read(self.ledger, self.app, self.now)
            due = self._first(found)
            if due is None:
                break
            message, next_by = _composed(self.ledger, self.app, found, due, now=self.now, addresses=self.addresses)
            try:
                sent = self._give_up(due, message) if due.give_up else self._attempt(due, message, next_by)
            except _Taken:
                continue
            done.append(sent)
            if not sent.ok and not due.give_up:
                break
        return done

    def _first(self, found: outbox.Outbox) -> Due | None:
        return next((d for d in outbox.due(self.app, found, self.now) if d.channel == self.channel), None)

    def _claimed(self, due: Due, view: View) -> None:
        """Raises :class:`_Taken` unless ``due`` is still the first thing to send, while nobody else writes."""
        if self._first(outbox.read(view, self.app, self.now)) != due:
            raise _Taken

    def _attempt(self, due: Due, message: Message, next_by: datetime | None) -> Sent:
        def claim(view: View) -> Draft:
            self._claimed(due, view)
            body = {
                **_about(due),
                "incident_id": due.change.incident,
                "process": asdict(current()),
                "until": view.now() + CLAIM,
            }
            return Draft(kind=kinds.NOTICE_BEGUN, app=self.app.key, body=body)

        begun = self.ledger.append_with(claim)
        began = time.monotonic()
        why = self._sent(message)
        seconds = round(time.monotonic() - began, 3)
        gave_up = bool(why) and due.attempt >= outbox.ATTEMPTS
        if why:
            self._record(kinds.NOTICE_FAILED, due, {"begun": begun.seq, "why": why, "gave_up": gave_up})
        else:
            body = {"begun": begun.seq, "subject": message.subject, "seconds": seconds, "next_by": next_by}
            self._record(kinds.NOTICE_SENT, due, body)
        return _sent(due, message, ok=not why, why=why, gave_up=gave_up, seconds=seconds)

    def _sent(self, message: Message) -> str:
        """Why it was not sent; empty when it was."""
        try:
            self.send(self.resolve(self.channel.to), message)
        except NotSent as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - one channel's trouble must not keep the others from sending
            told = str(error) if type(error).__module__.startswith("catalog.") else ""
            return f"{type(error).__name__}: {told}" if told else type(error).__name__
        return ""

    def _give_up(self, due: Due, message: Message) -> Sent:
        def compose_entry(view: View) -> Draft:
            self._claimed(due, view)
            body = {**_about(due), "why": due.give_up, "gave_up": True}
            return Draft(kind=kinds.NOTICE_FAILED, app=self.app.key, incident=due.change.incident, body=body)

        self.ledger.append_with(compose_entry)
        return _sent(due, message, ok=False, why=due.give_up, gave_up=True)

    def _record(self, kind: str, due: Due, body: Mapping[str, Any]) -> Entry:
        return self.ledger.append(kind, app=self.app.key, incident=due.change.incident, body={**_about(due), **body})


def _at_once(works: Sequence[Callable[[], list[Sent]]]) -> list[list[Sent]]:
    """What they return, in order, or the first error, once all have ended. Daemon threads: a process that is told to
    stop does not wait for a slow receiver; what it leaves is found by the next one."""
    if len(works) < 2:
        return [work() for work in works]
    ended: list[Future[list[Sent]]] = [Future() for _ in works]

    def run(work: Callable[[], list[Sent]], future: Future[list[Sent]]) -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            future.set_exception(error)

    for work, future in zip(works, ended, strict=True):
        threading.Thread(target=run, args=(work, future), name="notices of a channel", daemon=True).start()
    wait(ended)
    return [future.result() for future in ended]


def _composed(
    ledger: Ledger,
    app: App,
    found: outbox.Outbox,
    due: Due,
    *,
    now: datetime,
    addresses: Mapping[str, str] | None,
) -> tuple[Message, datetime | None]:
    next_by = None if due.change.state.final else now + timedelta(seconds=due.channel.updates_every_s)
    known = facts.gather(
        app,
        story(ledger, due.change.incident),
        found.changes[due.change.incident],
        due.change,
        update=due.update,
        now=now,
        next_by=next_by,
        addresses=addresses,
    )
    return compose.compose(due.channel.audience, known), next_by


def _about(due: Due) -> dict[str, Any]:
    return {
        "channel": due.channel.key,
        "audience": due.channel.audience,
        "state": due.change.state.value,
        "about": due.change.seq,
        "update": due.update,
        "attempt": due.attempt,
    }


def _notice(app: App, due: Due, message: Message, next_by: datetime | None) -> Notice:
    return Notice(
        app=app.key,
        incident=due.change.incident,
        channel=due.channel.key,
        audience=due.channel.audience,
        state=due.change.state.value,
        about=due.change.seq,
        update=due.update,
        attempt=due.attempt,
        subject=message.subject,
        text=message.text,
        html=message.html,
        next_by=next_by,
    )


def _sent(due: Due, message: Message, *, ok: bool, why: str = "", gave_up: bool = False, seconds: float = 0.0) -> Sent:
    return Sent(
        incident=due.change.incident,
        channel=due.channel.key,
        audience=due.channel.audience,
        state=due.change.state.value,
        about=due.change.seq,
        update=due.update,
        attempt=due.attempt,
        subject=message.subject,
        ok=ok,
        why=why,
        gave_up=gave_up,
        seconds=seconds,
    )
