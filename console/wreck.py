"""The story of `reinstate wreck`: live traffic, a fault, a person who recovers, and a judge.

The driver is the one that drills use, in a process of its own. This process only tells what happens and waits: it
recovers nothing. What it knows of the incident it reads from the ledger.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from console.errors import Unreachable
from drills import processes, truth
from drills.errors import DrillError
from drills.scenarios import Scenario
from estate import Estate, secrets
from incidents import record
from incidents.record import Await, Incident
from recovery.context import AppContext
from recovery.errors import Refused
from snapshots.journal import journal
from snapshots.points import points

LOOK_S: Final = 0.5
STILL_S: Final = 30.0
"""How often the teller says that it still waits."""
POINT_S: Final = 300.0
CONTAIN_S: Final = 300.0
RESUME_S: Final = 120.0
FRESH_S: Final = 3.0
FOLDER: Final = "wreck"

Say = Callable[[str], None]


@dataclass(kw_only=True)
class Wreck:
    """One wreck of the example app of ``estate``. ``patience_s`` is how long it waits for a recovery."""

    ctx: AppContext
    estate: Estate
    scenario: Scenario
    say: Say
    patience_s: float
    heard: dict[str, dict[str, Any]] = field(default_factory=dict)
    _telling: threading.Lock = field(default_factory=threading.Lock)

    @property
    def work(self) -> Path:
        return self.ctx.home / FOLDER

    def play(self) -> dict[str, Any]:
        """Wreck, wait, judge. Returns the verdict with ``right``. Raises ``Refused``, ``Unreachable``, ``DrillError``,
        and ``KeyboardInterrupt`` when the waiting is given up."""
        self.refuse_unfit()
        self.await_point()
        self.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = secrets.read(self.ctx.home / "driver.env")
        differing = truth.begin(known["DRIVER_DB_JUDGE"], known["DRIVER_DB_ORACLE"], self.work)
        if differing:
            self.say(f"the app has gone on since the judge last looked ({differing} rows): its truth starts from now")
        try:
            with processes.driver(
                self.ctx.home / "driver.env",
                self.work,
                mode=self.scenario.mode,
                news=self.hear,
                options=["--exposure-max-s", str(CONTAIN_S)],
            ) as driver:
                return self.tell(driver)
        finally:
            for folder in ("app", "oracle", "before", "before-oracle", "after", "after-oracle"):
                shutil.rmtree(self.work / folder, ignore_errors=True)

    def tell(self, driver: processes.LineProcess) -> dict[str, Any]:
        driver.wait_event("ready", timeout_s=60)
        self.say(self.scenario.what)
        driver.send("start")
        incident = self.until_contained(driver)
        driver.send("dump before")
        before = driver.wait_event("dumped", timeout_s=120)
        self.say(f"{before['rows_wrong']} rows are wrong or missing, as far as the judge can see")
        for line in self.advice(incident):
            self.say(line)
        self.until_recovered(driver, incident)
        self.say(f"{incident.id} is closed; fresh traffic for {FRESH_S:.0f} s, then the judge")
        driver.send(f"fresh {FRESH_S:.0f}")
        driver.wait_event("fresh-over", timeout_s=60)
        driver.send("finish 90")
        verdict = driver.wait_event("result", timeout_s=300)
        driver.send("quit")
        return {
            "scenario": self.scenario.key,
            "incident": incident.id,
            "right": right(verdict),
            "rows_wrong_before": before["rows_wrong"],
            **{k: v for k, v in verdict.items() if k not in ("event", "at")},
        }

    def refuse_unfit(self) -> None:
        """Only a healthy, journaled app may be wrecked, or nobody could tell what the wreck broke."""
        ctx = self.ctx
        if found := record.find_open(ctx.ledger, ctx.app.key):
            raise Refused(f"wreck: incident {found.id} is open ({found.status}); recover or close it first")
        if paused := sorted(k for k, i in ctx.infos().items() if not i.active):
            raise Refused(f"wreck: {', '.join(paused)} of {ctx.app.key} is paused; resume it first")
        with ctx.connect("recoverer", "wreck") as connection:
            state = journal.status(connection, expected=[t.name for t in ctx.app.tables])
        if not state.installed or state.missing:
            raise Refused("wreck: the journal is not on all tables, so nothing could be undone; run `reinstate up`")

    def await_point(self) -> None:
        """A start of `reinstate up` takes its first recovery point in the background."""
        told, deadline = False, time.monotonic() + POINT_S
        while points.latest_verified(self.ctx.store, self.ctx.app.key) is None:
            if time.monotonic() > deadline:
                raise Refused(f"wreck: {self.ctx.app.key} has no verified recovery point; run `reinstate protect`")
            if not told:
                self.say("waiting for the first verified recovery point")
                told = True
            time.sleep(LOOK_S)

    def until_contained(self, driver: processes.LineProcess) -> Incident:
        deadline = time.monotonic() + CONTAIN_S
        while "paused" not in self.heard:
            self.alive(driver)
            if "exposure-over" in self.heard or time.monotonic() > deadline:
                raise DrillError(
                    f"wreck: nobody contained {self.scenario.workflow} within {CONTAIN_S:.0f} s; is `reinstate up` or "
                    f"`reinstate watch` running? Stop the damage with `reinstate contain {self.scenario.workflow}`"
                )
            time.sleep(LOOK_S)
        found = record.find_open(self.ctx.ledger, self.ctx.app.key)
        if found is None:
            raise DrillError(
                f"wreck: {self.scenario.workflow} is paused, but no incident is open: somebody paused it by hand. "
                f"Run `reinstate contain {self.scenario.workflow}`, then recover"
            )
        return found

    def advice(self, incident: Incident) -> list[str]:
        """What the operator may do now."""
        at = self.estate.addresses()
        key = self.ctx.app.key
        return [
            f"incident {incident.id}, {incident.severity}: {incident.impact or incident.title}",
            f"in the browser: {at.prefect_url}: approve the run of recover/{key} that waits, or run it yourself",
            f"in a terminal: `reinstate recover --catalog {self.ctx.catalog_path} --app {key}`",
            "traffic goes on meanwhile; Ctrl-C ends the wreck without a verdict",
        ]

    def until_recovered(self, driver: processes.LineProcess, incident: Incident) -> None:
        """Until the incident is closed and the driver sees its events taken again."""
        deadline = time.monotonic() + self.patience_s
        status, waiting_for, told = "", "", time.monotonic()
        closed_at: float | None = None
        while True:
            self.alive(driver)
            now = record.read(self.ctx.ledger, incident.id)
            awaiting = now.awaiting.what.value if now.awaiting else ""
            if (now.status.value, awaiting) != (status, waiting_for):
                status, waiting_for = now.status.value, awaiting
                self.say(f"{incident.id} is {status}" + (f", {waiting_for}" if waiting_for else ""))
                if now.awaiting is not None and now.awaiting.what is Await.APPROVAL:
                    self.say(
                        f"its plan can be approved in the browser, or by `reinstate approve {now.awaiting.recovery}`"
                    )
            if now.closed_at is not None:
                closed_at = closed_at or time.monotonic()
                if "resumed" in self.heard:
                    return
                if time.monotonic() - closed_at > RESUME_S:
                    raise DrillError(
                        f"wreck: {incident.id} is closed ({now.reason or status}), but {self.scenario.workflow} takes "
                        "no events; resume it with `reinstate resume`"
                    )
            if time.monotonic() > deadline:
                raise DrillError(f"wreck: {incident.id} was not recovered in time; the app is still {status}")
            if time.monotonic() - told > STILL_S:
                told = time.monotonic()
                held = self.heard.get("progress", {}).get("held", 0)
                self.say(f"still {status}" + (f"; {held} events are held and sent again" if held else ""))
            time.sleep(LOOK_S)

    def alive(self, driver: processes.LineProcess) -> None:
        if driver.process.poll() is not None:
            said = self.heard.get("error", {}).get("message") or driver.tail()
            raise DrillError(f"wreck: its driver ended: {said}; see {driver.log}")

    def hear(self, news: dict[str, Any]) -> None:
        """The driver's news, on the thread that reads them."""
        with self._telling:
            self.heard[news["event"]] = news
            match news["event"]:
                case "phase" if news["name"] in PHASES:
                    self.say(PHASES[news["name"]])
                case "published":
                    self.say(f"published: a changed version of {self.scenario.workflow}, live now")
                case "paused":
                    self.say(
                        f"{self.scenario.workflow} is out of production; what is sent to it is kept and sent again"
                    )
                case "resumed":
                    self.say(
                        f"{self.scenario.workflow} is back"
                        + (f"; {news['held']} kept events follow" if news["held"] else "")
                    )


