"""Sandboxes: torn down whatever happens, cleared when their drill was killed, and nothing of others is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from catalog import secrets
from drills import rehearsal, sandbox, score_files
from drills.errors import DrillError, DrillHeld, StageFailed
from drills.order_desk import OrderDesk
from drills.sandbox import Place
from drills.stages import Stages, limited
from estate import process
from ledger import Ledger

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture
def asleep(tmp_path: Path) -> Iterator[Callable[[Path], process.ProcessRecord]]:
    """Starts sleeping processes, each recorded in the pid file given; ends them."""
    made: list[process.ProcessRecord] = []

    def start(pid_file: Path) -> process.ProcessRecord:
        pid_file.parent.mkdir(parents=True, exist_ok=True)
        record = process.launch(
            SLEEP, pid_file=pid_file, log=tmp_path / "log", cwd=tmp_path, environment={"PATH": os.defpath}
        )
        made.append(record)
        return record

    yield start
    for record in made:
        if (found := record.process()) is not None:
            found.kill()


def place(home: Path) -> Place:
    desk = OrderDesk(superuser_dsn=lambda _: "", n8n_url="http://127.0.0.1:1", n8n_key="unused", home=home)
    return Place(home=home, desk=desk, work=home)


def owned(folder: Path, *, pid: int, ticks: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "owner.json").write_text(json.dumps({"pid": pid, "start_ticks": ticks}), "utf-8")
    return folder


def test_what_a_killed_drill_left_is_stopped_and_removed(
    tmp_path: Path, asleep: Callable[[Path], process.ProcessRecord]
) -> None:
    folder = owned(tmp_path / "drills" / "DRILL-20261121-0001", pid=os.getpid(), ticks=1)  # its pid is another's now
    ours = [asleep(folder / "processes" / f"{name}.pid") for name in ("watcher", "driver")]
    ours.append(asleep(folder / "n8n" / "n8n.pid"))
    ours.append(asleep(folder / "postgres" / "postgres.pid"))
    other = asleep(tmp_path / "elsewhere" / "n8n.pid")
    (folder / "ledger.sqlite").touch()
    assert sandbox.clear_abandoned(tmp_path) == [folder.name]
    assert not folder.exists()
    assert [r for r in ours if r.process() is not None] == []
    assert other.process() is not None
    assert sandbox.clear_abandoned(tmp_path) == []


def test_a_folder_without_an_owner_on_record_is_cleared_too(tmp_path: Path) -> None:
    (tmp_path / "drills" / "DRILL-20261121-0001" / "postgres").mkdir(parents=True)
    assert sandbox.clear_abandoned(tmp_path) == ["DRILL-20261121-0001"]


def test_a_sandbox_whose_drill_lives_is_left_alone(
    tmp_path: Path, asleep: Callable[[Path], process.ProcessRecord]
) -> None:
    drill = asleep(tmp_path / "drill.pid")
    folder = owned(tmp_path / "drills" / "DRILL-20261121-0001", pid=drill.pid, ticks=drill.start_ticks)
    watcher = asleep(folder / "processes" / "watcher.pid")
    assert sandbox.clear_abandoned(tmp_path) == []
    assert folder.is_dir()
    assert watcher.process() is not None


def test_a_pid_that_somebody_else_has_now_is_not_ended(
    tmp_path: Path, asleep: Callable[[Path], process.ProcessRecord]
) -> None:
    stranger = asleep(tmp_path / "stranger.pid")
    folder = owned(tmp_path / "drills" / "DRILL-20261121-0001", pid=2**22, ticks=1)
    (folder / "processes").mkdir()
    record = {"pid": stranger.pid, "start_ticks": stranger.start_ticks - 1}
    (folder / "processes" / "driver.pid").write_text(json.dumps(record), "utf-8")
    assert sandbox.clear_abandoned(tmp_path) == [folder.name]
    assert stranger.process() is not None


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "DRILL-20261121-0001").symlink_to(tmp_path / "mine")
    assert sandbox.clear_abandoned(tmp_path) == []
    assert (tmp_path / "mine" / "kept").exists()


def test_one_drill_at_a_time_and_the_other_is_named(tmp_path: Path) -> None:
    with sandbox.only_drill(tmp_path):
        with pytest.raises(DrillHeld, match=f"process {os.getpid()}"), sandbox.sandbox(tmp_path, "DRILL-20261121-0001"):
            raise AssertionError
        with pytest.raises(DrillHeld):
            sandbox.clear_abandoned(tmp_path)
    assert not (tmp_path / "drills" / "DRILL-20261121-0001").exists()


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_sandbox_is_torn_down_however_it_ends(
    tmp_path: Path, asleep: Callable[[Path], process.ProcessRecord], error: type[BaseException] | None
) -> None:
    expected = nullcontext() if error is None else pytest.raises(error)
    with expected, sandbox.sandbox(tmp_path, "DRILL-20261121-0001") as folder:
        child = asleep(tmp_path / "child.pid")
        place(folder).remember("driver", child.pid)
        owner = process.read_record(folder / "owner.json")
        assert owner is not None
        assert owner.process() is not None
        if error is not None:
            raise error
    assert child.process() is None
    assert [p.name for p in (tmp_path / "drills").iterdir()] == ["drill.lock"]


SLOW = """
import signal, sys, time
from pathlib import Path
from drills import sandbox

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background

