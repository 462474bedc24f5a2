"""What a platform cannot do, in sentences: each names what is missing and what Reinstate does instead.

They go into plans and containment records, so that whoever approves one knows what it does not rest on.
"""

from __future__ import annotations

from collections.abc import Mapping

from platforms.base import Capabilities

MISSING: Mapping[str, str] = {
    "executions": "The platform lists no runs; events that the ingress passed on stand in for them.",
    "shows_in_flight": "Runs in flight are not shown; the fence and the settle time alone prove a pause.",
    "stops_runs": "Runs cannot be stopped; the fence keeps them from writing until they end.",
    "keeps_versions": "The platform keeps no versions; Reinstate's own history of what it has seen stands in for them.",
    "draft_apart_from_live": "Saving an active workflow publishes it; Reinstate pauses it before it saves.",
    "keeps_ids": "A workflow that was deleted comes back under a new id; calls and the catalogue follow it.",
    "names_authors": "The platform does not tell who changed a workflow, or when; the time lies between two looks.",
    "replays_privately": "No event can run through a version that is not live; replaying is left to a person.",
    "reads_back_events": "It does not tell which events ran; one whose answer was lost is listed, never sent twice.",
    "retriggers": "A run cannot be started again; its event is replayed instead.",
    "tests_credentials": "It does not tell whether a credential works; only missing and changed ones are found.",
}
"""By the field of :class:`Capabilities` that is false."""

PRESENT: Mapping[str, str] = {
    "drops_in_flight": "A pause drops what is in flight; events that came through the ingress are kept there.",
}
"""By the field that is true."""

EXTRA = frozenset({"names_written_rows"})
"""What only helps: without it nothing is missing."""


def limits(capabilities: Capabilities) -> tuple[str, ...]:
    """One sentence for everything that the platform cannot do; empty for one that can do all."""
    missing = [why for name, why in MISSING.items() if not getattr(capabilities, name)]
    present = [why for name, why in PRESENT.items() if getattr(capabilities, name)]
    return (*missing, *present)
