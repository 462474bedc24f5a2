"""Detached processes and how to recognise them again: a pid together with its start time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from estate.errors import StartFailed, StopFailed

DETACH = Path(__file__).with_name("detach.py")
START_TOLERANCE_S = 2.0
"""The kernel reports start times against a boot time that clock corrections may shift by a second."""


@dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """A process of ours: a pid alone may have been given to somebody else since."""

    pid: int
    started: float
    """Seconds since the epoch, as psutil reports it."""

    def process(self) -> psutil.Process | None:
        """The live process, or None if it is gone, a zombie, or the pid now belongs to another one."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) <= START_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def read_record(path: Path) -> ProcessRecord | None:
    """The record in a pid file, None when there is none or it was cut off while being written."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return ProcessRecord(pid=int(raw["pid"]), started=float(raw["started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_private(path: Path, text: str) -> None:
    """Replace a file of mode 0600 as a whole: a reader sees the old or the new text, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def launch(
    command: Sequence[str | Path],
    *,
    pid_file: Path,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str],
    owner: tuple[int, int] | None = None,
) -> ProcessRecord:
    """Start a detached process, append its output to ``log`` and record it in ``pid_file``.

    ``owner`` is the (uid, gid) to run as. Raises StartFailed when it is gone at once.
    """
    uid, gid = owner or (-1, -1)
    answer = subprocess.run(
        [sys.executable, "-I", "-S", DETACH, log, str(uid), str(gid), *command],
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise StartFailed(f"{command[0]} could not be started: {answer.stderr.strip()[-200:]}")
    pid = int(answer.stdout)
    try:
        record = ProcessRecord(pid=pid, started=psutil.Process(pid).create_time())
    except psutil.NoSuchProcess as error:
        raise StartFailed(f"{command[0]} ended at once; see {log}") from error
    write_private(pid_file, json.dumps(asdict(record)))
    return record


def stop(record: ProcessRecord, signals: Sequence[tuple[signal.Signals, float]], *, name: str) -> None:
    """End a process and everything it started: each signal in turn, with the seconds to wait after it.

    What the process leaves behind is killed once it is gone. Raises StopFailed if anything survives.
    """
    process = record.process()
    if process is None:
        return
    with suppress(psutil.NoSuchProcess):
        children = process.children(recursive=True)
        for number, patience_s in signals:
            process.send_signal(number)
            if gone(process, patience_s):
                break
        left = [child for child in children if alive(child)]
        if alive(process):
            left.append(process)
        for survivor in left:
            with suppress(psutil.NoSuchProcess):
                survivor.kill()
        stubborn = [survivor for survivor in left if not gone(survivor, 10.0)]
        if stubborn:
            pids = ", ".join(str(survivor.pid) for survivor in stubborn)
            raise StopFailed(f"{name} is still alive as process {pids}; end it by hand, then run the same again")


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(process: psutil.Process, patience_s: float) -> bool:
    """Wait up to ``patience_s`` seconds for the end of a process that need not be our child."""
    deadline = time.monotonic() + patience_s
    while alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