PHASES: Final = {
    "normal": "live traffic: orders, payments, status changes, deliveries and staff edits",
    "exposure": "traffic goes through the changed version",
    "incident": "staff, payments and deliveries go on",
}


def estate_of(home: Path) -> Estate:
    """The running estate. Raises ``Unreachable`` when there is none, or it holds no order desk."""
    estate = Estate(home)
    down = [p.part for p in estate.status() if p.part in ("postgres", "n8n") and p.state != "up"]
    if down or not (estate.home / "driver.env").is_file():
        what = f"{' and '.join(down)} of the estate in {estate.home} do not run" if down else "no order desk is there"
        raise Unreachable(f"wreck: {what}; run `reinstate up` first")
    return estate


def right(verdict: dict[str, Any]) -> bool:
    """Whether the app is as the oracle says and nothing was lost."""
    wanted = ("wrong_fields_after", "legit_events_lost", "legit_edits_lost", "events_without_effect")
    return all(verdict[name] == 0 for name in wanted)


def sentence(verdict: dict[str, Any]) -> str:
    """The verdict in one line."""
    return (
        f"{verdict['wrong_fields_after']:,} of {verdict['fields_compared']:,} fields wrong, "
        f"{verdict['legit_events_lost']:,} of {verdict['legit_events']:,} events lost"
    )
