"""How bad an incident is: what was found, weighed by how critical the app is. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from catalog.models import Tier


class Severity(StrEnum):
    """``sev1`` is the worst."""

    SEV1 = "sev1"
    SEV2 = "sev2"
    SEV3 = "sev3"


_ORDER = (Severity.SEV1, Severity.SEV2, Severity.SEV3)

SHIFT: dict[Tier, int] = {Tier.CRITICAL: -1, Tier.HIGH: 0, Tier.NORMAL: 0, Tier.LOW: 1}
"""Steps by which the tier moves a finding's own severity: the same damage is worse in a critical app."""


def severity(tier: Tier, finding: str) -> Severity:
    """The severity of an incident from one finding's. Raises ``ValueError`` for a word that is no severity."""
    level = _ORDER.index(Severity(finding)) + SHIFT[tier]
    return _ORDER[min(max(level, 0), len(_ORDER) - 1)]


def worst(tier: Tier, findings: Iterable[str]) -> Severity:
    """The severity of an incident with several findings: that of the worst one; the mildest when there is none."""
    return min((severity(tier, f) for f in findings), default=Severity.SEV3, key=_ORDER.index)


def worse(one: str, other: str) -> Severity:
    """The worse of two severities."""
    return min(Severity(one), Severity(other), key=_ORDER.index)
