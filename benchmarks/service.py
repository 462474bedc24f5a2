"""A real `reinstate up` in a home of its own, and what the benchmarks ask it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from estate import Addresses, Estate
from ledger import Ledger

APP = "order-desk"
START_S = 300.0
STOP_S = 90.0
POLL_S = 0.02

Found = TypeVar("Found")
Say = Callable[[str], None]


class BenchmarkError(Exception):
    """The measurement could not be made. One line: what, and where to look."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What runs: the home, its addresses, its ledger and the Prefect API behind its password."""

    home: Path
    addresses: Addresses
    ledger: Ledger
    prefect: httpx.Client

    def get(self, path: str) -> Any:
        return self.prefect.get(path).raise_for_status().json()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.prefect.post(path, json=body).raise_for_status()
        return answer.json() if answer.content else None


def until(look: Callable[[], Found | None], *, timeout_s: float, what: str, every_s: float = POLL_S) -> Found:
    """What ``look`` finds, once it finds something. Raises :class:`BenchmarkError` when time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(every_s)
    raise BenchmarkError(f"{what}: not within {timeout_s:.0f} s")


@contextmanager
def running(say: Say) -> Iterator[Service]:
    """`reinstate up` on the example, from its first start to its stop; nothing is left. Takes about a minute."""
    home = Path(tempfile.mkdtemp(prefix="reinstate-bench-"))
    process = _start(home)
    try:
        _wait_ready(process, home, say)
        addresses = Estate(home).addresses()
        user, _, password = addresses.prefect_auth.partition(":")
        api = httpx.Client(base_url=addresses.prefect_api_url, auth=(user, password), timeout=20, trust_env=False)
        with api, Ledger(home / "ledger.sqlite") as ledger, _at_home(home):
            yield Service(home=home, addresses=addresses, ledger=ledger, prefect=api)
    finally:
        _stop(process, home)
        shutil.rmtree(home, ignore_errors=True)


def _start(home: Path) -> subprocess.Popen[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REINSTATE_CATALOG"))}
    with (home / "up.err").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "console", "up", "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**inherited, "REINSTATE_HOME": str(home)},
            text=True,
        )


def _wait_ready(process: subprocess.Popen[str], home: Path, say: Say) -> None:
    ready = threading.Event()

    def listen() -> None:
        assert process.stdout is not None  # noqa: S101 - made with a pipe
        for line in process.stdout:
            with suppress(ValueError):
                news = json.loads(line)
                if news.get("event") == "ready":
                    ready.set()
                elif not ready.is_set():
                    say(str(news.get("text", "")))

    threading.Thread(target=listen, daemon=True).start()
    deadline = time.monotonic() + START_S
    while not ready.wait(0.2):
        if process.poll() is not None:
            tail = (home / "up.err").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
            raise BenchmarkError(f"reinstate up ended with code {process.returncode}: {' / '.join(tail)}")
        if time.monotonic() > deadline:
            raise BenchmarkError(f"reinstate up was not ready within {START_S:.0f} s; see {home / 'up.err'}")


def _stop(process: subprocess.Popen[str], home: Path) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    command = [sys.executable, "-m", "console", "down"]
    subprocess.run(command, env={**os.environ, "REINSTATE_HOME": str(home)}, capture_output=True, check=False)
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def _at_home(home: Path) -> Iterator[None]:
    """Product code that runs in this process finds the same home."""
    before = os.environ.get("REINSTATE_HOME")
    os.environ["REINSTATE_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["REINSTATE_HOME"]
        else:
            os.environ["REINSTATE_HOME"] = before


def rows(service: Service) -> int:
    """Rows of the app."""
    from psycopg import sql

    from drills.order_desk import EXAMPLE
    from recovery.context import open_app
    from snapshots.database import qualified

    with open_app(EXAMPLE, APP, service.home) as ctx, ctx.connect("capturer", "count") as conn:
        total = 0
        for table in ctx.app.tables:
            row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(qualified(table.name))).fetchone()
            total += int(row[0]) if row else 0
        return total
