"""An anomaly under live traffic, several times: a wrong commit, its containment, and the recovery that it starts.

The wrong commit is one order written a second time, by the database role of the order intake: its moment is known
exactly, which it would not be for a run inside n8n. Everything that follows is the product as `reinstate up` runs it.
Between two rounds the row is removed and the incident closed by an override, so that each round finds a healthy app.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import psycopg

from benchmarks.service import APP, BenchmarkError, Say, Service, until
from drills.events import look
from drills.order_desk import DATABASE, EXAMPLE, OrderDesk
from estate import secrets
from incidents import record
from ledger import kinds

ROUNDS: Final = 5
ORDERS_PER_S: Final = 6.0
QUIET_S: Final = 4.0
PATIENCE_S: Final = 60.0
INTAKE_ROLE: Final = "wf_order_intake"
TWICE: Final = """
INSERT INTO desk.orders (id, customer_id, reference, total, placed_at, region)
SELECT gen_random_uuid(), customer_id, reference, total, now(), region FROM desk.orders ORDER BY placed_at DESC LIMIT 1
RETURNING id
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Seconds from just before the wrong commit to its detection and to the proven pause, and from the event to the
    recovery running."""

    detected_s: float
    contained_s: float
    running_s: float


def rounds(service: Service, say: Say, *, number: int = ROUNDS) -> list[Round]:
    """Play it ``number`` times. Raises :class:`BenchmarkError` when something does not happen at all."""
    at = service.addresses
    desk = OrderDesk(superuser_dsn=at.superuser_dsn, n8n_url=at.n8n_url, n8n_key=at.n8n_api_key, home=service.home)
    intake = desk.dsn(DATABASE, INTAKE_ROLE, secrets.read(service.home / "order-desk.env"))
    played = []
    with traffic(service):
        for n in range(1, number + 1):
            time.sleep(QUIET_S)
            found = once(service, desk, intake)
            say(
                f"round {n}: detected after {found.detected_s:.2f} s, contained after {found.contained_s:.2f} s; "
                f"recovery running {found.running_s:.2f} s after its event"
            )
            played.append(found)
    return played


def once(service: Service, desk: OrderDesk, intake: str) -> Round:
    with psycopg.connect(intake) as connection:
        row = connection.execute(TWICE).fetchone()
        begun = datetime.now(UTC)
        connection.commit()
    assert row is not None  # noqa: S101 - the desk has orders
    try:
        incident = until(lambda: record.find_open(service.ledger, APP), timeout_s=PATIENCE_S, what="an open incident")
        proven = entry(service, incident.id, kinds.CONTAIN_PROVEN)
        announced = entry(service, incident.id, kinds.INCIDENT_ANNOUNCED)
        occurred = event(service, str(announced.body["event"]))
        run = until(lambda: run_since(service, occurred), timeout_s=PATIENCE_S, what="a recovery", every_s=0.2)
        began = until(lambda: first_running(service, run), timeout_s=PATIENCE_S, what="it running", every_s=0.2)
        until(lambda: over(service, run), timeout_s=3 * PATIENCE_S, what="the recovery's end", every_s=0.5)
    finally:
        with psycopg.connect(desk.superuser_dsn(DATABASE)) as connection:
            connection.execute("DELETE FROM desk.orders WHERE id = %s", row)
    heal(incident.id)
    return Round(
        detected_s=(incident.detected_at - begun).total_seconds(),
        contained_s=(proven.at - begun).total_seconds(),
        running_s=(began - occurred).total_seconds(),
    )


def entry(service: Service, incident: str, kind: str) -> Any:
    """The incident's first entry of a kind, once it is there."""

    def find() -> Any:
        found = service.ledger.entries(incident=incident, kinds=[kind])
        return found[0] if found else None

    return until(find, timeout_s=PATIENCE_S, what=f"{kind} of {incident}")


def event(service: Service, event_id: str) -> datetime:
    """When the event says it happened."""

    def find() -> datetime | None:
        answer = service.post("/events/filter", {"filter": {"id": {"id": [event_id]}}})
        return datetime.fromisoformat(answer["events"][0]["occurred"]) if answer["events"] else None

    return until(find, timeout_s=PATIENCE_S, what=f"the event {event_id} at the Prefect server", every_s=0.2)


def run_since(service: Service, when: datetime) -> str | None:
    """The recovery that was created after ``when``."""
    for run in service.post("/flow_runs/filter", {"flows": {"name": {"any_": ["recover"]}}}):
        if datetime.fromisoformat(run["created"]) >= when:
            return str(run["id"])
    return None


def first_running(service: Service, run: str) -> datetime | None:
    """When the run's first Running state was set."""
    times = [
        datetime.fromisoformat(state["timestamp"])
        for state in service.get(f"/flow_run_states/?flow_run_id={run}")
        if state["type"] == "RUNNING"
    ]
    return min(times, default=None)


def over(service: Service, run: str) -> bool:
    """Whether it ended. One that waits for an approval is ended: nobody will give it."""
    state = service.get(f"/flow_runs/{run}")["state"]["type"]
    if state == "PAUSED":
        service.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
    return state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def heal(incident: str) -> None:
    """The app at work again, on record as an override."""
    from recovery import manual

    manual.resume(EXAMPLE, APP, incident=incident, by="benchmark", override="the wrong row was removed")


@contextmanager
def traffic(service: Service) -> Iterator[None]:
    """Orders to the real webhook for as long as the block lasts."""
    known = secrets.read(service.home / "driver.env")
    world = look(known["DRIVER_DB_JUDGE"], None)
    ended, taken = threading.Event(), [0]

    def send() -> None:
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not ended.wait(1 / ORDERS_PER_S):
                with suppress(httpx.HTTPError):
                    answer = client.post(f"{known['DRIVER_N8N_URL']}/webhook/order-intake", json=world.order().body)
                    taken[0] += answer.is_success

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield
    finally:
        ended.set()
        sender.join()
    if not taken[0]:
        raise BenchmarkError("traffic: the order intake took no order at all, so nothing was measured under load")
