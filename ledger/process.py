"""Who holds a lease: one process of one machine, told apart from any later process with the same number."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """``host`` names the machine since its last start and its process table (containers have their own);
    ``started`` is the process's start time as its system counts it."""

    host: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.split('/', 1)[0]}"


def current() -> Process:
    pid = os.getpid()
    return Process(host=_host(), pid=pid, started=_started(pid) or "")


def surely_dead(process: Process) -> bool:
    """Whether ``process`` has certainly ended. False for processes of other machines: nobody here can tell."""
    return process.host == _host() and _started(process.pid) != process.started


@cache
def _host() -> str:
    parts = [socket.gethostname()]
    for path in (_PROC / "sys/kernel/random/boot_id", _PROC / "self/ns/pid"):
        try:
            parts.append(path.readlink().name if path.is_symlink() else path.read_text().strip())
        except OSError:
            parts.append("-")
    return "/".join(parts)


def _started(pid: int) -> str | None:
    """The start time of ``pid``, or ``None`` if there is no such living process."""
    if (_PROC / "self/stat").exists():
        try:
            # The command, second field, is in parentheses and may hold anything: count from the last one.
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        # Clock ticks since the start of the machine (proc(5), field 22): not moved by clock changes.
        return None if fields[0] in ("Z", "X") else fields[19]
    import psutil

    try:
        found = psutil.Process(pid)
        return None if found.status() == psutil.STATUS_ZOMBIE else str(found.create_time())
    except psutil.NoSuchProcess:
        return None
