"""Versions of runs by time, for platforms that record none with a run.

Whoever looks at the workflows now and then knows from when until when a version was surely the one in use
(:class:`Span`). A run that started inside such a stretch ran that version. One that fell between two looks, of which
the later found another version, may have run either: its version stays open, since a guess would undo good runs or
leave bad ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from platforms.base import Platform, Run, RunDetail, RunState
from platforms.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """``hash`` was surely what ran from ``since`` to ``until`` (``None``: no end is known). It may have run since
    ``not_before``, the last look that found another (``None``: nobody had looked before). Times are the platform's."""

    workflow_id: str
    hash: str
    not_before: datetime | None
    since: datetime
    until: datetime | None


Spans = Callable[[], Mapping[str, Sequence[Span]]]


class Dated(Wrapper):
    """``platform`` whose runs carry versions by ``spans`` (by the platform's workflow id) where it records none."""

    def __init__(self, platform: Platform, spans: Spans) -> None:
        super().__init__(platform)
        self._spans = spans

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        found = super().runs(workflow_id, since=since, states=states)
        if not any(map(_open, found)):
            return found
        spans = self._spans()
        return [dated(run, spans, whole=self._estimates) for run in found]

    def run_detail(self, run_id: str) -> RunDetail:
        detail = super().run_detail(run_id)
        if not _open(detail.run):
            return detail
        return replace(detail, run=dated(detail.run, self._spans(), whole=self._estimates))

    def retrigger(self, run_id: str) -> Run:
        run = super().retrigger(run_id)
        return dated(run, self._spans(), whole=self._estimates) if _open(run) else run

    @property
    def _estimates(self) -> bool:
        """Where runs are told only once they ended, nobody saw them begin: a start is the earliest possible one."""
        return not self.capabilities.shows_in_flight


def dated(run: Run, spans: Mapping[str, Sequence[Span]], *, whole: bool = False) -> Run:
    """``run`` with the version whose span holds its start (``whole``: its end too, since the start is an estimate); as
    it is when none does, or when it has one (pure)."""
    started = run.started_at
    if not _open(run) or started is None:
        return run
    last = (run.stopped_at if whole else None) or started
    for span in spans.get(run.workflow_id, ()):
        if span.since <= started and (span.until is None or last <= span.until):
            return replace(run, version_hash=span.hash)
    return run


def _open(run: Run) -> bool:
    """Whether the platform says nothing at all about the version: a name that it recorded is not overruled."""
    return run.version_hash is None and run.platform_version is None


_IMPLEMENTS: Callable[[Platform, Spans], Platform] = Dated