with sandbox.sandbox(Path(sys.argv[1]), "DRILL-20261121-0001") as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "cleans"), [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGKILL, False)])
def test_a_stopped_drill_cleans_up_and_a_killed_one_is_cleared_later(
    tmp_path: Path, number: signal.Signals, cleans: bool
) -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], stdout=subprocess.PIPE, text=True) as drill:
        assert drill.stdout is not None
        folder = Path(drill.stdout.readline().strip())
        assert folder.is_dir()
        drill.send_signal(number)
        drill.wait(20)
    assert folder.exists() is not cleans
    assert sandbox.clear_abandoned(tmp_path) == ([] if cleans else [folder.name])
    assert not folder.exists()


def test_the_product_meets_the_sandbox_and_never_the_real_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDER_DESK_N8N_URL", "http://127.0.0.1:9/real")
    monkeypatch.setenv("REINSTATE_HOME", str(tmp_path / "real"))
    (tmp_path / "secrets.env").write_text("ORDER_DESK_N8N_URL=http://127.0.0.1:9/sandbox\n", "utf-8")
    with sandbox.product_lives_in(tmp_path):
        assert secrets.resolve("env:ORDER_DESK_N8N_URL", tmp_path / "secrets.env").endswith("/sandbox")
        assert os.environ["REINSTATE_HOME"] == str(tmp_path)
    assert os.environ["ORDER_DESK_N8N_URL"].endswith("/real")
    assert os.environ["REINSTATE_HOME"] == str(tmp_path / "real")


def test_a_stage_that_takes_too_long_fails_and_is_on_record() -> None:
    stages = Stages()
    began = time.monotonic()
    with pytest.raises(StageFailed, match="slow: slow: not over after 0 s"):
        stages.attempt("slow", lambda: time.sleep(30), within_s=0.2)
    assert time.monotonic() - began < 5
    assert stages.attempt("quick", lambda: 7, within_s=5.0) == 7
    assert [(s.name, s.error is None) for s in stages.done] == [("slow", False), ("quick", True)]


def test_a_limit_gives_back_the_alarm_that_was_set_before() -> None:
    heard: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda number, _: heard.append(number))
    others, _ = signal.setitimer(signal.ITIMER_REAL, 50.0)
    try:
        with limited(5.0, "inner"):
            assert signal.getitimer(signal.ITIMER_REAL)[0] <= 5.0
        assert 40.0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, others)
        signal.signal(signal.SIGALRM, handler)
    assert heard == []


def test_outside_the_main_thread_there_is_no_alarm() -> None:
    results: list[Any] = []
    worker = threading.Thread(target=lambda: results.append(Stages().attempt("x", lambda: 1, within_s=0.01)))
    worker.start()
    worker.join()
    assert results == [1]


@pytest.mark.parametrize("stage", ["build", "prepare"])
def test_a_drill_that_fails_early_has_a_red_scorecard_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise DrillError("n8n: it does not come up")

    def at_once() -> threading.Thread:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        return thread

    monkeypatch.setattr("checks.suites.warm", at_once)
    monkeypatch.setattr(sandbox, "build", broken if stage == "build" else lambda folder, **_: place(folder))
    monkeypatch.setattr(Place, "prepare", broken)
    card = rehearsal.play("bad-version", home=tmp_path, app="mine")
    assert not card.passed
    assert {"stage", "control-missing", "not-detected", "not-judged"} <= set(card.red)
    assert "n8n: it does not come up" in card.reasons[0]
    assert "mine itself" in card.note
    assert score_files.load(tmp_path, card.drill).document() == card.document()
    assert [p.name for p in (tmp_path / "drills").iterdir()] == ["drill.lock"]
    assert (tmp_path / "logs" / f"{card.drill}.log").stat().st_mode & 0o777 == 0o600
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert [(e.kind, e.app) for e in ledger.entries()] == [("drill.scored", "mine")]


def test_what_cannot_be_rehearsed_is_refused(tmp_path: Path) -> None:
    rehearsal.check("order-desk", "")
    with pytest.raises(DrillError, match="app shop is in no catalogue"):
        rehearsal.check("shop", "")
    with pytest.raises(Exception, match="shop"):
        rehearsal.check("shop", str(sandbox.EXAMPLE))
    with pytest.raises(DrillError, match="choose one of bad-version"):
        rehearsal.play("nothing", home=tmp_path)
    assert not (tmp_path / "drills").exists()
