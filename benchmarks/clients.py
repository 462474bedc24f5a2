"""Clients of the app, in a process of their own: ``pgbench`` with a script, and what its log says about each write."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import programs
from benchmarks.service import BenchmarkError
from benchmarks.site import CLERK, Database

PATIENCE_S: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """One transaction: when it ended (seconds since 1970) and how long it took, in seconds."""

    ended: float
    took: float


@dataclass(slots=True)
class Writer:
    """A running client. ``writes`` is filled when it was ended."""

    writes: list[Write] = field(default_factory=list)

    def longest(self, begun: float, ended: float) -> float:
        """The longest write that was under way between two moments. Raises when there was none."""
        found = [w.took for w in self.writes if w.ended >= begun and w.ended - w.took <= ended]
        if not found:
            raise BenchmarkError("writer: it wrote nothing during the measured operation")
        return max(found)


def run(db: Database, script: str, folder: Path, *, clients: int, seconds: int) -> list[Write]:
    """Let ``clients`` repeat ``script`` as fast as they can for ``seconds``; every transaction."""
    programs.run(_command(script, folder, clients, "--time", str(seconds)), programs.environment(db, role=CLERK))
    return _read(folder)


@contextmanager
def writing(db: Database, script: str, folder: Path, *, per_second: int) -> Iterator[Writer]:
    """One client that writes at a steady pace during the block. Raises when it failed."""
    command = _command(script, folder, 1, "--rate", str(per_second), "--time", "3600")
    process = subprocess.Popen(
        [str(part) for part in command],
        env=programs.environment(db, role=CLERK),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    writer = Writer()
    try:
        _wait_for_first(folder, process)
        yield writer
        if process.poll() is not None:
            raise BenchmarkError(
                f"writer: it failed: {(process.stderr.read() if process.stderr else '').strip()[-300:]}"
            )
        time.sleep(0.1)
        _disconnect(db)
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    writer.writes.extend(_read(folder, paced=True))


def _disconnect(db: Database) -> None:
    """End the client's session: pgbench then ends by itself and writes its log, which a signal would lose."""
    with db.open("", superuser=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'pgbench'"
        )


def _command(script: str, folder: Path, clients: int, *options: str) -> list[str | Path]:
    file = folder / "script.sql"
    file.write_text(script, encoding="utf-8")
    threads = str(min(clients, 2))
    many = ["--client", str(clients), "--jobs", threads, "--log", "--log-prefix", str(folder / "log"), *options]
    return [programs.program("pgbench"), "--no-vacuum", "--protocol", "prepared", "--file", file, *many]


def _wait_for_first(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not _logs(folder):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkError(f"writer: it did not begin: {process.communicate()[1][-300:]}")
        time.sleep(0.02)
    time.sleep(0.3)


def _logs(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob("log.*"))


def _read(folder: Path, *, paced: bool = False) -> list[Write]:
    """pgbench's log: client, number, microseconds, script, second, microsecond of the end; paced, also its lag, which
    the first one contains."""
    found = []
    for file in _logs(folder):
        for line in file.read_text(encoding="utf-8").splitlines():
            parts = line.split()
            if len(parts) < 6 + paced or not parts[2].isdigit():
                continue
            lag = int(parts[6]) if paced else 0
            ended = int(parts[4]) + int(parts[5]) / 1e6
            found.append(Write(ended=ended, took=(int(parts[2]) - lag) / 1e6))
    return found


def percentile(writes: Sequence[Write], share: float) -> float:
    """The time within which ``share`` of the writes ended, in seconds."""
    ordered = sorted(w.took for w in writes)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
