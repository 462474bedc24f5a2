"""`reinstate wreck` as a process of its own: it breaks the example, waits for somebody to recover it, then judges."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CONTAINED: Final = " is contained"
"""The story says so once the watcher has contained the app."""
READY_S: Final = 240.0
JUDGED_S: Final = 180.0
PROGRAM: Final = (sys.executable, "-m", "console")


@dataclass(kw_only=True)
class Wreck:
    """One wreck that is under way. Its story is read from ``story``, its verdict from ``answer``."""

    process: subprocess.Popen[bytes]
    story: Path
    answer: Path

    def told(self) -> str:
        return self.story.read_text()

    def await_contained(self) -> None:
        """Until the app is wrecked and contained."""
        deadline = time.monotonic() + READY_S
        while CONTAINED not in self.told():
            assert self.process.poll() is None, f"the wreck ended: {self.told()}"
            assert time.monotonic() < deadline, f"nobody contained the wreck: {self.told()}"
            time.sleep(0.5)

    def verdict(self) -> dict[str, Any]:
        """What the judge says, and the exit code, once the app was recovered."""
        code = self.process.wait(JUDGED_S)
        assert self.answer.read_text(), f"no verdict: {self.told()}"
        return {**json.loads(self.answer.read_text()), "exit_code": code}


@contextmanager
def wrecked(home: Path, work: Path, *, program: Sequence[str] = PROGRAM, cwd: Path | None = None) -> Iterator[Wreck]:
    """Start to wreck the app of ``home``. Whoever still waits for a recovery at the end is told to stop."""
    story, answer = work / "wreck.story", work / "wreck.json"
    with story.open("wb") as err, answer.open("wb") as out:
        process = subprocess.Popen(
            [*program, "wreck", "--json"],
            stdout=out,
            stderr=err,
            cwd=cwd,
            env={**os.environ, "REINSTATE_HOME": str(home)},
        )
    try:
        yield Wreck(process=process, story=story, answer=answer)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def right(verdict: dict[str, Any]) -> None:
    """The judge found every field right and nothing lost. Raises AssertionError."""
    assert verdict["rows_wrong_before"] > 0, "nothing was wrecked"
    assert verdict["fields_compared"] > 500_000
    assert (verdict["wrong_fields_after"], verdict["legit_events_lost"], verdict["legit_edits_lost"]) == (0, 0, 0)
    assert (verdict["right"], verdict["exit_code"]) == (True, 0)
