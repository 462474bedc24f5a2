"""What the in-memory platform is made of: the kinds of platform it can play, and one workflow with its versions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from platforms.base import Capabilities, Permanent, Version
from platforms.canonical import settings_hash

Outputs = Mapping[str, Sequence[Mapping[str, Any]]]

EVERYTHING = Capabilities(
    executions=True,
    shows_in_flight=True,
    stops_runs=True,
    drops_in_flight=False,
    keeps_versions=True,
    draft_apart_from_live=True,
    keeps_ids=False,
    names_authors=True,
    replays_privately=True,
    reads_back_events=True,
    retriggers=True,
    tests_credentials=True,
)
"""What n8n can."""

FORGETFUL = replace(
    EVERYTHING,
    shows_in_flight=False,
    stops_runs=False,
    keeps_versions=False,
    draft_apart_from_live=False,
    keeps_ids=True,
    retriggers=False,
    tests_credentials=False,
)
"""A platform that lists runs once they ended, knows one content per workflow and publishes by saving."""

FLOW_ENGINE = replace(
    FORGETFUL,
    executions=False,
    drops_in_flight=True,
    names_authors=False,
    reads_back_events=False,
)
"""A platform without runs, which drops messages in flight when it pauses."""


class EntryClosed(Exception):
    """The workflow's entry did not take the call: it is paused. n8n answers 404."""


class Suspend(Exception):
    """Raised by a handler: the run waits until :meth:`platforms.fake.FakePlatform.resume`, then ``then()`` gives its
    outputs."""

    def __init__(self, then: Callable[[], Outputs]) -> None:
        super().__init__("the run waits")
        self.then = then


@dataclass(slots=True)
class Workflow:
    """One workflow of the in-memory platform. ``routes`` are the versions that calls reach, each from its moment on
    (``time.monotonic``), ``None`` for a pause; ``entry_of`` is the source of a private copy, with what it is for."""

    id: str
    name: str
    settings: Mapping[str, Any]
    versions: list[Version]
    live: str | None = None
    routes: list[tuple[float, str | None]] = field(default_factory=list)
    updated_at: datetime | None = None
    entry_of: tuple[str, str, str] | None = None

    def routed(self) -> str | None:
        """The version that a call reaches now."""
        due = [version for at, version in self.routes if at <= time.monotonic()]
        return due[-1] if due else None

    def route(self, version: str | None, *, after_s: float) -> None:
        """From then on calls reach ``version``."""
        self.routes.append((time.monotonic() + after_s, version))

    def newest(self) -> str:
        """The name of the version saved last."""
        return str(self.versions[-1].platform_version)

    def version(self, platform_version: str) -> Version:
        """One version, with the name and settings the workflow has now. Raises ``Permanent`` for an unknown one."""
        for version in self.versions:
            if version.platform_version == platform_version:
                definition = {**version.definition, "name": self.name, "settings": self.settings}
                return replace(version, definition=definition, settings_hash=settings_hash(definition))
        raise Permanent(f"workflow {self.id}: version {platform_version} is unknown; save its content again")
