"""`reinstate up` as a process of its own, and what its tests ask the Prefect server."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from console.service import processes
from drills import processes as drill
from estate import Estate
from estate.process import read_record
from ledger import Ledger

APP = "order-desk"
START_S = 300.0
STOP_S = 60.0


class Up:
    """One `reinstate up --json` and its news."""

    def __init__(self, home: Path, *options: str, **environment: str) -> None:
        self.home = home
        self.heard: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REINSTATE_CATALOG"))}
        with (home / "up.err").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "console", "up", "--json", *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**env, "REINSTATE_HOME": str(home), **environment},
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def wait(self, event: str, *, timeout_s: float = START_S, **facts: Any) -> dict[str, Any]:
        """The next news of that event with these facts."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event} {facts} in {timeout_s} s; heard {self.heard[-12:]}") from None
            assert line is not None, f"it ended: {self.heard[-5:]} {(self.home / 'up.err').read_text()[-2000:]}"
            self.heard.append(line)
            if line["event"] == event and facts.items() <= line.items():
                return line

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, as a terminal or a service manager would; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """No pipe is left open."""
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def up(home: Path, *options: str, keep: bool = False) -> Iterator[Up]:
    """Everything at work. Whatever happens, nothing is left afterwards; with ``keep`` all but the supervisor goes on,
    so that the next one, which takes over, is quick."""
    running = Up(home, *options)
    try:
        running.wait("ready")
        yield running
    finally:
        if not keep:
            down(home)
        running.kill()
        running.close()


def down(home: Path) -> None:
    command = [sys.executable, "-m", "console", "down"]
    ended = subprocess.run(
        command, env={**os.environ, "REINSTATE_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def left(home: Path) -> list[str]:
    """Processes that still have anything to do with this home."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        told = " ".join(process.info["cmdline"] or ())
        if process.pid == os.getpid() or (str(home) not in told and process.info["environ"] is None):
            continue
        if str(home) in told or (process.info["environ"] or {}).get("REINSTATE_HOME") == str(home):
            found.append(told)
    return found


def pid(home: Path, part: str) -> int:
    """The pid of a supervised process or of a part of the estate."""
    where = home / part / f"{part}.pid" if part in ("prefect", "n8n") else home / processes.FOLDER / f"{part}.pid"
    record = read_record(where)
    assert record is not None, f"{part} is not on record"
    return record.pid


def until(look: Callable[[], Any], *, timeout_s: float, what: str, every_s: float = 0.3) -> Any:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(every_s)


class Patient(httpx.HTTPTransport):
    """A busy server says 503, and is asked again, as Prefect's own clients do: it has changed nothing then."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(20):
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            answer.close()
            time.sleep(1.0)
        return answer


class Prefect:
    """The REST API behind the password."""

    def __init__(self, home: Path) -> None:
        at = Estate(home).addresses()
        user, _, password = at.prefect_auth.partition(":")
        self.http = httpx.Client(base_url=at.prefect_api_url, auth=(user, password), timeout=20, transport=Patient())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, path, json=body).raise_for_status()
        return answer.json() if answer.content else None

    def post(self, path: str, body: Any) -> Any:
        return self.ask("POST", path, body)

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def runs(self, flow: str = "recover") -> list[dict[str, Any]]:
        """Its runs, oldest first."""
        found: list[dict[str, Any]] = self.post("/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
        return sorted((r for r in found if not r["auto_scheduled"]), key=lambda r: r["created"])

    def in_state(self, *names: str, flow: str = "recover") -> dict[str, Any] | None:
        """The newest of its runs that is in one of these states."""
        try:
            runs = self.runs(flow)
        except httpx.HTTPError:
            return None  # the server is away
        return next((r for r in reversed(runs) if r["state_name"] in names), None)

    def wait(self, *names: str, timeout_s: float = 180.0, flow: str = "recover") -> dict[str, Any]:
        return dict(until(lambda: self.in_state(*names, flow=flow), timeout_s=timeout_s, what=f"{flow} {names}"))

    def ended(self, run: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """A run, once it has ended, however."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(f"/flow_runs/{run['id']}")
            return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return dict(until(look, timeout_s=timeout_s, what=f"the end of {run['name']}"))

    def start(self, flow: str = "recover", **parameters: Any) -> dict[str, Any]:
        """Start a run as the form does."""
        found = self.get(f"/deployments/name/{flow}/{APP}")
        made: dict[str, Any] = self.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return made

    def answer(self, run: dict[str, Any], **answer: Any) -> None:
        """Resume a suspended run with what its form was filled with."""
        told = self.post(f"/flow_runs/{run['id']}/resume", {"run_input": answer})
        assert told["status"] == "ACCEPT", told


def plan_hash(home: Path) -> str:
    """The hash of the newest plan that was shown."""
    return str(entries(home, "plan.shown")[-1].body["plan_hash"])


def entries(home: Path, *kinds: str) -> list[Any]:
    """Entries of the newest incident."""
    ledger = Ledger(home / "ledger.sqlite")
    opened = ledger.entries(kinds=["incident.opened"])
    return list(ledger.entries(incident=opened[-1].incident, kinds=list(kinds))) if opened else []


@contextmanager
def traffic(home: Path, work: Path) -> Iterator[drill.LineProcess]:
    """The driver, ready to wreck and to judge."""
    with drill.driver(home / "driver.env", work) as driver:
        driver.wait_event("ready", timeout_s=60)
        yield driver


def wreck(driver: drill.LineProcess) -> None:
    """The bad version is at work until the watcher of `reinstate up` has contained it."""
    driver.send("start")
    driver.wait_event("paused", timeout_s=120)
    driver.send("dump before")
    driver.wait_event("dumped", timeout_s=240)


def verdict(driver: drill.LineProcess) -> dict[str, Any]:
    """What the judge says at the end."""
    driver.wait_event("resumed", timeout_s=240)
    driver.send("fresh 2")
    driver.wait_event("fresh-over", timeout_s=60)
    driver.send("finish 60")
    found = driver.wait_event("result", timeout_s=180)
    driver.send("quit")
    return found
