"""How much can be taken back, and what is missing, by name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.coverage import coverage, workflow_coverage
from catalog.load import load

REFUND = (
    "          - name: charge\n            inverse: compensable\n            node: Charge\n"
    "            manual: refund it\n"
    '            compensation: {kind: http, url: "https://pay.example/refund"}\n'
)


def test_shares_and_gaps(write: Callable[..., Path]) -> None:
    app = load(write()).app("shop")
    found = coverage(app)
    assert (found.reversible, found.compensable, found.unprovided, found.irreversible) == (1, 0, 1, 1)
    assert (found.undeclared, found.steps) == (0, 3)
    assert found.covered == pytest.approx(1 / 3)
    assert found.rest == (
        "intake: step 'send mail' cannot be taken back; by hand: nobody wrote down how",
        "payment: step 'charge' could be compensated, and nothing says how; by hand: refund it",
    )
    assert found.gaps == (
        "intake: step 'send mail' is irreversible and has no manual way back (`manual:`)",
        "intake: step 'send mail' names no `node:`, so every undone run counts as having done it",
        "intake: its canary does step 'send mail' for real each time; let the canary's event avoid it",
        "payment: step 'charge' is compensable and has no `compensation:`",
        "payment: step 'charge' names no `node:`, so every undone run counts as having done it",
        "payment: no event key, so its events cannot be replayed",
        "payment: no canary proves it after a recovery",
        "shop.items: written, but no detector watches it",
    )
    assert [workflow_coverage(w).covered for w in app.workflows] == [0.5, 0.0]


def test_a_compensation_covers_its_step(write: Callable[..., Path]) -> None:
    charge = "          - {name: charge, inverse: compensable, manual: refund it}\n"
    found = coverage(load(write(charge, REFUND)).app("shop"))
    assert (found.compensable, found.unprovided) == (1, 0)
    assert found.covered == pytest.approx(2 / 3)
    assert len(found.rest) == 1


def test_who_writes_without_steps_is_not_covered(write: Callable[..., Path]) -> None:
    intake = (
        "          - {name: write order, inverse: reversible}\n          - {name: send mail, inverse: irreversible}\n"
    )
    payment = "          - {name: charge, inverse: compensable, manual: refund it}\n"
    found = coverage(load(write(f"        steps:\n{intake}", "", f"        steps:\n{payment}", "")).app("shop"))
    assert (found.covered, found.undeclared) == (0.0, 2)
    assert "payment: it writes to 1 place and declares no steps" in found.rest
