"""Processes that write at once, and processes that die while writing."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from ledger import Ledger, steps

APPEND = """
import sys
from ledger import Ledger
with Ledger(sys.argv[1]) as ledger:
    for i in range(int(sys.argv[2])):
        print(ledger.append("x", app=sys.argv[3], body={"i": i}).seq, flush=True)
"""
FORK = """
import os, sys
from ledger import Ledger
ledger = Ledger(sys.argv[1])
ledger.append("x", app="parent")
child = os.fork()
for i in range(20):
    ledger.append("x", app="child" if child == 0 else "parent", body={"i": i})
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def writer(path: Path, count: int, app: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPEND, str(path), str(count), app]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_four_processes_at_once_make_one_chain(tmp_path: Path) -> None:
    """They also create it at once."""
    path = tmp_path / "ledger"
    writers = [writer(path, 40, f"app{i}") for i in range(4)]
    said = [[int(s) for s in w.communicate(timeout=120)[0].split()] for w in writers]
    assert [w.returncode for w in writers] == [0] * 4
    with Ledger(path) as ledger:
        assert ledger.verify() == []
        assert sorted(seq for own in said for seq in own) == list(range(1, 161))
        for i, own in enumerate(said):
            assert [e.seq for e in ledger.entries(app=f"app{i}")] == own
        assert f'"seq": {ledger.head()[0]},' in (tmp_path / "ledger.head").read_text()


def test_killed_writers_lose_nothing_they_reported(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    chance = random.Random(7)  # noqa: S311 - moments to kill at, not secrets
    reported: set[int] = set()
    for round_ in range(6):
        process = writer(path, 100_000, f"app{round_}")
        assert process.stdout is not None
        said = [process.stdout.readline()]
        time.sleep(chance.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        said += process.communicate()[0].splitlines(keepends=True)
        reported |= {int(s) for s in said if s.endswith("\n")}
        with Ledger(path) as ledger:
            assert ledger.verify() == []
            seqs = {e.seq for e in ledger.entries()}
            assert reported <= seqs
            # At most the one entry whose report was cut off.
            assert len(seqs - reported) <= round_ + 1
    with Ledger(path) as ledger:
        ledger.append("x", app="after")
        assert ledger.verify() == []


def test_a_fork_does_not_share_a_connection(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    subprocess.run([sys.executable, "-c", FORK, str(path)], check=True, timeout=60)
    with Ledger(path) as ledger:
        assert ledger.verify() == []
        assert [len(ledger.entries(app=a)) for a in ("parent", "child")] == [21, 20]


def test_a_step_killed_between_intent_and_outcome_is_unknown_to_the_rerun(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    code = """
import os, signal, sys
from ledger import Ledger, steps
ledger = Ledger(sys.argv[1])
for step in ("publish", "undo"):
    steps.intent(ledger, "R1", step, app="desk")
    if step == "undo":
        os.kill(os.getpid(), signal.SIGKILL)
    steps.outcome(ledger, "R1", step, app="desk", status="done")
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with Ledger(path) as ledger:
        known = steps.state(ledger, "R1")
        assert known["publish"].done
        assert not known["undo"].finished
