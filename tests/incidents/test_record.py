"""An incident is what the ledger says: one open per app, its fields the fold of its entries."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incidents import record
from incidents.errors import AlreadyClosed, UnknownIncident
from incidents.record import FOLDED, Status
from incidents.severity import Severity
from ledger import Ledger, kinds
from ledger.entry import Entry

DAY = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = DAY

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger", clock=clock) as opened:
        yield opened


def opened(ledger: Ledger, app: str = "desk", **fields: Any) -> record.Incident:
    return record.open_incident(ledger, app, **{"severity": "sev2", "title": "wrong totals", **fields})


def test_an_opened_incident_tells_what_it_was_opened_with(ledger: Ledger, clock: Clock) -> None:
    seen = DAY - timedelta(seconds=3)
    finding = {"message": "12 duplicates", "table": "public.orders", "rows": 12}
    found = opened(ledger, impact="orders billed twice", workflows=["intake"], findings=[finding], detected_at=seen)
    assert found == record.read(ledger, found.id) == record.find_open(ledger, "desk")
    assert (found.id, found.app, found.severity, found.status) == (
        "INC-20261121-0001",
        "desk",
        Severity.SEV2,
        Status.OPEN,
    )
    assert (found.title, found.impact, found.workflows) == ("wrong totals", "orders billed twice", ("intake",))
    assert (found.detected_at, found.opened_at, found.findings) == (seen, clock.now, (finding,))


def test_a_second_detector_joins_the_open_incident(ledger: Ledger) -> None:
    first = opened(ledger, workflows=["intake"], findings=[{"rows": 1}])
    second = opened(ledger, severity="sev1", workflows=["stock", "intake"], findings=[{"rows": 2}])
    assert second.id == first.id
    assert second.severity is Severity.SEV1
    assert second.workflows == ("intake", "stock")
    assert [f["rows"] for f in second.findings] == [1, 2]
    assert opened(ledger, severity="sev3").severity is Severity.SEV1
    assert [e.kind for e in ledger.entries()] == ["incident.opened", "incident.joined", "incident.joined"]


def test_detectors_at_the_same_instant_make_one_incident(ledger: Ledger) -> None:
    start = threading.Barrier(5)
    ids: list[str] = []

    def detect() -> None:
        start.wait()
        ids.append(opened(ledger).id)

    threads = [threading.Thread(target=detect) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids == ["INC-20261121-0001"] * 5
    assert len(ledger.entries(kinds=[kinds.INCIDENT_OPENED])) == 1


def test_ids_count_per_day_over_all_apps(ledger: Ledger, clock: Clock) -> None:
    ids = [opened(ledger, app).id for app in ("desk", "shop")]
    record.close(ledger, ids[0], reason="done")
    ids.append(opened(ledger).id)
    clock.now += timedelta(days=1)
    ids.append(opened(ledger, "mail").id)
    assert ids == ["INC-20261121-0001", "INC-20261121-0002", "INC-20261121-0003", "INC-20261122-0001"]
    assert [i.id for i in record.all_of(ledger)] == ids
    assert [i.id for i in record.all_of(ledger, "shop")] == [ids[1]]


def test_the_status_follows_the_entries(ledger: Ledger, clock: Clock) -> None:
    incident = opened(ledger).id

    def then(kind: str, **body: Any) -> Status:
        clock.now += timedelta(seconds=1)
        ledger.append(kind, app="desk", incident=incident, recovery="R1", body=body)
        return record.read(ledger, incident).status

    assert then(kinds.CONTAIN_STARTED) is Status.OPEN
    assert then(kinds.CONTAIN_PROVEN, workflows=["pay"]) is Status.CONTAINED
    assert then(kinds.RECOVERY_STARTED) is Status.RECOVERING
    assert then(kinds.CONTAIN_PROVEN) is Status.RECOVERING
    assert then(kinds.RECOVERY_STOPPED, reason="suites failed") is Status.STOPPED
    assert then(kinds.RECOVERY_STARTED) is Status.RECOVERING
    assert then(kinds.RECOVERY_FINISHED, state="data-restored") is Status.RESTORED
    assert then(kinds.RECOVERY_FINISHED, state="resumed") is Status.RECOVERED
    assert then(kinds.CONTAIN_PROVEN) is Status.CONTAINED
    assert then(kinds.RECOVERY_FINISHED) is Status.RECOVERED
    found = record.close(ledger, incident, reason="all is well", by="ann")
    assert (found.status, found.status.closed, found.reason) == (Status.RESOLVED, True, "all is well")
    assert (found.contained_at, found.recoveries) == (DAY + timedelta(seconds=2), ("R1",))
    assert (found.recovered_at, found.closed_at) == (DAY + timedelta(seconds=10), clock.now)


def test_a_closed_incident_stays_closed(ledger: Ledger) -> None:
    first = opened(ledger)
    closed = record.close(ledger, first.id, reason="nothing was wrong", false_alarm=True)
    assert closed.status is Status.FALSE_ALARM
    assert record.find_open(ledger, "desk") is None
    assert record.close(ledger, first.id, reason="again", false_alarm=True) == closed
    with pytest.raises(AlreadyClosed, match=first.id):
        record.close(ledger, first.id, reason="it was real")
    assert len(ledger.entries()) == 2
    assert opened(ledger).id != first.id


def test_unknown_incidents_are_named(ledger: Ledger) -> None:
    for act in (lambda: record.read(ledger, "INC-9"), lambda: record.close(ledger, "INC-9", reason="x")):
        with pytest.raises(UnknownIncident, match="INC-9"):
            act()
    assert ledger.entries() == []


def test_a_wrong_severity_opens_nothing(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="minor"):
        opened(ledger, severity="minor")
    assert ledger.entries() == []


BODIES = st.dictionaries(
    st.sampled_from(["severity", "workflows", "findings", "state", "resolution", "detected_at", "title"]),
    st.sampled_from(["sev1", "resumed", "false-alarm", 3, None, ["a"], [{}], {"a": 1}]),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*FOLDED, "other"]), BODIES), max_size=8))
def test_any_entries_fold_to_an_incident(history: list[tuple[str, dict[str, Any]]]) -> None:
    entries = [
        Entry(
            seq=i,
            at=DAY + timedelta(seconds=i),
            kind=kind,
            app="desk",
            incident="INC-1",
            recovery=None,
            step=None,
            body=body,
            prev_hash="",
            hash="",
        )
        for i, (kind, body) in enumerate(history, start=1)
    ]
    found = record.fold(entries)
    assert set(found) == ({"INC-1"} if any(kind == kinds.INCIDENT_OPENED for kind, _ in history) else set())


PLAYBOOK = {"key": "bad-version", "title": "Bad version", "owner": "ann", "steps": ["Look."]}


def test_what_the_open_incident_knows_is_not_recorded_again(ledger: Ledger) -> None:
    news = {"workflows": ["intake"], "findings": [{"detector": "twice", "rows": 1}], "playbook": PLAYBOOK}
    first = opened(ledger, severity="sev2", impact="Orders are billed twice.", **news)
    more = {**news, "findings": [{"detector": "twice", "rows": 900}]}
    assert opened(ledger, severity="sev3", **more) == first
    assert len(ledger.entries()) == 1
    other = {**news, "findings": [{"detector": "orphans"}], "playbook": {"key": "other"}}
    second = opened(ledger, severity="sev3", impact="Goods are picked in vain.", **other)
    assert second.impact == "Orders are billed twice. Goods are picked in vain."
    assert second.playbook == PLAYBOOK  # the worse finding keeps its own
    worst = opened(ledger, severity="sev1", impact="Orders are billed twice.", **other)
    assert (worst.severity, worst.playbook) == (Severity.SEV1, {"key": "other"})
    assert worst.impact == second.impact
    opened(ledger, severity="sev3", workflows=["stock"], findings=[{"detector": "twice"}])
    opened(ledger, severity="sev3", by="ann", **news)  # a person's word is always news
    assert [e.kind for e in ledger.entries()] == ["incident.opened", *["incident.joined"] * 4]


def test_an_open_incident_tells_what_it_waits_for(ledger: Ledger) -> None:
    incident = opened(ledger).id
    until = DAY + timedelta(hours=1)

    def then(kind: str, plan: str = "h1", recovery: str = "R1", **body: Any) -> record.Awaiting | None:
        ledger.append(kind, app="desk", incident=incident, recovery=recovery, body={"plan_hash": plan, **body})
        return record.read(ledger, incident).awaiting

    waiting = record.Awaiting(what=record.Await.APPROVAL, plan_hash="h1", recovery="R1", expires_at=until)
    assert then(kinds.PLAN_SHOWN, expires_at=until) == waiting
    assert then(kinds.PLAN_APPROVED, "h0") == waiting  # another plan's
    rejected = then(kinds.PLAN_REJECTED, by="ann", reason="not now")
    assert rejected == replace(waiting, what=record.Await.REJECTED, by="ann", reason="not now")
    assert then(kinds.PLAN_SHOWN, "h2", "R2") == record.Awaiting(
        what=record.Await.APPROVAL, plan_hash="h2", recovery="R2"
    )
    expired = then(kinds.PLAN_EXPIRED, "h2", "R2")
    assert expired is not None
    assert expired.what == "expired"
    assert then(kinds.PLAN_SHOWN, "h3", "R2") is not None
    assert then(kinds.PLAN_APPROVED, "h3", "R2") is None
    then(kinds.PLAN_SHOWN, "h4", "R2")
    assert then(kinds.RECOVERY_STARTED, "h4", "R2") is None
    then(kinds.PLAN_SHOWN, "h5", "R2")
    assert record.close(ledger, incident, reason="by hand").awaiting is None
