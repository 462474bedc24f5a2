"""What a long start says meanwhile."""

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One piece of news about a part of the estate."""

    part: str
    """``postgres``, ``n8n``, ``prefect`` or ``estate``."""
    stage: str
    """``waiting``, ``download``, ``start``, ``ready``, ``stop`` or ``stopped``."""
    detail: str
    seconds: float
    """Since this part began."""


Listener = Callable[[Progress], None]


def silence(_: Progress) -> None:
    """Listens to nothing."""


def one_at_a_time(listener: Listener) -> Listener:
    """The same listener, never called by two threads at once."""
    lock = threading.Lock()

    def call(progress: Progress) -> None:
        with lock:
            listener(progress)

    return call
