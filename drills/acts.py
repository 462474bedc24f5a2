"""What happens on the stage of a drill: the control that must stay quiet, the fault, and the judging.

The watcher and the driver are processes of their own, as in real life; each is on record in the place's home.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from drills import dumps, processes
from drills.errors import DrillError
from drills.reconstitution import Reconstitution, count
from drills.sandbox import APP, Place
from drills.scorecard import Control
from incidents import record

READY_S: Final = 90.0
PAUSED_S: Final = 240.0
DETECT_S: Final = 120.0
FRESH_S: Final = 2.0
ALARM_S: Final = 2.0
"""How long after the control's end an alarm is still waited for."""
CONTROL_OPTIONS: Final = ("--normal-s", "3", "--exposure-max-s", "8")


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The two processes of an act, ready and waiting."""

    watcher: processes.LineProcess
    driver: processes.LineProcess
    work: Path


@contextmanager
def on_stage(place: Place, mode: str, *, work: Path | None = None, options: Sequence[str] = ()) -> Iterator[Cast]:
    """The watcher watches, the driver waits for ``start``; both are gone at the end."""
    work = work or place.work
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        processes.watcher(place.home, place.catalog, work) as watcher,
        processes.driver(place.desk.driver_file, work, mode=mode, options=options) as driver,
    ):
        place.remember("watcher", watcher.process.pid)
        place.remember("driver", driver.process.pid)
        watcher.wait_event("watching", timeout_s=READY_S)
        driver.wait_event("ready", timeout_s=READY_S)
        yield Cast(watcher=watcher, driver=driver, work=work)


def stay_quiet(place: Place, mode: str) -> Control:
    """A harmless new version and a burst of traffic under the eyes of the watcher, which has to leave it alone.

    An incident that is opened all the same is closed as a false alarm, so that the drill can go on. Raises
    ``DrillError`` when the watcher died: a dead watcher is quiet too."""
    with on_stage(place, mode, work=place.work / "control", options=CONTROL_OPTIONS) as cast:
        cast.driver.send("start")
        paused = cast.driver.wait_event("exposure-over", "paused", timeout_s=READY_S)["event"] == "paused"
        verdict = finish(cast, patience_s=3.0 if paused else 30.0)
        alarm: dict[str, Any] | None = None
        with contextlib.suppress(DrillError):
            alarm = cast.watcher.wait_event("contained", timeout_s=ALARM_S)
        if alarm is None and cast.watcher.process.poll() is not None:
            raise DrillError(f"watcher: it ended during the control; see {cast.watcher.log}: {cast.watcher.tail()}")
    acted = None
    if alarm is not None:
        acted = f"it contained {', '.join(alarm.get('workflows', []))} (incident {alarm.get('incident')})"
    with place.opened() as ctx:
        opened = record.find_open(ctx.ledger, APP)
        idle = sorted(key for key, info in ctx.infos().items() if not info.active)
        if opened is not None:
            record.close(ctx.ledger, opened.id, reason="the drill's negative control", by="drill", false_alarm=True)
            acted = acted or f"it opened incident {opened.id}: {opened.title}"
    if idle and acted is None:
        acted = f"{', '.join(idle)} no longer active"
    return Control(
        acted=acted,
        events=int(verdict.get("legit_events", 0)),
        wrong_fields=int(verdict.get("wrong_fields_after", 0)),
        wrong_by_column=dict(verdict.get("wrong_by_column", {})),
    )


def strike(cast: Cast) -> dict[str, Any]:
    """Live traffic and the fault, until the watcher has contained it and the damage is on record. Returns the
    watcher's news: ``incident``, ``workflows``."""
    cast.driver.send("start")
    caught = cast.watcher.wait_event("contained", timeout_s=DETECT_S)
    cast.driver.wait_event("paused", timeout_s=PAUSED_S)
    cast.driver.send("dump before")
    cast.driver.wait_event("dumped", timeout_s=PAUSED_S)
    return caught


def go_on(cast: Cast) -> None:
    """After a recovery: what was held is taken, and new traffic flows."""
    cast.driver.wait_event("resumed", timeout_s=PAUSED_S)
    cast.driver.send(f"fresh {FRESH_S:.0f}")
    cast.driver.wait_event("fresh-over", timeout_s=PAUSED_S)


def finish(cast: Cast, *, patience_s: float) -> dict[str, Any]:
    """The end of the traffic and the judge's verdict."""
    cast.driver.send(f"finish {patience_s:.0f}")
    verdict = cast.driver.wait_event("result", timeout_s=patience_s + 120.0)
    cast.driver.send("quit")
    return {name: value for name, value in verdict.items() if name not in ("event", "at")}


def repaired(work: Path) -> Reconstitution:
    """Precision and recall, from the dumps that the driver took. Raises ``DrillError`` when one is missing."""
    return count(
        before=dumps.read(work / "before"),
        oracle_before=dumps.read(work / "before-oracle"),
        after=dumps.read(work / "after"),
        oracle=dumps.read(work / "after-oracle"),
    )
