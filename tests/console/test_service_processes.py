"""The supervisor with processes that do next to nothing: started, taken over, started again, all ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from console import exits
from console.service import decide, ending, processes, settings
from console.service.processes import Part
from console.service.run import Up
from console.service.settings import Service
from console.service.supervisor import Supervisor
from estate import EstateError, process
from estate.files import locked

IDLE = "import os, pathlib, signal, time\n{more}\nwhile True: time.sleep(0.05)\n"
CHILD = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


class Stage:
    """A home, parts made of tiny modules, and the news heard."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.modules = home / "modules"
        self.modules.mkdir()
        self.heard: list[dict[str, Any]] = []
        self.parts: list[Part] = []

    def part(self, name: str, source: str = IDLE.format(more=""), *, stop_s: float = 5.0) -> Part:
        (self.modules / f"fake_{name}.py").write_text(source, encoding="utf-8")
        made = Part(
            name=name,
            module=f"fake_{name}",
            environment={"PYTHONPATH": str(self.modules)},
            home=self.home,
            stop_s=stop_s,
            meaning={exits.NOT_PROVEN: "a pause was not proven"},
        )
        self.parts.append(made)
        return made

    def supervisor(self) -> Supervisor:
        def news(event: str, text: str, **facts: Any) -> None:
            self.heard.append({"event": event, "text": text, **facts})

        return Supervisor(parts=lambda: self.parts, news=news, stopping=threading.Event())

    def events(self) -> list[str]:
        return [h["event"] for h in self.heard]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    processes.stop_all(tmp_path, processes.recorded(tmp_path), 0.5)


def until(look: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def at_work(part: Part) -> psutil.Process:
    """The process, once it is the module itself and no launcher any more."""
    until(lambda: (p := processes.running(part)) is not None and part.module in p.cmdline(), f"{part.name} runs")
    found = processes.running(part)
    assert found is not None
    return found


def test_a_killed_process_is_started_again_and_one_that_ended_says_how(stage: Stage, monkeypatch: Any) -> None:
    monkeypatch.setattr(decide, "FIRST_PAUSE_S", 0.01)
    killed, ended = stage.part("killed"), stage.part("ended", "raise SystemExit(6)\n")
    supervisor = stage.supervisor()
    supervisor.look()
    before = at_work(killed)
    before.kill()
    until(lambda: not process.alive(before) and processes.look(ended).code == exits.NOT_PROVEN, "both ended")
    supervisor.look()
    told = {h["part"]: h for h in stage.heard if h["event"] == "died"}
    assert "was killed" in told["killed"]["text"]
    assert "ended with code 6 (a pause was not proven)" in told["ended"]["text"]
    assert str(ended.log) in told["ended"]["text"]
    time.sleep(0.05)
    supervisor.look()
    assert at_work(killed).pid != before.pid
    assert stage.events().count("started") == 4


def test_an_error_nobody_foresaw_leaves_its_code_and_its_trace_in_the_log(stage: Stage) -> None:
    part = stage.part("broken", "raise RuntimeError('no way')\n")
    processes.start(part)
    until(lambda: processes.look(part).code == 1, "it ended")
    assert "no way" in part.log.read_text()


def test_the_next_supervisor_takes_over_what_runs_and_replaces_what_should_run_otherwise(stage: Stage) -> None:
    kept, changed = stage.part("kept"), stage.part("changed")
    stage.supervisor().look()
    first, old = at_work(kept), at_work(changed)
    stage.parts[1] = replace(changed, environment={**changed.environment, "SETTING": "new"})
    stage.supervisor().look()
    assert stage.events() == ["started", "started", "adopted", "replaced", "started"]
    assert at_work(kept).pid == first.pid
    assert at_work(changed).pid != old.pid
    assert not process.alive(old)


def test_what_a_killed_process_had_started_goes_on_until_everything_is_stopped(stage: Stage) -> None:
    part = stage.part("server", IDLE.format(more=CHILD))
    processes.start(part)
    leader = at_work(part)
    until(lambda: len(leader.children()) == 1, "its run runs")
    [run] = leader.children()
    leader.kill()
    until(lambda: not process.alive(leader), "it is dead")
    processes.start(part)
    at_work(part)
    assert process.alive(run)
    processes.stop_all(stage.home, processes.recorded(stage.home), 2.0)
    assert not process.alive(run)
    assert processes.recorded(stage.home) == []
    assert list((stage.home / "service").iterdir()) == []


def test_what_ignores_sigterm_is_killed(stage: Stage) -> None:
    part = stage.part(
        "stubborn", IDLE.format(more=STUBBORN + "\npathlib.Path(os.environ['REINSTATE_READY_FILE']).touch()")
    )
    processes.start(part)
    until(part.ready_file.exists, "it ignores SIGTERM")
    found = at_work(part)
    processes.stop_all(stage.home, ["stubborn"], 0.3)
    assert not process.alive(found)


def test_one_part_that_cannot_be_started_does_not_keep_the_others_from_running(stage: Stage, monkeypatch: Any) -> None:
    start = processes.start

    def fail(part: Part) -> int:
        if part.name == "hopeless":
            raise EstateError("hopeless could not be started")
        return start(part)

    monkeypatch.setattr(processes, "start", fail)
    stage.part("hopeless")
    well = stage.part("well")
    stage.supervisor().look()
    assert stage.events() == ["failed", "started"]
    at_work(well)


def test_secrets_are_neither_in_the_command_line_nor_on_record(tmp_path: Path) -> None:
    service = Service(
        home=tmp_path,
        catalog=tmp_path,
        apps=("shop",),
        prefect_api_url="http://127.0.0.1:1/api",
        auth="operator:hush-hush",
        pages_port=1,
    )
    parts = settings.parts(service)
    assert {p.name for p in parts} >= {"server", "steward", "watcher-shop"}
    assert "hush-hush" not in repr(service) + repr(parts) + str([p.command for p in parts]) + str(
        [p.mark for p in parts]
    )
    assert all(p.environment["PREFECT_API_AUTH_STRING"] == service.auth for p in parts)
    assert all(p.environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false" for p in parts)


def test_settings_of_another_prefect_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "mine")
    monkeypatch.setenv("SHOP_NAME", "kept")
    found = processes.inherited()
    assert "PREFECT_API_KEY" not in found
    assert found["SHOP_NAME"] == "kept"


def test_two_at_once_are_refused_and_the_first_is_named(tmp_path: Path) -> None:
    (tmp_path / processes.FOLDER).mkdir()
    run = Up(home=tmp_path, catalog=None, port=0, fresh=False, news=lambda *_, **__: None, show=lambda *_: None)
    with (
        locked(tmp_path / processes.FOLDER / ending.LOCK, patience_s=0.0),
        pytest.raises(EstateError, match=f"process {os.getpid()}.*reinstate down"),
    ):
        run.run()


def test_down_without_anything_running_is_no_error(tmp_path: Path) -> None:
    assert ending.down(tmp_path) is False


def test_down_ends_a_supervisor_that_is_gone_astray(stage: Stage) -> None:
    part = stage.part("watcher-shop")
    processes.start(part)
    found = at_work(part)
    assert ending.down(stage.home) is True
    assert not process.alive(found)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
