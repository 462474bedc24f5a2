"""What a platform's bench gives the contract suite, and the words in which every test speaks.

A *bench* is one platform under test and the outside world around it. ``tests/contract/conftest.py`` runs every test of
the suite on each bench; what must hold is decided by ``platform.capabilities`` alone. A new platform brings a module
like ``fake_bench.py`` and no test of its own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from platforms.base import Definition, Platform, Run

T = TypeVar("T")
SHORT_S = 1.5
"""A run that lasts this long is seen in flight on a live platform."""
LONG_S = 3600
"""A run that lasts this long is asleep, and ends only when it is stopped."""
ECHO = "Echo"
"""The node whose output tells which content answered."""
QUERY: Mapping[str, str] = {"page": "1"}
SHOP = "north"
"""What :meth:`Bench.call` sends as query, and as the header ``x-shop``."""

NUMBERS = itertools.count(int(time.time()))


class Bench(Protocol):
    """A platform under test and the outside world around it. It may use what the port may not: a vendor's other
    interfaces, the platform's own database, a server that counts calls."""

    platform: Platform
    secret: str
    """The value inside every credential it makes; it must never be seen in anything the port returns."""

    def definition(self, name: str, tag: str, *, wait_s: float = 0, credential: str | None = None) -> Definition:
        """A workflow in the platform's own form: an entry for HTTP calls at :meth:`address`, then a pause of ``wait_s``
        seconds (0: none, and the call is answered at the end), then a node named ``Echo``. Its output is one item
        ``{"tag": tag, "body": ..., "query": ..., "shop": header x-shop}`` of the event. It fails with *refused on
        purpose* when the body's ``fail`` equals ``tag``. One more node, connected or not, names the credential with
        the id ``credential``."""
        ...

    def caller(self, name: str, workflow_id: str) -> Definition | None:
        """A workflow behind :meth:`address` that starts another one with its own event; ``None`` where the platform has
        no such thing."""
        ...

    def callee(self, name: str, tag: str) -> Definition:
        """Like :meth:`definition`, but something that other workflows can start."""
        ...

    def address(self, name: str) -> tuple[str, str]:
        """Method and path (below the platform's address) of the entry of :meth:`definition`."""
        ...

    def edited(self, definition: Definition, tag: str) -> Definition:
        """The same workflow answering under another tag."""
        ...

    def moved(self, definition: Definition) -> Definition:
        """The same behaviour: other positions and order, a comment, what an editor or an export changes by itself."""
        ...

    def tuned(self, definition: Definition) -> Definition:
        """The same content under another setting (or name): what ``settings_hash`` is for."""
        ...

    def create(self, definition: Definition) -> str:
        """Somebody makes a new workflow, inactive, not through the port."""
        ...

    def delete(self, workflow_id: str) -> None:
        """Somebody deletes it."""
        ...

    def call(self, workflow_id: str, body: Mapping[str, Any]) -> bool:
        """A customer's call of the real entry. False when it was turned away. Does not wait for a long run."""
        ...

    def effects(self, mark: str) -> list[str]:
        """The tags under which events whose body has this ``mark`` reached the end of a workflow, private copies
        included: what the outside world saw, oldest first. Never asked through the port."""
        ...

    def another_process(self) -> Platform:
        """The same platform, as a process sees it that remembers nothing."""
        ...

    def credential(self, name: str) -> str | None:
        """A new credential that works and holds :attr:`secret`; its id. ``None`` where definitions name none."""
        ...

    def change_credential(self, credential_id: str) -> None:
        """Somebody edits the secret; it still works."""
        ...

    def break_credential(self, credential_id: str) -> None:
        """The other side refuses it from now on."""
        ...

    def lock_credential(self, credential_id: str) -> None:
        """What the platform stored can no longer be decrypted: another encryption key."""
        ...

    def remove_credential(self, credential_id: str) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Made:
    """A workflow of a test."""

    id: str
    name: str


def fresh(kind: str = "contract") -> str:
    """A name or mark that no other test has."""
    return f"{kind}-{next(NUMBERS)}"


def eventually(look: Callable[[], T], *, within_s: float = 90) -> T:
    """The first true result of ``look``, asked again more and more rarely."""
    deadline, wait_s = time.monotonic() + within_s, 0.01
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.4, 0.15)
    return found


class Scene:
    """Short words for what every test of the suite does, whatever the platform can."""

    def __init__(self, bench: Bench, *, short_s: float = SHORT_S) -> None:
        self.bench = bench
        self.short_s = short_s
        self.platform = bench.platform
        self.can = bench.platform.capabilities
        self.made: list[str] = []
        self.others: list[Platform] = []

    def workflow(
        self, tag: str = "v1", *, wait_s: float = 0, active: bool = True, credential: str | None = None
    ) -> Made:
        """A workflow, answering if ``active``."""
        made = self.put(self.bench.definition(name := fresh(), tag, wait_s=wait_s, credential=credential), name)
        if active:
            self.platform.activate(made.id)
            self.answered(made.id)
        return made

    def put(self, definition: Definition, name: str) -> Made:
        """A workflow of somebody else's making."""
        made = Made(id=self.bench.create(definition), name=name)
        self.made.append(made.id)
        return made

    def content(self, workflow_id: str) -> Definition:
        return self.platform.draft_version(workflow_id).definition

    def answered(self, workflow_id: str, body: Mapping[str, Any] | None = None) -> str:
        """Call the real entry until it takes the event; the event's mark."""
        mark = fresh("mark")
        eventually(lambda: self.bench.call(workflow_id, {**(body or {}), "mark": mark}))
        return mark

    def tag(self, workflow_id: str) -> str:
        """Which content answers now, by what the outside world sees."""
        mark = self.answered(workflow_id)
        return eventually(lambda: self.bench.effects(mark))[0]

    def run(self, workflow_id: str, body: Mapping[str, Any] | None = None, *, ended: bool = True) -> Run:
        """Call the real entry until it takes the event; the run it started. Needs ``executions``."""
        known = {r.id for r in self.platform.runs(workflow_id)}
        mark = self.answered(workflow_id, body)

        def new() -> Run | None:
            found = [r for r in self.platform.runs(workflow_id) if r.id not in known]
            known.update(r.id for r in found if self.mark(r.id) != mark)
            return next((r for r in found if r.id not in known and not (ended and r.state.in_flight)), None)

        return eventually(new)

    def mark(self, run_id: str) -> str | None:
        """The mark of a run's event."""
        event = self.platform.run_detail(run_id).event or {}
        return (event.get("body") or {}).get("mark")

    def elsewhere(self) -> Platform:
        """The same platform, as a process sees it that remembers nothing."""
        self.others.append(self.bench.another_process())
        return self.others[-1]

    def paused(self, workflow_id: str) -> None:
        self.platform.deactivate(workflow_id)
        eventually(lambda: self.platform.ingress_paused(workflow_id))

    def clean(self) -> None:
        """Nothing of the test goes on."""
        for other in self.others:
            other.close()
        here = {w.id for w in self.platform.workflows()}
        for workflow_id in self.made:
            if workflow_id in here:
                self.platform.deactivate(workflow_id)
                for run in self.platform.runs(workflow_id):
                    if run.state.in_flight and self.can.stops_runs:
                        self.platform.stop(run.id)
