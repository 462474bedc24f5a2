"""A wrecked kiosk comes back to exactly the rows that every legitimate event and edit gives once."""

from __future__ import annotations

import pytest

from tests.recovery.kiosk import Kiosk, expected

pytestmark = pytest.mark.postgres


def test_both_halves_end_in_the_expected_rows_and_at_work(kiosk: Kiosk) -> None:
    result = kiosk.recover(kiosk.wreck())
    assert result["state"] == "resumed"
    assert kiosk.rows() == expected()
    assert (kiosk.live("intake"), kiosk.live("payment")) == ("good", "good")
    assert kiosk.may_write("intake")
    assert kiosk.may_write("payment")
    assert kiosk.copies == []
