"""Reading a platform's workflows, their outlines, credentials and recent events, through the port alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from discovery.facts import PlatformFacts, WorkflowFacts
from platforms.base import Credential, Permanent, Platform, PlatformError, WorkflowInfo

RECENT = timedelta(days=7)
EVENTS = 12
"""So many recent runs of a workflow are looked at."""


def facts(platform: Platform, say: Callable[[str], None] = lambda _: None) -> PlatformFacts:
    """All workflows of the platform. What production runs is what is read, the draft where nothing is live.

    Raises ``PlatformError`` when the platform cannot be reached or refuses the key; a single workflow that cannot be
    read is a problem in words.
    """
    now = platform.health().now
    found = []
    problems: list[str] = []
    for info in platform.workflows():
        say(f"reading workflow {info.name!r}")
        try:
            found.append(_workflow(platform, info, now - RECENT, problems))
        except Permanent as error:
            problems.append(f"workflow {info.name!r} cannot be read: {error}")
    return PlatformFacts(kind=platform.kind, workflows=tuple(found), problems=tuple(problems))


def _workflow(platform: Platform, info: WorkflowInfo, since: Any, problems: list[str]) -> WorkflowFacts:
    version = platform.live_version(info.id) or platform.draft_version(info.id)
    credentials: list[Credential] = []
    try:
        credentials = platform.credentials(info.id)
    except PlatformError as error:
        problems.append(f"credentials of workflow {info.name!r}: {error}")
    return WorkflowFacts(
        id=info.id,
        name=info.name,
        active=info.active,
        outline=platform.outline(version.definition),
        credentials=tuple(credentials),
        events=_events(platform, info, since, problems),
    )


def _events(platform: Platform, info: WorkflowInfo, since: Any, problems: list[str]) -> tuple[Mapping[str, Any], ...]:
    """Inputs of the youngest ended runs; none where the platform keeps no runs."""
    if not platform.capabilities.executions:
        return ()
    found = []
    try:
        runs = [r for r in platform.runs(info.id, since=since) if not r.state.in_flight]
        for run in runs[: -EVENTS - 1 : -1]:
            event = platform.run_detail(run.id).event
            if event is not None:
                found.append(event)
    except PlatformError as error:
        problems.append(f"runs of workflow {info.name!r}: {error}")
    return tuple(found)
