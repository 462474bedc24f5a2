"""Two workflows that are not idempotent, an ingress's queue before them, and a wire with faults, for tests that count
what events have done."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from ingress.model import State
from ingress.queue import Queue
from ledger import Ledger
from platforms.base import Platform, RunState
from platforms.fake import EVERYTHING, FLOW_ENGINE, EntryClosed, FakePlatform
from platforms.stand_in import StandIn
from recovery import delivery, held
from recovery.context import AppContext
from recovery.held import Release
from snapshots.store.store import Store
from tests.recovery.kiosk import app_model

WORKFLOWS = {"intake": "Intake", "payment": "Payment"}
UNCLEAR = {
    "code": 404,
    "message": "This webhook is not registered for POST requests. Did you mean to make a GET request?",
}
"""n8n says it of a paused workflow whose path another one has; a workflow that called such a path may hand it on."""


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Desk:
    """Two workflows of a platform in memory that insert a row per run, an ingress's queue, and a wire with faults.
    Each strike hits the next event that is sent."""

    database: psycopg.Connection[Any]
    folder: Path
    reads_back: bool
    strikes: list[str | None] = field(default_factory=list)
    killed: bool = False

    def __post_init__(self) -> None:
        can = EVERYTHING if self.reads_back else FLOW_ENGINE
        self.fake = FakePlatform(self.work, capabilities=can)
        self.ids = {
            k: self.fake.add({"name": n, "nodes": [], "connections": {}, "settings": {}}, active=True)
            for k, n in WORKFLOWS.items()
        }
        self.queue = Queue(self.folder / "events.sqlite", app="kiosk")
        self.base: Platform = StandIn(
            self.fake, self.queue, lambda listed: {i.name.lower(): i for i in listed if i.name in WORKFLOWS.values()}
        )
        self.writing = threading.Lock()
        self.late: list[threading.Thread] = []
        self.order: list[str] = []
        self.database.execute("TRUNCATE effect")

    def work(self, _: Any, event: Mapping[str, Any], run: str) -> dict[str, Any]:
        body = event["body"]
        if body.get("fails") is True:
            raise ValueError("refused on purpose")
        with self.writing:
            self.database.execute("INSERT INTO effect VALUES (%s, %s)", (body["event"], run))
            self.order.append(body["event"])
        if body.get("fails"):
            raise ValueError("failed on purpose, with its row written")
        return {"Work": [{}]}

    def open(self) -> AppContext:
        """A context as a new process has it."""
        return AppContext(
            home=self.folder,
            catalog_path=self.folder,
            app=app_model(ingress={}),
            platform=self.base,
            ledger=Ledger(self.folder / "ledger.sqlite"),
            store=Store(str(self.folder / "store")),
            events=self.queue,
        )

    def hold(self, *keys: str, workflow: str = "intake", **body: Any) -> None:
        for key in keys:
            self.queue.record(
                workflow=workflow,
                key=key,
                method="POST",
                path=f"/{workflow}",
                query="",
                headers=[("content-type", "application/json")],
                body=httpx.Request("POST", "http://x", json={"event": key, **body}).content,
            )

    def wire(self, request: httpx.Request) -> httpx.Response:
        """The way to the platform, with the next strike on it."""
        strike = self.strikes.pop(0) if self.strikes else None
        if strike == "refused":
            raise httpx.ConnectError("refused")
        if strike == "timeout":
            raise httpx.ReadTimeout("time-out")
        if strike == "killed before":
            raise Killed
        sent = {"headers": dict(request.headers), "query": {}, "body": {}}
        sent["body"] = httpx.Response(200, content=request.content).json()
        if strike in ("fails", "fails, killed later"):
            sent["body"]["fails"] = "late"
        own = self.ids[request.url.path.strip("/")]
        if strike == "slow":
            later = threading.Timer(0.03, self.call, (own, sent))
            self.late.append(later)
            later.start()
            raise httpx.ReadTimeout("time-out")
        if strike == "unclear":
            return httpx.Response(404, json=UNCLEAR)
        status = self.call(own, sent)
        if strike == "ran, unclear":
            return httpx.Response(404, json=UNCLEAR)
        if strike == "ran, unclear, paused":
            self.fake.deactivate(own)
            return httpx.Response(404, json=UNCLEAR)
        if strike == "lost":
            raise httpx.RemoteProtocolError("cut")
        if strike == "gateway":
            return httpx.Response(504)
        if strike == "killed after":
            raise Killed
        if strike in ("killed later", "fails, killed later"):
            self.killed = True
        return httpx.Response(status, json={})

    def call(self, own: str, event: Mapping[str, Any]) -> int:
        try:
            run = self.fake.call(own, event)
        except EntryClosed:
            return 404
        return 200 if run.state is RunState.SUCCESS else 500

    def release(self, *workflows: str, **more: Any) -> held.Released:
        ctx = self.open()
        going = Release(
            ctx=ctx,
            queue=self.queue,
            workflows=workflows or ("intake", "payment"),
            incident="INC-1",
            recovery="INC-1-R1",
            say=lambda _: None,
            transport=httpx.MockTransport(self.wire),
            **more,
        )
        return going.run()

    def effects(self) -> Counter[str]:
        for later in self.late:
            later.join()
        return Counter(e for (e,) in self.database.execute("SELECT event FROM effect"))

    def states(self) -> dict[str, State]:
        return {str(e.key): e.state for e in self.queue.events()}

    def unknown(self) -> set[str]:
        return {str(e.body["event"]).partition(":")[2] for e in delivery.unknown(self.open())}

    def close(self) -> None:
        for later in self.late:
            later.join()
        self.queue.close()
