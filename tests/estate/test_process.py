"""Detached processes: recognised by start time, ended with everything they started."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from estate import process
from estate.errors import StartFailed

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
WITH_CHILD = [
    sys.executable,
    "-S",
    "-c",
    "import subprocess, sys, time; c = subprocess.Popen(sys.argv[1:]); print(c.pid, flush=True); time.sleep(60)",
    *SLEEP,
]
TERM = ((signal.SIGTERM, 5.0),)


def start(folder: Path, command: list[str] = SLEEP) -> process.ProcessRecord:
    return process.launch(
        command, pid_file=folder / "pid", log=folder / "log", cwd=folder, environment={"PATH": os.defpath}
    )


def child_of(folder: Path) -> psutil.Process:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        text = (folder / "log").read_text(encoding="utf-8")
        if text.endswith("\n"):
            return psutil.Process(int(text))
        time.sleep(0.02)
    raise AssertionError("the child never said its pid")


def test_a_process_is_found_again_by_its_record(tmp_path: Path) -> None:
    record = start(tmp_path)
    again = process.read_record(tmp_path / "pid")
    assert again == record
    found = record.process()
    assert found is not None
    assert os.getsid(found.pid) == found.pid
    assert found.ppid() != os.getpid()
    process.stop(tmp_path / "pid", TERM, name="it")
    assert record.process() is None
    assert not (tmp_path / "pid").exists()


def test_a_reused_pid_is_not_mistaken_for_ours(tmp_path: Path) -> None:
    innocent = start(tmp_path)
    stale = {"pid": innocent.pid, "start_ticks": innocent.start_ticks - 100}
    (tmp_path / "stale").write_text(json.dumps(stale), encoding="utf-8")
    record = process.read_record(tmp_path / "stale")
    assert record is not None
    assert record.process() is None
    assert record.left_behind() == []
    process.stop(tmp_path / "stale", TERM, name="it")
    assert innocent.process() is not None
    process.stop(tmp_path / "pid", TERM, name="it")


def test_children_go_with_their_parent(tmp_path: Path) -> None:
    start(tmp_path, WITH_CHILD)
    child = child_of(tmp_path)
    process.stop(tmp_path / "pid", TERM, name="it")
    assert not process.alive(child)


def test_orphans_of_a_killed_process_are_found_by_their_session(tmp_path: Path) -> None:
    record = start(tmp_path, WITH_CHILD)
    child = child_of(tmp_path)
    os.kill(record.pid, signal.SIGKILL)
    assert process.gone(psutil.Process(record.pid), 5.0) if psutil.pid_exists(record.pid) else True
    assert process.alive(child)
    process.stop(tmp_path / "pid", TERM, name="it")
    assert not process.alive(child)


def test_one_that_ignores_signals_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    record = start(tmp_path, [sys.executable, "-S", "-c", code])
    while "deaf" not in (tmp_path / "log").read_text(encoding="utf-8"):
        time.sleep(0.02)
    process.stop(tmp_path / "pid", ((signal.SIGTERM, 0.2),), name="it")
    assert record.process() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content, encoding="utf-8")
    assert process.read_record(tmp_path / "pid") is None


def test_a_command_that_does_not_exist_ends_with_its_reason_in_the_log(tmp_path: Path) -> None:
    record = start(tmp_path, ["/nonexistent/program"])
    deadline = time.monotonic() + 5
    while record.process() is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert record.process() is None
    assert "cannot run /nonexistent/program" in (tmp_path / "log").read_text(encoding="utf-8")


def test_an_unwritable_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="could not be started"):
        process.launch(
            SLEEP, pid_file=tmp_path / "pid", log=tmp_path / "no" / "log", cwd=tmp_path, environment={"PATH": ""}
        )
