"""The two other processes of a drill: the driver that wrecks and judges, and the product's own watcher."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from drills.errors import DrillError

STOP_S = 10.0

News = Callable[[dict[str, Any]], None]


class LineProcess:
    """A child that answers in JSON lines on stdout and takes line commands on stdin. Killed by its pid at the end."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        news: News | None = None,
    ) -> None:
        self.name, self.log = name, log
        self._news = news or (lambda _: None)
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {})},
                text=True,
            )
        self._reader = threading.Thread(target=self._read, name=f"{name} reader", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def send(self, command: str) -> None:
        assert self.process.stdin is not None  # noqa: S101 - made with a pipe
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def wait_for(self, matches: Callable[[dict[str, Any]], bool], *, timeout_s: float) -> dict[str, Any]:
        """The next line that matches. Raises :class:`DrillError` when the child ends, reports an error, or is late."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = deadline - time.monotonic()
            try:
                line = self._lines.get(timeout=max(left, 0.01))
            except queue.Empty:
                raise DrillError(f"{self.name}: no answer within {timeout_s:.0f} s; see {self.log}") from None
            if line is None:
                raise DrillError(
                    f"{self.name}: it ended with code {self.process.wait()}; see {self.log}: {self.tail()}"
                )
            if line.get("event") == "error":
                raise DrillError(f"{self.name}: {line.get('message')}")
            if matches(line):
                return line

    def wait_event(self, *names: str, timeout_s: float) -> dict[str, Any]:
        return self.wait_for(lambda line: line.get("event") in names, timeout_s=timeout_s)

    def tail(self) -> str:
        """The last line it wrote on stderr."""
        lines = self.log.read_text("utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing said"

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(STOP_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - made with a pipe
        for text in self.process.stdout:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            self._news(line)
            self._lines.put(line)
        self._lines.put(None)


def driver(
    secrets_file: Path, work: Path, *, mode: str = "bad", news: News | None = None, options: Sequence[str] = ()
) -> LineProcess:
    """The driver of :mod:`drills.driver`, waiting for ``start``."""
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "drills.driver",
        "--secrets",
        str(secrets_file),
        "--work",
        str(work),
        "--mode",
        mode,
    ]
    return LineProcess("driver", [*command, *options], log=work / "driver.log", news=news)


def watcher(home: Path, catalog: Path, work: Path, *, news: News | None = None) -> LineProcess:
    """``reinstate watch`` as an operator starts it; its JSON lines are one per contained incident."""
    command = [sys.executable, "-m", "console", "watch", "--catalog", str(catalog), "--until-incident", "--json-lines"]
    return LineProcess("watcher", command, log=work / "watcher.log", env={"REINSTATE_HOME": str(home)}, news=news)
