"""Senders of a story: events one after the other to two workflows, each refused one again until it is taken."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import httpx

EVERY_S = 0.15
AGAIN_S = 0.4
PATIENCE_S = 180.0

Answer = Literal["accepted", "refused", "lost"]


@dataclass
class Sent:
    """One event. ``accepted``: the answer was a success; ``refused``: it was turned away, and is sent again;
    ``lost``: no answer, so that nobody knows, and it is not sent again."""

    workflow: str
    body: Mapping[str, Any]
    answer: Answer = "refused"
    accepted_at: float = 0.0

    @property
    def expected(self) -> Any:
        """The one effect it must have: the order's total, or the receipt's order."""
        return self.body["total"] if self.workflow == "intake" else self.body["order_event"]


class Traffic:
    """Sends in a thread of its own while the context is open. ``sent`` is by event."""

    def __init__(self, addresses: Mapping[str, str], *, every_s: float = EVERY_S) -> None:
        self.addresses = addresses
        self._every_s = every_s
        self.sent: dict[str, Sent] = {}
        self._over = threading.Event()
        self._again: deque[tuple[float, str]] = deque()
        self._thread = threading.Thread(target=self._work, name="senders")
        self._client = httpx.Client(timeout=30.0)
        self._failed: list[BaseException] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=PATIENCE_S)
        self._client.close()

    def served(self, effects: Mapping[str, Any], *, since: float) -> int:
        """How many orders taken after ``since`` (monotonic seconds) have their right effect."""
        later = [e for e, s in list(self.sent.items()) if s.workflow == "intake" and s.accepted_at > since]
        return sum(effects.get(e) == [self.sent[e].expected] for e in later)

    def finish(self) -> None:
        """No new events; what was refused is sent until it is taken."""
        self._over.set()
        self._thread.join(timeout=PATIENCE_S)
        assert not self._failed, self._failed
        deadline = time.monotonic() + PATIENCE_S
        while self._again:
            assert time.monotonic() < deadline, f"still turned away: {[e for _, e in self._again]}"
            _, event = self._again.popleft()
            self._send(event)
            time.sleep(0.05)

    def _work(self) -> None:
        try:
            for number in itertools.count(1):
                if self._over.is_set():
                    return
                while self._again and self._again[0][0] < time.monotonic():
                    self._send(self._again.popleft()[1])
                event, workflow = f"{'confirm' if number % 3 == 0 else 'intake'}-{number}", "intake"
                body: dict[str, Any] = {"event": event, "total": 10 + number % 80, "damages": f"intake-{number // 2}"}
                if number % 3 == 0:
                    workflow, body = "confirm", {"event": event, "order_event": f"intake-{number - 1}"}
                self.sent[event] = Sent(workflow, body)
                self._send(event)
                self._over.wait(self._every_s)
        except BaseException as error:  # noqa: BLE001 - told by finish()
            self._failed.append(error)

    def _send(self, event: str) -> None:
        one = self.sent[event]
        try:
            answer = self._client.post(self.addresses[one.workflow], json=dict(one.body))
        except httpx.ConnectError:
            taken: Answer = "refused"
        except httpx.HTTPError:
            taken = "lost"
        else:
            taken = "accepted" if answer.is_success else "refused"
        one.answer = taken
        if taken == "accepted":
            one.accepted_at = time.monotonic()
        elif taken == "refused":
            self._again.append((time.monotonic() + AGAIN_S, event))
