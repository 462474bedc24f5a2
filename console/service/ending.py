"""Stopping what `reinstate up` started: from its own end, and from another terminal."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from console.service import processes, settings
from estate import Estate, EstateError, process

LOCK: Final = "up.lock"
NOTE: Final = "up.pid"
PATIENCE_S: Final = 11.0
SUPERVISOR_S: Final = 60.0
REPAIR_S: Final = 5.0


def note(home: Path) -> None:
    """Put this process on record as the supervisor."""
    me = {"pid": os.getpid(), "start_ticks": process.start_ticks(os.getpid())}
    (home / processes.FOLDER / NOTE).write_text(json.dumps(me), encoding="utf-8")


def supervisor(home: Path) -> psutil.Process | None:
    """The running `reinstate up` of this home."""
    record = process.read_record(home / processes.FOLDER / NOTE)
    return record.process() if record else None


def everything(estate: Estate, parts: Sequence[str]) -> None:
    """Stop all processes on record, in order, then ``parts`` of the estate. Raises ``estate.StopFailed``."""
    first, then = settings.order_of_ending(processes.recorded(estate.home))
    processes.stop_all(estate.home, first, PATIENCE_S)
    processes.stop_all(estate.home, then, PATIENCE_S)
    if set(parts) > {"prefect"}:
        estate.down()
    elif parts:
        estate.prefect().stop()


def hasten(estate: Estate, parts: Sequence[str]) -> None:
    """End what is just being started, so that nobody waits for it."""
    with suppress(EstateError, OSError):
        estate.prefect().stop()
        if "n8n" in parts:
            estate.n8n().stop()


def down(home: Path) -> bool:
    """Stop everything of this home from outside. False when nothing was running. Raises ``estate.EstateError``."""
    estate = Estate(home)
    running = supervisor(home)
    found = running is not None or bool(processes.recorded(home)) or any(p.state != "down" for p in estate.status())
    if running is not None:
        with suppress(psutil.NoSuchProcess):
            running.send_signal(signal.SIGTERM)
        process.gone(running, SUPERVISOR_S)
        process.kill([running], name="reinstate up")
    first, then = settings.order_of_ending(processes.recorded(home))
    processes.stop_all(home, first, PATIENCE_S)
    processes.stop_all(home, then, PATIENCE_S)
    estate.down()
    return found
