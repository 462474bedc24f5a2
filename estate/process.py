"""Detached processes and how to recognise them again: a pid together with its start time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from estate.errors import StartFailed, StopFailed, tail

DETACH = Path(__file__).with_name("detach.py")
KILL_PATIENCE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """A process of ours, leader of its own session: a pid alone may have been given to somebody else since."""

    pid: int
    start_ticks: int
    """Clock ticks since boot, as in /proc: exact, and no clock correction shifts it."""

    def process(self) -> psutil.Process | None:
        """The live process, or None if it is gone, a zombie, or the pid now belongs to another one."""
        if start_ticks(self.pid) != self.start_ticks:
            return None
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return process if alive(process) else None
        return None

    def left_behind(self) -> list[psutil.Process]:
        """Live processes of its session, though the leader itself is gone."""
        if start_ticks(self.pid) not in (None, self.start_ticks):
            return []  # A pid is never given away while it still names a session: that session has ended.
        found = []
        for pid in psutil.pids():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if pid != self.pid and os.getsid(pid) == self.pid and alive(psutil.Process(pid)):
                    found.append(psutil.Process(pid))
        return found


def start_ticks(pid: int) -> int | None:
    """When a process started (field 22 of proc(5)'s stat); None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


def read_record(path: Path) -> ProcessRecord | None:
    """The record in a pid file; None when there is none or it is damaged."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return ProcessRecord(pid=int(raw["pid"]), start_ticks=int(raw["start_ticks"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


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

    ``owner`` is the (uid, gid) to run as. Raises StartFailed.
    """
    uid, gid = owner or (-1, -1)
    answer = subprocess.run(
        [sys.executable, "-I", "-S", DETACH, pid_file, log, str(uid), str(gid), *command],
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    record = read_record(pid_file)
    if answer.returncode != 0 or record is None:
        raise StartFailed(f"{command[0]} could not be started: {answer.stderr.strip()[-200:]}; {tail(log)}")
    return record


def stop(pid_file: Path, signals: Sequence[tuple[signal.Signals, float]], *, name: str) -> None:
    """End a recorded process and everything it started, then forget it. Harmless when it has ended.

    Each signal is sent in turn, with the seconds to wait after it; what is still there afterwards is killed.
    Raises StopFailed if anything survives that.
    """
    record = read_record(pid_file)
    if record is None:
        return
    process = record.process()
    children: list[psutil.Process] = []
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            children = process.children(recursive=True)
            for number, patience_s in signals:
                process.send_signal(number)
                if gone(process, patience_s):
                    break
        children.append(process)
    kill([*children, *record.left_behind()], name=name)
    pid_file.unlink(missing_ok=True)


def kill(processes: Sequence[psutil.Process], *, name: str) -> None:
    """Kill whatever of ``processes`` still lives. Raises StopFailed if one survives."""
    left = [process for process in processes if alive(process)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    stubborn = [str(process.pid) for process in left if not gone(process, KILL_PATIENCE_S)]
    if stubborn:
        raise StopFailed(f"{name} is still alive as process {', '.join(stubborn)}; end it by hand, then run this again")


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
