"""The driver of the scenario: a process of its own that wrecks the order desk, keeps its world going, and judges.

``python -m drills.driver --secrets FILE --work FOLDER [--mode MODE]`` (:data:`drills.modes.MODES`)

It shares credentials with the product and nothing else. Line commands on stdin: ``start``; ``dump before``; ``fresh
[seconds]``; ``finish [patience]``; ``quit``. Answers and news are JSON lines on stdout, each with ``event`` and ``at``:

======================  ================================================================================
``ready``               connected; waiting for ``start``
``phase``               ``name``: normal, publish, exposure or burst, incident, fresh, finish
``published``           ``version``: what n8n calls it; ``workflow``
``paused``              the changed workflow is out of production; events for it are held
``exposure-over``       it never did: the driver stopped sending orders by itself
``resumed``             it is in production again
``dumped``              ``which``: before; ``rows_wrong``
``fresh-over``          the new traffic has been sent
``progress``            ``accepted``, ``held``, ``unfinished``
``result``              the judge's verdict (:class:`drills.judge.Verdict`) with the driver's own counts
``error``               ``message``; the process ends with exit code 1
======================  ================================================================================
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from drills import dumps
from drills.errors import DrillError
from drills.events import World, look
from drills.judge import compare, judge, overlapping_pairs
from drills.modes import INTAKE, MODES, Mode
from drills.n8n_api import N8nApi
from drills.oracle import Oracle
from drills.order_desk import definition
from drills.senders import Senders, Traffic
from drills.story import NORMAL, UNPAUSED_INCIDENT, Story, until
from estate import secrets

REFUSED_FOR_S = 1.2
"""How long order intake refuses before it counts as paused: publishing may refuse for a moment too."""
PATIENCE_S = 4 * 3600.0
"""How long an incident may last: a person may take hours to recover."""
LOOK_S = 0.3
"""How often the driver asks n8n whether a workflow without orders is active."""


class Driver:
    """One drill, from normal traffic to the verdict."""

    def __init__(self, options: argparse.Namespace, known: dict[str, str]) -> None:
        self.options, self.known = options, known
        self.work: Path = options.work
        self.mode: Mode = MODES[options.mode]
        self.traffic = Traffic()
        self.api = N8nApi(known["DRIVER_N8N_URL"], known["DRIVER_N8N_KEY"])
        self.oracle = Oracle(known["DRIVER_DB_ORACLE"])
        self.world: World = look(known["DRIVER_DB_JUDGE"], options.seed)
        self.workflows = {w["name"]: w for w in self.api.workflows()}
        self.senders = Senders(
            n8n_url=known["DRIVER_N8N_URL"],
            staff_dsn=known["DRIVER_DB_STAFF"],
            judge_dsn=known["DRIVER_DB_JUDGE"],
            traffic=self.traffic,
        )
        self.story = Story(self.world, self.senders)
        self.bad_version: str | None = None
        self.paused = False
        self.recovered = False
        """Somebody let new traffic through, or wants the verdict: no further pause is waited for."""
        self.pairs: int | None = None
        self.before: tuple[dumps.Dump, dumps.Dump] | None = None
        self.background: set[asyncio.Task[None]] = set()
        self.lines = asyncio.StreamReader()
        self.failure: BaseException | None = None

    async def run(self) -> None:
        """Serve the commands until ``quit`` or the end of input."""
        await self.senders.start()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self.lines), sys.stdin)
        say("ready", mode=self.options.mode, targets=len(self.world.targets))
        self._background(self._progress())
        try:
            while line := (await self.lines.readline()).decode().split():
                match line:
                    case ["start"]:
                        self._background(self._tell())
                    case ["dump", "before"]:
                        await self._dump_before()
                    case ["fresh", *seconds]:
                        await self._fresh(float(seconds[0]) if seconds else 3.0)
                    case ["finish", *patience]:
                        await self._finish(float(patience[0]) if patience else 60.0)
                    case ["quit"]:
                        break
                    case _:
                        raise DrillError(f"driver: unknown command {' '.join(line)!r}; see python -m drills.driver -h")
        finally:
            for task in self.background:
                task.cancel()
            await self.senders.stop()
        if self.failure:
            raise self.failure

    async def _tell(self) -> None:
        """Normal traffic, publish, exposure, and the incident until another command ends it."""
        mode = self.mode
        self._phase("normal")
        self.story.begin(mode.normal)
        await asyncio.sleep(self.options.normal_s)
        if mode.file is None:
            await asyncio.sleep(self.options.exposure_max_s)
            self.story.halt()
            say("exposure-over")
            return
        self._phase("publish")
        content = await asyncio.to_thread(definition, mode.file, self.api.credentials())
        if mode.workflow == INTAKE:
            self.story.slow_orders()
            await asyncio.sleep(0.4)
        await self._publish(content)
        self._phase("exposure" if mode.harmful else "burst")
        mode.opening(self.story)
        self.story.begin(mode.after)
        self.paused = await until(self._out, timeout_s=self.options.exposure_max_s, pause_s=0.05)
        if not self.paused:
            if mode.harmful:
                self._phase("incident")
                self.story.begin(UNPAUSED_INCIDENT)
            else:
                self.story.halt()
            say("exposure-over")
            return
        self._phase("incident")
        self.story.begin(mode.incident)
        while self.paused and not self.recovered:
            # A publish may refuse for a while too: then the pause that counts is the next one.
            await self._paused()
            self.paused = await until(self._out_again, timeout_s=PATIENCE_S, pause_s=0.05)

    async def _paused(self) -> None:
        """From a pause to its end, both said."""
        refused = time.monotonic()
        say("paused", held=len(self.traffic.held))
        if self.mode.workflow == INTAKE:
            await until(lambda: self.traffic.taken_asked > refused, timeout_s=PATIENCE_S)
        else:
            await until(self._active, timeout_s=PATIENCE_S, pause_s=LOOK_S)
        say("resumed", held=len(self.traffic.held))

    async def _out_again(self) -> bool:
        return self.recovered or await self._out()

    async def _out(self) -> bool:
        """Whether the changed workflow is out of production: order intake by its answers, which are what a sender
        knows; another by what n8n says twice."""
        if self.mode.workflow == INTAKE:
            # A busy n8n may refuse for a while as it publishes; it says "active" meanwhile.
            return self._refused() and not await self._active()
        for _ in range(2):
            if await self._active():
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def _active(self) -> bool:
        workflow_id = str(self.workflows[self.mode.workflow]["id"])
        return await asyncio.to_thread(self.api.active, workflow_id)

    def _refused(self) -> bool:
        return self.traffic.refusals > 0 and time.monotonic() - self.traffic.last_taken > REFUSED_FOR_S

    async def _publish(self, content: dict[str, Any]) -> None:
        workflow_id = str(self.workflows[self.mode.workflow]["id"])
        self.bad_version = await asyncio.to_thread(self.api.publish, workflow_id, content)
        say("published", version=self.bad_version, workflow=workflow_id)

    async def _dump_before(self) -> None:
        """Compare app and oracle at a moment at which nobody writes."""
        await self.senders.quiet_staff()
        await self._settled(timeout_s=6.0)
        events = [event for _, event in self.traffic.accepted]
        live, oracle = await asyncio.to_thread(self._dumps, "before", events)
        self.pairs = await asyncio.to_thread(self._pairs)
        self.senders.staff_gate.set()
        self.before = live, oracle
        say("dumped", which="before", rows_wrong=len(compare(live, oracle).wrong), pairs=self.pairs)

    async def _fresh(self, seconds: float) -> None:
        self.recovered = True
        self._phase("fresh")
        self.story.begin(NORMAL)
        await asyncio.sleep(seconds)
        self.story.halt()
        say("fresh-over")

    async def _finish(self, patience_s: float) -> None:
        self.recovered = True
        self._phase("finish")
        without_effect = await self.story.finish(patience_s)
        await self.senders.quiet_staff()
        await self._settled(timeout_s=10.0)
        events = [event for _, event in self.traffic.accepted]
        after, oracle = await asyncio.to_thread(self._dumps, "after", events)
        if self.pairs is None:
            self.pairs = await asyncio.to_thread(self._pairs)
        before, oracle_before = self.before or (after, oracle)
        verdict = await asyncio.to_thread(
            lambda: judge(
                before=before, oracle_before=oracle_before, after=after, oracle=oracle,
                events=events, pairs=self.pairs or 0,
            )
        )  # fmt: skip
        own = {
            "events_by_kind": _counted([e.kind.value for _, e in self.traffic.accepted]),
            "events_by_phase": _counted([phase for phase, _ in self.traffic.accepted]),
            "events_held": self.traffic.held_ever,
            "events_held_and_never_accepted": len(self.traffic.held),
            "events_without_effect": without_effect,
            "ambiguous_events": self.traffic.ambiguous,
        }
        document = {**verdict.document(), **own}
        (self.work / "verdict.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        say("result", **document)

    async def _settled(self, *, timeout_s: float) -> None:
        """Wait until no run is in flight and all deliveries are booked, as far as the app is able to."""

        async def quiet() -> bool:
            return not await asyncio.to_thread(self.api.in_flight) and not await asyncio.to_thread(self._undelivered)

        await until(quiet, timeout_s=timeout_s, pause_s=0.2)

    def _dumps(self, name: str, events: list[Any]) -> tuple[dumps.Dump, dumps.Dump]:
        self.oracle.apply(events, undelivered=self._undelivered())
        live = dumps.take(self.known["DRIVER_DB_JUDGE"], self.work / name)
        return live, dumps.take(self.known["DRIVER_DB_ORACLE"], self.work / f"{name}-oracle")

    def _undelivered(self) -> list[str]:
        with psycopg.connect(self.known["DRIVER_DB_JUDGE"]) as connection:
            return [r[0] for r in connection.execute("SELECT id::text FROM desk.deliveries WHERE NOT applied")]

    def _pairs(self) -> int:
        """Overlapping pairs of a bad run and a good run, from the platform's own records."""
        if self.options.mode != "bad" or self.bad_version is None:
            return 0
        bad: list[tuple[datetime, datetime]] = []
        good: list[tuple[datetime, datetime]] = []
        for name, workflow in self.workflows.items():
            for run in self.api.runs(str(workflow["id"]), with_data=name == INTAKE):
                if run.get("startedAt") and run.get("stoppedAt"):
                    times = (datetime.fromisoformat(run["startedAt"]), datetime.fromisoformat(run["stoppedAt"]))
                    (bad if run.get("workflowVersionId") == self.bad_version else good).append(times)
        return overlapping_pairs(bad, good)

    def _phase(self, name: str) -> None:
        self.traffic.phase = name
        say("phase", name=name)

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            say(
                "progress",
                accepted=len(self.traffic.accepted),
                held=len(self.traffic.held),
                unfinished=self.senders.unfinished,
            )

    def _background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.background.add(task)
        task.add_done_callback(self._note_failure)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        """A failure in the background ends the driver."""
        if not task.cancelled() and (error := task.exception()) and self.failure is None:
            self.failure = error
            self.lines.feed_eof()


def say(event: str, **content: Any) -> None:
    """One JSON line on stdout."""
    print(json.dumps({"event": event, "at": datetime.now(UTC).isoformat(), **content}), flush=True)


async def _drive(options: argparse.Namespace) -> None:
    await Driver(options, secrets.read(options.secrets)).run()


def _counted(values: list[str]) -> dict[str, int]:
    return {value: values.count(value) for value in dict.fromkeys(values)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="drills.driver", description="Wreck the order desk, then judge.")
    parser.add_argument("--secrets", type=Path, required=True, help="the file driver.env that provisioning wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for dumps and verdict.json")
    parser.add_argument("--mode", choices=tuple(MODES), default="bad")
    parser.add_argument("--normal-s", type=float, default=4.0, help="seconds of normal traffic before the publish")
    parser.add_argument("--exposure-max-s", type=float, default=45.0, help="seconds of exposure if nobody contains")
    parser.add_argument("--seed", type=int, help="the same choices every time; only once per provisioned database")
    options = parser.parse_args(arguments)
    options.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        asyncio.run(_drive(options))
    except (DrillError, psycopg.Error, KeyError) as error:
        say("error", message=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
