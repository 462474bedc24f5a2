"""A wrecked kiosk comes back to exactly the rows that every legitimate event and edit gives once."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.recovery.kiosk import Kiosk, expected, order

pytestmark = pytest.mark.postgres


def test_both_halves_end_in_the_expected_rows_and_at_work(kiosk: Kiosk) -> None:
    result = kiosk.recover(kiosk.wreck())
    assert result["state"] == "resumed"
    assert kiosk.rows() == expected()
    assert (kiosk.live("intake"), kiosk.live("payment")) == ("good", "good")
    assert kiosk.may_write("intake")
    assert kiosk.may_write("payment")
    assert kiosk.copies == []


@pytest.mark.parametrize("protected_between", [False, True], ids=["same-point", "new-point"])
def test_the_same_version_published_again_is_an_incident_of_its_own(kiosk: Kiosk, protected_between: bool) -> None:
    """What the first recovery undid and replayed is not undone, and not replayed, a second time."""
    first = kiosk.wreck()
    kiosk.recover(first)
    if protected_between:
        kiosk.protect()
    kiosk.call("intake", order("4"))
    kiosk.publish("intake", "bad")
    kiosk.call("intake", order("5", damages="h4"))
    again = kiosk.caught()
    assert again != first
    plan = kiosk.plan(again)
    assert [e.key for e in plan.events] == ["5"]
    assert len(plan.selection) == 1
    kiosk.run(plan)
    wanted = expected()
    wanted["orders"] += [(f"o-{n}", Decimal(20), "new", None, "small") for n in (4, 5)]
    wanted["stock"] = [("jam", 99), ("tea", 100 - 1 - 3 + 10 - 2)]
    assert kiosk.rows() == wanted
