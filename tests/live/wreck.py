"""An order desk wrecked by the bad version, contained and diagnosed, that each control recovers in its own way.

The wreck is made once (real n8n, real watcher process, real driver process). Database, ledger and store are then kept
aside, so that every test starts from exactly the same wreck.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg import sql

from drills import dumps, processes
from drills.errors import DrillError
from drills.events import look
from drills.judge import Comparison, compare
from drills.n8n_api import N8nApi
from drills.order_desk import DATABASE, EXAMPLE, ORACLE, OrderDesk, definition
from estate import secrets
from platforms.faulty import Faulty
from recovery import session, setup
from recovery.context import AppContext, open_app
from recovery.plan import Plan
from recovery.protect import protect
from tests.conftest import RunningEstate

APP = "order-desk"
KEPT = "order_desk_wrecked"
ORACLE_KEPT = "order_desk_oracle_kept"
CONTAINED = ("Order intake", "Payment", "Status change")
Edit = Callable[[Plan], Plan]
Injector = Callable[..., Callable[[], Faulty]]


@dataclass(kw_only=True)
class Wreck:
    """The wrecked app. ``verdict`` is the judge's, without any recovery."""

    estate: RunningEstate
    desk: OrderDesk
    work: Path
    incident: str = ""
    point: str = ""
    verdict: dict[str, Any] = field(default_factory=dict)
    caught: dict[str, Any] = field(default_factory=dict)
    last_run: int = 0
    quiet_verdict: dict[str, Any] = field(default_factory=dict)
    quiet_active: list[str] = field(default_factory=list)
    alarm: dict[str, Any] | None = None
    """What the watcher contained although nothing was wrong."""

    @property
    def home(self) -> Path:
        return self.estate.home

    @contextmanager
    def opened(self) -> Iterator[AppContext]:
        with open_app(EXAMPLE, APP, self.home) as ctx:
            yield ctx

    def prepare(self) -> None:
        """A healthy, protected app."""
        self.desk.provision()
        with self.opened() as ctx:
            setup.install_roles(ctx, self.desk.superuser_dsn(DATABASE))
            setup.install_journal(ctx)
            self.point = protect(ctx).id

    def stay_quiet(self) -> None:
        """A harmless new version and a burst of traffic under the eyes of the watcher."""
        options = ["--normal-s", "3", "--exposure-max-s", "8"]
        with (
            processes.watcher(self.home, EXAMPLE, self.work) as watcher,
            processes.driver(self.desk.driver_file, self.work, mode="harmless", options=options) as driver,
        ):
            watcher.wait_event("watching", timeout_s=60)
            driver.wait_event("ready", timeout_s=60)
            driver.send("start")
            driver.wait_event("exposure-over", timeout_s=120)
            driver.send("finish 30")
            self.quiet_verdict = driver.wait_event("result", timeout_s=120)
            driver.send("quit")
            with contextlib.suppress(DrillError):
                self.alarm = watcher.wait_event("contained", timeout_s=3)
        with self.opened() as ctx:
            self.quiet_active = sorted(k for k, i in ctx.infos().items() if i.active)

    def wreck(self) -> None:
        """Live traffic, bad version, detection and containment by ``reinstate watch``, then nobody recovers."""
        with (
            processes.watcher(self.home, EXAMPLE, self.work) as watcher,
            processes.driver(self.desk.driver_file, self.work) as driver,
        ):
            watcher.wait_event("watching", timeout_s=60)
            driver.wait_event("ready", timeout_s=60)
            driver.send("start")
            self.caught = watcher.wait_event("contained", timeout_s=120)
            driver.wait_event("paused", timeout_s=60)
            driver.send("dump before")
            driver.wait_event("dumped", timeout_s=60)
            driver.send("finish 3")
            self.verdict = driver.wait_event("result", timeout_s=180)
            driver.send("quit")
        self.incident = str(self.caught["incident"])

    def keep(self) -> None:
        """Put the wreck aside. Runs that later tests make are deleted again."""
        with N8nApi(self.desk.n8n_url, self.desk.n8n_key) as api:
            self.last_run = max(int(r["id"]) for w in api.workflows() for r in api.runs(str(w["id"])))
        with self._admin() as admin:
            self._copy(admin, DATABASE, KEPT)
        shutil.copytree(self.home / "store", self.work / "store")
        for file in self.home.glob("ledger.sqlite*"):
            shutil.copy2(file, self.work / file.name)

    def keep_oracle(self) -> None:
        with self._admin() as admin:
            self._copy(admin, ORACLE, ORACLE_KEPT)

    def restore_oracle(self) -> None:
        with self._admin() as admin:
            self._copy(admin, ORACLE_KEPT, ORACLE)
            admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(ORACLE)))

    def restore(self) -> None:
        """The same wreck again, in database, ledger, store and platform."""
        with N8nApi(self.desk.n8n_url, self.desk.n8n_key) as api:
            workflows = {w["name"]: w for w in api.workflows()}
            for name, found in workflows.items():
                if name.startswith("reinstate replay: "):
                    api.delete_workflow(str(found["id"]))
            for name in CONTAINED:
                if workflows[name]["active"]:
                    api.deactivate(str(workflows[name]["id"]))
            deadline = time.monotonic() + 60
            while api.in_flight() and time.monotonic() < deadline:
                time.sleep(0.2)
            for name in CONTAINED:
                for run in api.runs(str(workflows[name]["id"])):
                    if int(run["id"]) > self.last_run:
                        api.delete_run(str(run["id"]))
            bad = definition("faults/order-intake.bad.json", api.credentials())
            api.publish(str(workflows["Order intake"]["id"]), bad)
        with self._admin() as admin:
            self._copy(admin, KEPT, DATABASE)
        shutil.rmtree(self.home / "store")
        shutil.copytree(self.work / "store", self.home / "store")
        for file in self.home.glob("ledger.sqlite*"):
            file.unlink()
        for file in self.work.glob("ledger.sqlite*"):
            shutil.copy2(file, self.home / file.name)

    def plan(self, edit: Edit = lambda p: p, *, mode: str = "both", policy: str = "refuse") -> Plan:
        """A plan made, perhaps edited, recorded, approved and started."""
        with self.opened() as ctx:
            made = edit(session.make(ctx, self.incident, mode=mode, policy=policy, point=None))
            session.record_plan(ctx, made)
        assert session.approve(EXAMPLE, APP, made, by="tester", reason="control")
        session.started(EXAMPLE, APP, made)
        return made

    def execute_steps(self, plan: Plan) -> None:
        for step in plan.steps:
            session.step(EXAMPLE, APP, plan.recovery_id, step.id)

    def execute(self, plan: Plan) -> dict[str, Any]:
        self.execute_steps(plan)
        return session.finished(EXAMPLE, APP, plan)

    def judge(self) -> Comparison:
        """The app now against the oracle, by the driver's judge."""
        known = secrets.read(self.desk.driver_file)
        found = dumps.take(known["DRIVER_DB_JUDGE"], self.work / "judged")
        expected = dumps.take(known["DRIVER_DB_ORACLE"], self.work / "judged-oracle")
        return compare(found, expected)

    def both(self, statement: str, values: Mapping[str, Any]) -> None:
        """A legitimate edit by staff, in the app and, as the judge's own bookkeeping, in the oracle."""
        known = secrets.read(self.desk.driver_file)
        for name in ("DRIVER_DB_STAFF", "DRIVER_DB_ORACLE"):
            with psycopg.connect(known[name]) as connection:
                connection.execute(statement.encode(), values)

    @contextmanager
    def traffic(self, *, rate: float = 8.0) -> Iterator[None]:
        """Orders to the real webhook until the end of the block; nobody judges afterwards."""
        known = secrets.read(self.desk.driver_file)
        world = look(known["DRIVER_DB_JUDGE"], None)
        over = threading.Event()

        def send() -> None:
            with httpx.Client(timeout=10) as client:
                while not over.wait(1 / rate):
                    with contextlib.suppress(httpx.HTTPError):
                        client.post(f"{self.desk.n8n_url}/webhook/order-intake", json=world.order().body)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            over.set()
            sender.join()

    @contextmanager
    def _admin(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.desk.superuser_dsn("postgres"), autocommit=True) as connection:
            yield connection

    def _copy(self, admin: psycopg.Connection, source: str, target: str) -> None:
        """Copy a database; n8n's pooled connections to it are cut, as they would be by a restart of the server."""
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(target)))
        owner = admin.execute(
            "SELECT pg_get_userbyid(datdba), datacl FROM pg_database WHERE datname = %s", (source,)
        ).fetchone()
        assert owner
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(source)))
        try:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                (source,),
            )
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                    sql.Identifier(target), sql.Identifier(source), sql.Identifier(owner[0])
                )
            )
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(source)))
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(target)))
