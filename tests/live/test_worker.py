"""The flows on a work pool: a real process worker takes a recovery point and recovers; killed with its run in the
middle of a recovery, the next worker goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from drills.order_desk import EXAMPLE
from estate import process
from tests.live import service
from tests.live.service import APP, Prefect
from tests.live.wreck import Wreck

pytestmark = [pytest.mark.live]

ROOT = Path(__file__).parents[2]
POOL = "reinstate"


def environment(wreck: Wreck, folder: Path) -> dict[str, str]:
    at = wreck.estate.addresses
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "REINSTATE_HOME": str(wreck.home),
        "REINSTATE_CATALOG": str(EXAMPLE),
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": at.prefect_api_url,
        "PREFECT_API_AUTH_STRING": at.prefect_auth,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
    }


def prefect(wreck: Wreck, folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(wreck, folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@contextmanager
def program(wreck: Wreck, folder: Path, *module: str) -> Iterator[psutil.Process]:
    """A program with all it starts, ended by force: a worker need not heed SIGTERM."""
    with (folder / f"{module[0]}.log").open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", *module], cwd=ROOT, env=environment(wreck, folder), stdout=log, stderr=log
        )
    try:
        yield psutil.Process(started.pid)
    finally:
        kill(started.pid)
        started.wait()


def kill(pid: int) -> None:
    """kill -9 of a process and of everything it started."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        process.kill([*parent.children(recursive=True), parent], name="worker")


@pytest.fixture
def server(wreck: Wreck, tmp_path: Path) -> Iterator[Prefect]:
    """The server with everything of prefect.yaml deployed."""
    prefect(wreck, tmp_path, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    prefect(wreck, tmp_path, "--no-prompt", "deploy", "--all")
    with Prefect(wreck.home) as made:
        for deployment in made.post("/deployments/filter", {}):  # the tests count points: none is made by the clock
            for schedule in deployment["schedules"]:
                where = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
                made.ask("PATCH", where, {"active": False})
        yield made
        for deployment in made.post("/deployments/filter", {}):
            made.ask("DELETE", f"/deployments/{deployment['id']}")
        made.ask("DELETE", f"/work_pools/{POOL}")


def test_a_worker_protects_and_recovers_and_the_next_one_goes_on_after_a_kill(
    wreck: Wreck, server: Prefect, tmp_path: Path
) -> None:
    worker = ("prefect", "worker", "start", "--pool", POOL, "--type", "process")
    known = {run["id"] for run in server.runs()}  # runs that other tests killed look alive for good
    with ExitStack() as first:
        running = first.enter_context(program(wreck, tmp_path, *worker))
        before = len(wreck_points(wreck))
        taken = server.ended(server.start("protect", app=APP), timeout_s=180)
        assert taken["state_name"] == "Not verified", "the app is wrecked, and the suites say so"
        assert len(wreck_points(wreck)) == before + 1
        first.enter_context(program(wreck, tmp_path, "flows.steward", "--catalog", str(EXAMPLE)))
        waiting = server.wait("Suspended")
        assert waiting["work_pool_name"] == POOL
        assert waiting["parameters"]["trigger"] == "event"
        server.answer(waiting, decision="approve", by="ada", reason="", plan=service.plan_hash(wreck.home))
        service.until(lambda: undone(wreck), timeout_s=180, what="the undo", every_s=0.05)
        kill(running.pid)
        with program(wreck, tmp_path, *worker):
            service.until(lambda: ended(wreck), timeout_s=400, what="the end")
            service.until(lambda: not alive(server, known), timeout_s=180, what="no run looks alive")
    assert len(service.entries(wreck.home, "recovery.continued")) == 1
    assert wreck.judge().wrong == {}


def alive(server: Prefect, but: set[str]) -> list[str]:
    """Recoveries that the server holds to be under way."""
    return [r["id"] for r in server.runs() if r["id"] not in but and r["state_name"] in ("Running", "Pending")]


def wreck_points(wreck: Wreck) -> list[str]:
    with wreck.opened() as ctx:
        return list(ctx.store.point_ids(APP))


def undone(wreck: Wreck) -> bool:
    done = service.entries(wreck.home, "step.outcome")
    return any(e.step == "undo" and e.body["status"] == "done" for e in done)


def ended(wreck: Wreck) -> bool:
    return bool(service.entries(wreck.home, "recovery.finished"))
