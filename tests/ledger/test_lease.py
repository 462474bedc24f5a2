"""One recovery per app: the second is told who holds it, and a dead holder is in nobody's way."""

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger import Ledger, process
from ledger.errors import LeaseHeld, LeaseLost, Refused

HOLDER = """
import sys, time
from ledger import Ledger
lease = Ledger(sys.argv[1]).lease("desk", "recovery R1", ttl_s=300)
print(lease.fencing, flush=True)
time.sleep(60)
"""


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_second_holder_is_refused_and_told_who_holds_it(path: Path, clock: Clock) -> None:
    with Ledger(path, clock=clock) as ledger, Ledger(path, clock=clock) as other:
        with ledger.lease("desk", "recovery R1") as lease, pytest.raises(LeaseHeld) as raised:
            other.lease("desk", "recovery R2")
        error = raised.value
        assert (error.app, error.holder, error.since, error.retryable) == ("desk", "recovery R1", clock.now, True)
        for part in ("desk", "recovery R1", f"process {os.getpid()}", "2026-11-21 12:00:00", "12:01:00", "wait"):
            assert part in str(error)
        assert "\n" not in str(error)
        with other.lease("desk", "recovery R2") as next_lease:
            assert next_lease.fencing == lease.fencing + 1
        assert ledger.entries() == []  # nothing was taken over


def test_apps_do_not_exclude_each_other(ledger: Ledger) -> None:
    with ledger.lease("desk", "a"), ledger.lease("shop", "b"):
        pass


def test_a_lease_that_ran_out_is_taken_over_on_record(path: Path, clock: Clock) -> None:
    with Ledger(path, clock=clock) as ledger:
        old = ledger.lease("desk", "R1", ttl_s=60)
        clock.now += timedelta(seconds=59)
        with pytest.raises(LeaseHeld):
            ledger.lease("desk", "R2")
        clock.now += timedelta(seconds=2)
        new = ledger.lease("desk", "R2")
        [entry] = ledger.entries()
        assert entry.kind == "lease.taken_over"
        assert entry.body["previous"] == "R1"
        assert entry.body["reason"] == "it ran out at 2026-11-21 12:01:00 UTC"
        assert entry.body["fencing"] == new.fencing == old.fencing + 1
        for act in (old.renew, lambda: ledger.append("step.intent", app="desk", lease=old), old.check):
            with pytest.raises(LeaseLost):
                act()
        assert len(ledger.entries()) == 1
        old.release()  # must not end the new holder's lease
        ledger.append("step.intent", app="desk", lease=new)
        new.release()
        assert ledger.verify() == []


def test_renewing_keeps_it(path: Path, clock: Clock) -> None:
    with Ledger(path, clock=clock) as ledger, ledger.lease("desk", "R1", ttl_s=60) as lease:
        for _ in range(5):
            clock.now += timedelta(seconds=50)
            lease.renew()
        lease.check()
        with pytest.raises(LeaseHeld):
            ledger.lease("desk", "R2")


def test_the_background_renews_it(ledger: Ledger) -> None:
    with ledger.lease("desk", "R1", ttl_s=6.0) as lease:
        first = lease._valid_until
        while lease._valid_until == first:
            assert time.monotonic() < first, "it was not renewed before it ran out"
            time.sleep(0.05)
        lease.check()
        with pytest.raises(LeaseHeld):
            ledger.lease("desk", "R2")


def test_a_holder_that_cannot_renew_stops_itself(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from ledger.errors import Unreachable
    from ledger.lease import Lease

    def unreachable(_self: object) -> None:
        raise Unreachable("gone")

    monkeypatch.setattr(Lease, "renew", unreachable)
    lease = ledger.lease("desk", "R1", ttl_s=0.3)
    time.sleep(0.4)
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()


def test_a_killed_holder_is_taken_over_at_once(ledger: Ledger, path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        fencing = int(holder.stdout.readline())
        with pytest.raises(LeaseHeld, match="recovery R1"):
            ledger.lease("desk", "R2")
        holder.kill()
        # Not waited for yet: a zombie holds nothing either.
        deadline = time.monotonic() + 5
        while True:
            try:
                lease = ledger.lease("desk", "R2")
                break
            except LeaseHeld:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        with lease:
            assert lease.fencing == fencing + 1
        [entry] = ledger.entries()
        assert f"process {holder.pid}" in entry.body["reason"]
        assert "ended without releasing it" in entry.body["reason"]
    finally:
        holder.kill()
        holder.communicate()


def test_a_process_of_another_machine_is_never_called_dead() -> None:
    me = process.current()
    assert not process.surely_dead(me)
    assert process.surely_dead(process.Process(host=me.host, pid=me.pid, started="1"))
    assert not process.surely_dead(process.Process(host="elsewhere/x", pid=me.pid, started="1"))


def test_of_many_at_once_one_gets_it(ledger: Ledger) -> None:
    start = threading.Barrier(6)
    got: list[object] = []

    def take(name: str) -> None:
        start.wait()
        try:
            got.append(ledger.lease("desk", name))
        except LeaseHeld as error:
            got.append(error)

    threads = [threading.Thread(target=take, args=(f"R{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [g for g in got if not isinstance(g, LeaseHeld)]
    assert len(got) == 6
    assert len(held) == 1
    held[0].release()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("app", "holder", "ttl"), [("", "x", 1), ("a", "", 1), ("a", "x", 0)])
def test_a_lease_needs_names_and_time(ledger: Ledger, app: str, holder: str, ttl: float) -> None:
    with pytest.raises(Refused):
        ledger.lease(app, holder, ttl)
