"""An order desk wrecked by the bad version, contained and diagnosed, that each control recovers in its own way.

The wreck is made once, by the acts of a drill (real n8n, real watcher process, real driver process). Database, ledger
and store are then kept aside, so that every test starts from exactly the same wreck, and each can be scored as a drill
that went on from there.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml
from psycopg import sql

from drills import acts, dumps, rehearsal
from drills.events import look
from drills.judge import Comparison, compare
from drills.n8n_api import N8nApi
from drills.order_desk import DATABASE, EXAMPLE, ORACLE, OrderDesk, definition
from drills.reconstitution import Reconstitution, between
from drills.sandbox import APP, Place
from drills.scenarios import SCENARIOS
from drills.scorecard import Control, Observed, Scorecard, Stage
from drills.scoring import score
from estate import secrets
from platforms.faulty import Faulty
from recovery import session
from recovery.context import AppContext
from recovery.plan import Plan
from tests.conftest import RunningEstate

__all__ = ["APP", "CONTAINED", "Injector", "Wreck"]

SCENARIO = SCENARIOS["bad-version"]
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
    before: tuple[dumps.Dump, Comparison] | None = None
    last_run: int = 0
    control: Control | None = None
    """The negative control under the real watcher."""
    alarmed: Control | None = None
    """The same under a watcher that cries wolf."""
    unrecovered: Scorecard | None = None

    @property
    def home(self) -> Path:
        return self.estate.home

    @property
    def place(self) -> Place:
        return Place(home=self.home, desk=self.desk, work=self.work)

    @contextmanager
    def opened(self) -> Iterator[AppContext]:
        with self.place.opened() as ctx:
            yield ctx

    def prepare(self) -> None:
        """A healthy, protected app."""
        self.point = self.place.prepare()

    def cry_wolf(self) -> None:
        """The negative control under a broken product: a detector that takes every new order for damage."""
        folder = self.work / "wolf"
        shutil.copytree(EXAMPLE, folder)
        file = folder / "catalog.yaml"
        catalog = yaml.safe_load(file.read_text("utf-8"))
        wolf = {"key": "wolf", "kind": "rule", "table": "desk.orders", "sql": "false", "impact": "None."}
        catalog["apps"][0]["detectors"].append(wolf)
        file.write_text(yaml.safe_dump(catalog), "utf-8")
        self.alarmed = acts.stay_quiet(replace(self.place, catalog=folder), SCENARIO.negative_mode)

    def stay_quiet(self) -> None:
        """A harmless new version and a burst of traffic under the eyes of the watcher."""
        self.control = acts.stay_quiet(self.place, SCENARIO.negative_mode)

    def wreck(self) -> None:
        """Live traffic, bad version, detection and containment by ``reinstate watch``, then nobody recovers."""
        with acts.on_stage(self.place, SCENARIO.mode) as cast:
            self.incident = str(acts.strike(cast)["incident"])
            self.verdict = acts.finish(cast, patience_s=3.0)
        found = dumps.read(self.work / "before")
        self.before = found, compare(found, dumps.read(self.work / "before-oracle"))
        self.unrecovered = self.card()

    def observed(self, error: BaseException | None = None, *, incident: str = "", judged: bool = True) -> Observed:
        """What a drill would have seen that went on from the wreck as this test did. How long ago the wreck was made
        and how long its containment took says nothing about the test."""
        verdict: dict[str, Any] | None = None
        rows: Reconstitution | None = None
        if judged:
            assert self.before is not None
            found, now = self.compared()
            rows = between(self.before[1], now, before=self.before[0], after=found)
            lost = None if now.wrong else 0
            verdict = {
                **self.verdict, "wrong_fields_after": now.wrong_fields, "legit_events_lost": lost,
                "legit_edits_lost": lost,
            }  # fmt: skip
        base = Observed(
            drill="DRILL-20261121-0001",
            scenario=SCENARIO.key,
            title=SCENARIO.title,
            app=APP,
            at="2026-11-21T00:00:00+00:00",
            rto_s=86_400.0,
            stages=(Stage(name="recovery", seconds=0.0, error=str(error)),) if error else (),
            control=self.control,
            verdict=verdict,
            rows=rows,
            needed={name: n for name, n in rehearsal.sizes(SCENARIO).items() if name != "contain_s"},
        )
        return rehearsal.observe(base, self.place, incident or self.incident)

    def card(self, error: BaseException | None = None, *, incident: str = "", judged: bool = True) -> Scorecard:
        """The drill's scorecard over the app as it is now, and over what went wrong."""
        return score(self.observed(error, incident=incident, judged=judged))

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
        return self.compared()[1]

    def compared(self) -> tuple[dumps.Dump, Comparison]:
        known = secrets.read(self.desk.driver_file)
        found = dumps.take(known["DRIVER_DB_JUDGE"], self.work / "judged")
        expected = dumps.take(known["DRIVER_DB_ORACLE"], self.work / "judged-oracle")
        return found, compare(found, expected)

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
