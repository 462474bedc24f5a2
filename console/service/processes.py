"""The processes of `reinstate up` as they are: started detached, recognised again, stopped with all they started."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil

from console.service.decide import Seen
from estate import process

FOLDER = "service"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process to be kept running: ``python -m module argument...``. ``environment`` holds its own settings, beside
    what it inherits; ``stop_s``: how long it may take to end."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    home: Path
    stop_s: float = 8.0
    meaning: Mapping[int, str] = field(default_factory=dict)
    """What some of its exit codes say."""

    @property
    def folder(self) -> Path:
        return self.home / FOLDER

    @property
    def pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def exit_file(self) -> Path:
        return self.folder / f"{self.name}.exit"

    @property
    def ready_file(self) -> Path:
        """Made by the process once it does its work, if it says so at all."""
        return self.folder / f"{self.name}.ready"

    @property
    def mark_file(self) -> Path:
        return self.folder / f"{self.name}.mark"

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "console.service.part", str(self.exit_file), self.module, *self.arguments]

    @property
    def mark(self) -> str:
        """Names command line, settings and release without telling them."""
        told = [self.command, sorted(self.environment.items()), version("reinstate")]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def running(part: Part) -> psutil.Process | None:
    """The recorded process, if it lives."""
    record = process.read_record(part.pid_file)
    return record.process() if record else None


def look(part: Part) -> Seen:
    """The process as it is now."""
    if running(part) is not None:
        return Seen(alive=True, same=_text(part.mark_file) == part.mark)
    code = _text(part.exit_file)
    return Seen(alive=False, code=int(code) if code.isdigit() else None)


def start(part: Part) -> int:
    """Start it and return its pid. What its predecessor left running (runs under way) is set aside, not ended. Raises
    ``estate.StartFailed``."""
    part.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    left = process.read_record(part.pid_file)
    if left is not None and left.left_behind():
        part.pid_file.rename(part.folder / f"{part.name}.{left.pid}.left")
    for file in (part.exit_file, part.ready_file):
        file.unlink(missing_ok=True)
    part.mark_file.write_text(part.mark, encoding="utf-8")
    return process.launch(
        part.command,
        pid_file=part.pid_file,
        log=part.log,
        cwd=part.home,
        environment={**inherited(), **part.environment, "REINSTATE_READY_FILE": str(part.ready_file)},
    ).pid


def inherited() -> dict[str, str]:
    """The user's environment, which may hold secrets of the catalogue, without settings for another Prefect."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PREFECT__", "REINSTATE_"))}
    return {**mine, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def stop(part: Part) -> None:
    """End it and everything it started. Harmless when it has ended. Raises ``estate.StopFailed``."""
    stop_recorded(part.folder, part.name, part.stop_s)


def stop_recorded(folder: Path, name: str, patience_s: float) -> None:
    """The same for a process of that name that an earlier release or catalogue may have started."""
    pid_file = folder / f"{name}.pid"
    process.stop(pid_file, ((signal.SIGTERM, patience_s),), name=name)
    for left in folder.glob(f"{name}.*.left"):
        process.stop(left, (), name=name)
    for kind in ("pid", "exit", "ready", "mark"):
        (folder / f"{name}.{kind}").unlink(missing_ok=True)


def recorded(home: Path) -> list[str]:
    """Names of all processes on record, whoever started them."""
    folder = home / FOLDER
    names = {f.stem for f in folder.glob("*.pid")} | {f.name.split(".")[0] for f in folder.glob("*.left")}
    return sorted(names - {"up"})


def stop_all(home: Path, names: Sequence[str], patience_s: float) -> None:
    """Stop several at once. Raises the first error after all were tried."""
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        results = [pool.submit(stop_recorded, home / FOLDER, name, patience_s) for name in names]
    for result in results:
        result.result()


def _text(file: Path) -> str:
    with suppress(OSError):
        return file.read_text(encoding="utf-8").strip()
    return ""
