"""The scorecard of a drill as a value: measured, never typed in. :mod:`drills.scoring` makes it.

- ``detect_s``, ``contain_s``, ``diagnose_s``, ``recover_s``, ``verify_s``, ``total_s``, ``steps``: see
  :mod:`ledger.metrics`
- ``loss_s``: legitimate work lost, as time: what the recovery recorded; else 0 when the judge found nothing lost, else
  ``total_s``, the most that can be lost
- ``precision``, ``recall``: of the reconstitution, see :mod:`drills.reconstitution`
- ``replay_success``: events that had their effect through the good version / events of the plan; ``None``
  without events
- ``compensation_success``: compensations done / compensations begun; ``None`` without any
- ``control``: the negative control; ``None`` when it did not run

A card is green (``passed``) without a reason against it. ``reasons`` are sentences, ``red`` their codes in the same
order. A drill whose negative control did not run, or whose fault did no damage, proves nothing: it is red.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from drills.reconstitution import Reconstitution
from ledger.entry import Entry

Needed = Mapping[str, tuple[str, Callable[[Any], bool]]]
"""How big a drill must be to count: figure -> (in words, test), see :mod:`drills.needed`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of a drill: how long it took (seconds), and why it failed, if it did."""

    name: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """The negative control: a harmless new version and a burst of traffic, under the same watcher."""

    acted: str | None
    """What the product did although nothing was wrong."""
    events: int
    wrong_fields: int
    wrong_by_column: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a drill saw. ``entries`` are those of the incident; ``verdict`` is the judge's document; ``state`` is what
    platform and catalogue say at the end: ``live_version_is_known_good``, ``active_set_restored``."""

    drill: str
    scenario: str
    title: str
    app: str
    at: str
    seconds: float = 0.0
    rto_s: float | None = None
    rpo_s: float | None = None
    contain_target_s: float | None = None
    """How long the pause may take to be proven, after the detection."""
    stages: Sequence[Stage] = ()
    control: Control | None = None
    entries: Sequence[Entry] = field(default=(), repr=False)
    verdict: Mapping[str, Any] | None = field(default=None, repr=False)
    rows: Reconstitution | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    needed: Needed = field(default_factory=dict, repr=False)
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    """See the module. Times are seconds, ``at`` is ISO 8601; ``None`` was not reached or not measured."""

    drill: str
    scenario: str
    title: str
    app: str
    at: str
    passed: bool
    reasons: tuple[str, ...] = ()
    red: tuple[str, ...] = ()
    seconds: float = 0.0
    rto_s: float | None = None
    rpo_s: float | None = None
    contain_target_s: float | None = None
    incident: str | None = None
    recovery: str | None = None
    plan_hash: str | None = None
    detect_s: float | None = None
    contain_s: float | None = None
    diagnose_s: float | None = None
    recover_s: float | None = None
    verify_s: float | None = None
    total_s: float | None = None
    loss_s: float | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    events: int | None = None
    events_lost: int | None = None
    edits: int | None = None
    edits_lost: int | None = None
    wrong_fields_after: int | None = None
    rows_wrong: int | None = None
    rows_put_right: int | None = None
    rows_changed: int | None = None
    rows_harmed: int | None = None
    precision: float | None = None
    recall: float | None = None
    replay_events: int | None = None
    replay_success: float | None = None
    compensations: int = 0
    compensation_success: float | None = None
    control: Mapping[str, Any] | None = None
    stages: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def document(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "reasons": list(self.reasons), "red": list(self.red), "stages": list(self.stages)}


def read(document: Mapping[str, Any]) -> Scorecard:
    """A card from its document; fields it does not know are left out, so that older and newer cards can be read.
    Raises ``TypeError`` when what makes it a card is missing."""
    known = {f.name for f in fields(Scorecard)}
    given: dict[str, Any] = {
        k: tuple(v) if k in ("reasons", "red", "stages") else v for k, v in document.items() if k in known
    }
    return Scorecard(**given)
