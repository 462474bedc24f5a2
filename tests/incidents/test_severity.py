"""The same damage is worse in a critical app, and never milder for a worse finding."""

from itertools import product

import pytest

from catalog.models import Tier
from incidents.severity import Severity, severity, worse, worst

WORDS = [s.value for s in Severity]


@pytest.mark.parametrize(
    ("tier", "finding", "expected"),
    [
        (Tier.CRITICAL, "sev1", "sev1"),
        (Tier.CRITICAL, "sev2", "sev1"),
        (Tier.HIGH, "sev2", "sev2"),
        (Tier.NORMAL, "sev3", "sev3"),
        (Tier.LOW, "sev1", "sev2"),
        (Tier.LOW, "sev3", "sev3"),
    ],
)
def test_tier_moves_the_finding(tier: Tier, finding: str, expected: str) -> None:
    assert severity(tier, finding) == expected


def test_a_more_critical_tier_or_worse_finding_is_never_milder() -> None:
    for (tier, finding), (tier2, finding2) in product(product(Tier, WORDS), repeat=2):
        if list(Tier).index(tier) <= list(Tier).index(tier2) and finding <= finding2:
            assert severity(tier, finding) <= severity(tier2, finding2)


def test_several_findings_count_as_the_worst() -> None:
    assert worst(Tier.NORMAL, ["sev3", "sev2", "sev3"]) is Severity.SEV2
    assert worst(Tier.CRITICAL, []) is Severity.SEV3
    assert worse("sev3", "sev1") is Severity.SEV1


def test_another_word_is_no_severity() -> None:
    with pytest.raises(ValueError, match="minor"):
        severity(Tier.NORMAL, "minor")
