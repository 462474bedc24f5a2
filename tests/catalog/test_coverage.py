"""How much can be taken back, and what is missing, by name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.coverage import coverage
from catalog.load import load


def test_shares_and_gaps(write: Callable[..., Path]) -> None:
    found = coverage(load(write()).app("shop"))
    assert (found.reversible, found.compensable, found.irreversible, found.steps) == (1, 1, 1, 3)
    assert found.covered == pytest.approx(2 / 3)
    assert found.gaps == (
        "intake: step 'send mail' is irreversible and has no manual way back",
        "payment: no event key, so its events cannot be replayed",
        "payment: no canary proves it after a recovery",
        "shop.items: written, but no detector watches it",
    )


def test_no_steps_is_no_coverage(write: Callable[..., Path]) -> None:
    intake = (
        "          - {name: write order, inverse: reversible}\n          - {name: send mail, inverse: irreversible}\n"
    )
    payment = "          - {name: charge, inverse: compensable, manual: refund it}\n"
    found = coverage(load(write(f"        steps:\n{intake}", "", f"        steps:\n{payment}", "")).app("shop"))
    assert found.covered == 0.0
    assert "payment: writes 1 places but declares no steps" in found.gaps
