"""The loop that keeps processes running: take over what runs, start what is missing, start again what died."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from console.service import decide, processes
from console.service.decide import Action, Memory
from console.service.news import News
from console.service.processes import Part
from estate import EstateError

LOOK_S = 0.5


@dataclass(kw_only=True)
class Supervisor:
    """Keeps ``parts`` running until ``stopping``. ``tend`` is called with each look, for what is kept in other ways."""

    parts: Callable[[], Sequence[Part]]
    news: News
    stopping: threading.Event
    tend: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    memories: dict[str, Memory] = field(default_factory=dict)

    def run(self) -> None:
        """Until told to stop. One part that cannot be started does not keep the others from running."""
        while not self.stopping.is_set():
            self.look()
            self.tend()
            self.stopping.wait(LOOK_S)

    def look(self) -> None:
        """Look at every part once, and do what is due."""
        for part in self.parts():
            if self.stopping.is_set():
                return
            seen = processes.look(part)
            decision = decide.decide(seen, self.memories.get(part.name, Memory()), self.clock())
            self.memories[part.name] = decision.memory
            if decision.died:
                self._died(part, seen.code, decision.memory)
            try:
                self._act(part, decision.action)
            except EstateError as error:
                failed = decide.decide(decide.Seen(alive=False), decision.memory, self.clock())
                self.memories[part.name] = failed.memory
                self.news("failed", f"{part.name}: {error}", part=part.name)

    def _act(self, part: Part, action: Action) -> None:
        if action is Action.ADOPT:
            self.news("adopted", f"{part.name} runs already: taken over", part=part.name)
        elif action is Action.REPLACE:
            self.news("replaced", f"{part.name} runs with other settings: started again", part=part.name)
            processes.stop(part)
        if action in (Action.START, Action.REPLACE):
            pid = processes.start(part)
            self.news("started", f"{part.name} started; its log is {part.log}", part=part.name, pid=pid)

    def _died(self, part: Part, code: int | None, memory: Memory) -> None:
        how = "was killed" if code is None else f"ended with code {code}"
        if code is not None and code in part.meaning:
            how += f" ({part.meaning[code]})"
        again = decide.pause(memory.failures)
        text = f"{part.name} {how}; it is started again in {again:.0f} s; see {part.log}"
        self.news("died", text, part=part.name, code=code, again_s=again)
