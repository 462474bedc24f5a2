"""Points lean on the newest readable one, as the catalogue allows, and the retention follows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.protect import newest, protect, retain
from snapshots.points import points
from tests.recovery.kiosk import Kiosk

pytestmark = pytest.mark.postgres


def _manifest(kiosk: Kiosk, point_id: str) -> Path:
    return kiosk.home / "store" / "points" / "kiosk" / f"{point_id}.json"


def test_a_point_leans_on_the_newest_one_that_can_be_read(kiosk: Kiosk) -> None:
    ctx = kiosk.open()
    first = protect(ctx, method="full")
    kiosk.clerk("UPDATE kiosk.orders SET note = 'by hand' WHERE id = 'h3'")
    second = protect(ctx)
    assert (first.base, second.base) == (None, first.id)
    assert {t.method for t in second.tables} <= {"journal", "scan"}
    taken = [e.body for e in ctx.ledger.entries() if e.kind == "point.taken"]
    assert [b["base"] for b in taken[-2:]] == [None, first.id]

    _manifest(kiosk, second.id).write_text("{")
    said: list[str] = []
    assert newest(ctx, say=said.append) == first
    assert any(second.id in line for line in said)
    third = protect(ctx)
    assert third.base == first.id
    assert points.audit(ctx.store, third) == ()


def test_the_catalogue_decides_how(kiosk: Kiosk) -> None:
    kiosk.configure(capture={"method": "scan", "full_after": 1, "fingerprint": True, "workers": 1})
    ctx = kiosk.open()
    first = protect(ctx, method="full")
    assert all(t.fingerprint for t in first.tables)
    second = protect(ctx)
    assert {t.method for t in second.tables} == {"scan"}
    third = protect(ctx)
    assert third.base is None, "one point leans on the base, and no more may"


def test_the_retention_follows_and_waits_for_a_recovery(kiosk: Kiosk) -> None:
    kiosk.configure(store={"keep": {"last": 2, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}})
    ctx = kiosk.open()
    taken = [protect(ctx).id for _ in range(4)]
    said: list[str] = []
    with ctx.ledger.lease("kiosk", "a recovery", ttl_s=30):
        assert retain(ctx, say=said.append) is None
    assert "old points stay for now" in said[-1]
    done = retain(ctx, say=said.append)
    assert done is not None
    assert set(taken[:2]) <= set(done.dropped)
    assert ctx.store.point_ids("kiosk") == taken[2:]
    assert points.audit(ctx.store, points.load(ctx.store, "kiosk", taken[-1])) == ()
    again = retain(ctx, say=said.append)
    assert again is not None
    assert not again.dropped
