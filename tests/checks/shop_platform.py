"""A platform of which diagnosis and agreement need only reads: runs, versions, what is live."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from platforms.base import Capabilities, Platform, Run, RunState, Version, WorkflowInfo
from platforms.fake import EVERYTHING

IDS = {"intake": "w1", "payment": "w2"}
NAMES = {"intake": "Order intake", "payment": "Payment"}


@dataclass
class ShopPlatform:
    """Filled by the tests. ``clock_s`` is how far its clock is ahead of the database's."""

    clock_s: float = 0.0
    all_runs: list[Run] = field(default_factory=list)
    history: dict[str, list[Version]] = field(default_factory=dict)
    live: dict[str, str | None] = field(default_factory=dict)
    draft: dict[str, str] = field(default_factory=dict)
    capabilities: Capabilities = EVERYTHING

    def port(self) -> Platform:
        return cast("Platform", self)

    def workflows(self) -> list[WorkflowInfo]:
        return [WorkflowInfo(id=IDS[k], name=NAMES[k], active=self.live.get(IDS[k]) is not None) for k in IDS]

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        mine = [r for r in self.all_runs if workflow_id in (None, r.workflow_id)]
        mine = [r for r in mine if not states or r.state in states]
        return [r for r in mine if since is None or (r.stopped_at or r.started_at or datetime.now(UTC)) >= since]

    def versions(self, workflow_id: str) -> list[Version]:
        return self.history.get(workflow_id, [])

    def live_version(self, workflow_id: str) -> Version | None:
        found = self.live.get(workflow_id)
        return version(workflow_id, found) if found else None

    def draft_version(self, workflow_id: str) -> Version:
        return version(workflow_id, self.draft[workflow_id])


def version(workflow_id: str, hash_: str, at: datetime | None = None) -> Version:
    definition: dict[str, Any] = {"name": hash_}
    return Version(workflow_id=workflow_id, hash=hash_, definition=definition, created_at=at)
