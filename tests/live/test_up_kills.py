"""kill -9 of the serving process, the Prefect server and the worker, right after the undo: the recovery goes on by
itself once everything is back, nothing is done twice, and the app ends at the oracle."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from drills import processes as drill
from estate.process import alive
from tests.live import service
from tests.live.service import Prefect, Up

pytestmark = [pytest.mark.live]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A wrecked, contained app whose plan waits for approval, under a running `reinstate up`."""

    home: Path
    up: Up
    prefect: Prefect
    driver: drill.LineProcess

    def approve(self) -> None:
        """Approve what waits; return once the rows are undone, with most of the recovery still to come."""
        waiting = self.prefect.wait("Suspended")
        self.prefect.answer(waiting, decision="approve", by="ada", reason="", plan=service.plan_hash(self.home))
        service.until(self.undone, timeout_s=180, what="the undo", every_s=0.05)

    def undone(self) -> bool:
        done = service.entries(self.home, "step.outcome")
        return any(e.step == "undo" and e.body["status"] == "done" for e in done)

    def run_processes(self) -> list[psutil.Process]:
        """The flow runs' own processes, whoever started them."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                told = process.environ()
                if told.get("PREFECT__FLOW_RUN_ID") and told.get("REINSTATE_HOME") == str(self.home):
                    found.append(process)
        return found

    def ends_at_the_oracle(self) -> None:
        """The recovery has ended once, done everything once, and the judge finds nothing wrong."""
        service.until(lambda: service.entries(self.home, "recovery.finished"), timeout_s=400, what="the end")
        found = service.verdict(self.driver)
        assert (found["wrong_fields_after"], found["legit_events_lost"], found["legit_edits_lost"]) == (0, 0, 0)
        done = [e.step for e in service.entries(self.home, "step.outcome") if e.body["status"] == "done"]
        once = [step for step in done if step != "contain"]  # whoever goes on proves the pause again
        assert len(once) == len(set(once))
        assert len(service.entries(self.home, "recovery.finished")) == 1
        no_zombies = ("Running", "Pending", "Submitting")
        service.until(lambda: not self.prefect.in_state(*no_zombies), timeout_s=60, what="no run looks alive")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="reinstate-kills-"))
    try:
        yield made
    finally:
        service.down(made)
        shutil.rmtree(made)


@pytest.fixture
def scene(home: Path, tmp_path: Path) -> Iterator[Scene]:
    """Each test starts the app from its first day; what is slow, the estate, stays up between them."""
    with (
        service.up(home, "--fresh", keep=True) as running,
        Prefect(home) as prefect,
        service.traffic(home, tmp_path) as driver,
    ):
        service.wreck(driver)
        yield Scene(home=home, up=running, prefect=prefect, driver=driver)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def serving_process_and_run(scene: Scene) -> None:
    runs = scene.run_processes()
    assert runs
    kill(service.pid(scene.home, "server"))
    for run in runs:
        kill(run.pid)
    scene.up.wait("died", part="server", code=None)
    scene.up.wait("started", part="server")


def serving_process_alone(scene: Scene) -> None:
    """The run outlives who started it, and is neither doubled nor buried."""
    runs = scene.run_processes()
    kill(service.pid(scene.home, "server"))
    scene.up.wait("started", part="server")
    service.until(lambda: service.entries(scene.home, "recovery.finished"), timeout_s=400, what="the end")
    assert not service.entries(scene.home, "recovery.continued")
    service.until(lambda: not any(alive(r) for r in runs), timeout_s=60, what="the run's own end")


def prefect_server(scene: Scene) -> None:
    kill(service.pid(scene.home, "prefect"))
    scene.up.wait("died", part="prefect")
    scene.up.wait("started", part="prefect")


def everything(scene: Scene) -> None:
    """As if the machine had lost its power: nobody is left, until `reinstate up` is run again."""
    scene.up.kill()
    for run in scene.run_processes():
        kill(run.pid)
    for part in ("server", "steward", "watcher-order-desk", "pages", "prefect"):
        kill(service.pid(scene.home, part))


@pytest.mark.parametrize("killing", [serving_process_and_run, serving_process_alone, prefect_server])
def test_killed_after_the_undo_the_recovery_ends_at_the_oracle(scene: Scene, killing: Callable[[Scene], None]) -> None:
    scene.approve()
    killing(scene)
    scene.ends_at_the_oracle()


def test_after_a_kill_of_everything_the_next_up_goes_on_where_it_was(scene: Scene) -> None:
    scene.approve()
    everything(scene)
    with service.up(scene.home, keep=True):
        scene.ends_at_the_oracle()
