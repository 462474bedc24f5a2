"""The stages of a drill, one after the other: each limited in time, measured, and on the card if it fails."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from drills.errors import DrillError, StageFailed
from drills.scorecard import Stage

T = TypeVar("T")
Run = Callable[[str, Callable[[], Any]], Any]
"""How a stage is run: by its name and what it does. A flow makes a task of it."""


def direct(_: str, work: Callable[[], Any]) -> Any:
    """Just do it."""
    return work()


class Stages:
    """What was done so far."""

    def __init__(self, run: Run = direct) -> None:
        self._run = run
        self.done: list[Stage] = []

    def attempt(self, name: str, work: Callable[[], T], *, within_s: float) -> T:
        """Do one stage. Raises :class:`StageFailed` when it fails or takes longer than ``within_s`` seconds."""
        began = time.monotonic()

        def watched() -> T:
            with limited(within_s, name):
                return work()

        try:
            result: T = self._run(name, watched)
        except Exception as error:
            raise StageFailed(f"{name}: {self.failed(name, error, began)}") from error
        self.done.append(Stage(name=name, seconds=round(time.monotonic() - began, 1)))
        return result

    def failed(self, name: str, error: Exception, began: float | None = None) -> str:
        """Put a failure on the card. Returns its one line."""
        why = " ".join((str(error) or type(error).__name__).split())
        seconds = 0.0 if began is None else round(time.monotonic() - began, 1)
        self.done.append(Stage(name=name, seconds=seconds, error=why))
        return why


@contextmanager
def limited(seconds: float, what: str) -> Iterator[None]:
    """An alarm after ``seconds``: raises ``DrillError`` there. Without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(_number: int, _frame: FrameType | None) -> None:
        raise DrillError(f"{what}: not over after {seconds:.0f} s; see the drill's log")

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, late)
    others, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, max(others - (time.monotonic() - began), 0.01) if others else 0.0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
