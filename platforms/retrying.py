"""Try retryable failures again, over any platform. A wrapper, so that adapters stay plain.

Everything but :meth:`Platform.send` is idempotent by the port's contract; ``send`` is passed on once, because the
event may have run although its answer was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import tenacity

from platforms.base import (
    Capabilities,
    Definition,
    Health,
    Platform,
    PrivateEntry,
    Retryable,
    Run,
    RunDetail,
    RunState,
    Version,
    WorkflowInfo,
)

T = TypeVar("T")


class Retrying:
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
        self._platform = platform
        self._attempts = attempts
        self._within_s = within_s
        self._wait = tenacity.wait_random_exponential(multiplier=first_wait_s, max=longest_wait_s)

    def __repr__(self) -> str:
        return f"Retrying({self._platform!r})"

    def _call(self, call: Callable[[], T]) -> T:
        # A new controller per call: tenacity keeps statistics on it, and platforms are shared between threads.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retryable),
            stop=tenacity.stop_after_attempt(self._attempts) | tenacity.stop_after_delay(self._within_s),
            wait=self._wait,
            reraise=True,
        )
        return retrying(call)

    @property
    def kind(self) -> str:
        return self._platform.kind

    @property
    def capabilities(self) -> Capabilities:
        return self._platform.capabilities

    def health(self) -> Health:
        return self._call(self._platform.health)

    def workflows(self) -> list[WorkflowInfo]:
        return self._call(self._platform.workflows)

    def draft_version(self, workflow_id: str) -> Version:
        return self._call(lambda: self._platform.draft_version(workflow_id))

    def live_version(self, workflow_id: str) -> Version | None:
        return self._call(lambda: self._platform.live_version(workflow_id))

    def versions(self, workflow_id: str) -> list[Version]:
        return self._call(lambda: self._platform.versions(workflow_id))

    def save(self, workflow_id: str, definition: Definition) -> Version:
        return self._call(lambda: self._platform.save(workflow_id, definition))

    def activate(self, workflow_id: str, platform_version: str | None = None) -> None:
        self._call(lambda: self._platform.activate(workflow_id, platform_version))

    def deactivate(self, workflow_id: str) -> None:
        self._call(lambda: self._platform.deactivate(workflow_id))

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        return self._call(lambda: self._platform.runs(workflow_id, since=since, states=states))

    def latest_run(self, workflow_id: str) -> str | None:
        return self._call(lambda: self._platform.latest_run(workflow_id))

    def run_detail(self, run_id: str) -> RunDetail:
        return self._call(lambda: self._platform.run_detail(run_id))

    def stop(self, run_id: str) -> None:
        self._call(lambda: self._platform.stop(run_id))

    def ingress_paused(self, workflow_id: str) -> bool:
        return self._call(lambda: self._platform.ingress_paused(workflow_id))

    def open_private_entry(self, version: Version) -> PrivateEntry:
        return self._call(lambda: self._platform.open_private_entry(version))

    def send(self, entry: PrivateEntry, event: Mapping[str, object], *, idempotency_key: str) -> Run:
        return self._platform.send(entry, event, idempotency_key=idempotency_key)

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        return self._call(lambda: self._platform.sent(entry))

    def close_private_entry(self, entry: PrivateEntry) -> None:
        self._call(lambda: self._platform.close_private_entry(entry))

    def close(self) -> None:
        self._platform.close()


_IMPLEMENTS: Callable[[Platform], Platform] = Retrying
