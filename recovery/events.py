"""Which events a recovery replays, and in which order. Pure but for reading the runs' inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from platforms.base import Run, RunState
from recovery.context import AppContext
from recovery.plan import Event

THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """An event as one run received it. ``selected``: that run's writes are to be undone."""

    workflow: str
    key: str | None
    run_id: str
    state: RunState
    at: datetime
    selected: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """``unreplayable`` are selected runs whose event cannot be identified: a person must look at them."""

    events: tuple[Event, ...]
    unreplayable: tuple[Received, ...]
    handled_elsewhere: int


def choose(received: Iterable[Received]) -> Choice:
    """Events of selected runs, once per key, in order of first acceptance.

    An event that a run which is *not* selected handled successfully (a sender's own retry) is not replayed."""
    by_key: dict[tuple[str, str], list[Received]] = {}
    nameless = []
    for r in sorted(received, key=lambda r: (r.at, r.run_id)):
        if r.key is not None:
            by_key.setdefault((r.workflow, r.key), []).append(r)
        elif r.selected:
            nameless.append(r)
    chosen = []
    elsewhere = 0
    for group in by_key.values():
        if not any(r.selected for r in group):
            continue
        if any(not r.selected and r.state is RunState.SUCCESS for r in group):
            elsewhere += 1
            continue
        chosen.append(next(r for r in group if r.selected))
    chosen.sort(key=lambda r: (r.at, r.run_id))
    events = tuple(
        Event(workflow=r.workflow, key=str(r.key), run_id=r.run_id, order=n) for n, r in enumerate(chosen, start=1)
    )
    return Choice(events=events, unreplayable=tuple(nameless), handled_elsewhere=elsewhere)


def look_up(value: Mapping[str, Any] | None, path: str) -> str | None:
    """The scalar at a dotted path (``body.event_id``) as text, ``None`` when there is none."""
    found: Any = value
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return None if found is None or isinstance(found, (Mapping, list)) else str(found)


def replayable(ctx: AppContext, workflow: str) -> bool:
    """Whether the catalogue says how to replay the workflow's events."""
    trigger = ctx.app.workflow(workflow).trigger
    return trigger.event_key is not None and trigger.replay == "once"


def read(ctx: AppContext, workflow: str, runs: Iterable[Run], selected: frozenset[str]) -> list[Received]:
    """The runs' events, by the catalogue's ``event_key``. Empty for workflows whose events are not replayed."""
    path = ctx.app.workflow(workflow).trigger.event_key
    if path is None or not replayable(ctx, workflow):
        return []

    def one(run: Run) -> Received:
        return Received(
            workflow=workflow,
            key=look_up(ctx.platform.run_detail(run.id).event, path),
            run_id=run.id,
            state=run.state,
            at=run.started_at or run.stopped_at or datetime.min.replace(tzinfo=UTC),
            selected=run.id in selected,
        )

    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        return list(pool.map(one, runs))
