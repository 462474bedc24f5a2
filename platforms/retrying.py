"""Try retryable failures again, over any platform. A wrapper, so that adapters stay plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tenacity

from platforms.base import Platform, Retryable
from platforms.wrapper import Wrapper

T = TypeVar("T")

ONCE = frozenset({"send", "retrigger", "create"})
"""Not idempotent by the port's contract: what they did may have happened although the answer was lost, so they are
passed on once, and whoever called reads the state back."""


class Retrying(Wrapper):
    """At most ``attempts`` tries and ``within_s`` seconds, with exponential backoff and jitter; then the last error.

    The backoff with full jitter keeps several callers from trying in step
    (AWS Architecture Blog, *Exponential Backoff And Jitter*, 2015).
    """

    def __init__(
        self,
        platform: Platform,
        *,
        attempts: int = 5,
        within_s: float = 30.0,
        first_wait_s: float = 0.2,
        longest_wait_s: float = 5.0,
    ) -> None:
        super().__init__(platform)
        self._attempts = attempts
        self._within_s = within_s
        self._wait = tenacity.wait_random_exponential(multiplier=first_wait_s, max=longest_wait_s)

    def _call(self, method: str, call: Callable[[], T]) -> T:
        if method in ONCE:
            return call()
        # A new controller per call: tenacity keeps statistics on it, and platforms are shared between threads.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retryable),
            stop=tenacity.stop_after_attempt(self._attempts) | tenacity.stop_after_delay(self._within_s),
            wait=self._wait,
            reraise=True,
        )
        return retrying(call)


_IMPLEMENTS: Callable[[Platform], Platform] = Retrying
