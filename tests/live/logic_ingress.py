"""The ingress of a story: `reinstate ingress` as a process of its own, as an operator runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 60.0


@contextmanager
def serving(catalog: Path, app: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The ingress of ``app`` in ``catalog`` while the block runs."""
    ready, log = home / "ingress.ready", home / "ingress.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "console", "ingress", "--catalog", str(catalog), "--app", app]
    environment = {**os.environ, "REINSTATE_HOME": str(home), "REINSTATE_READY_FILE": str(ready)}
    with log.open("ab") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + START_S
            while not ready.exists():
                assert process.poll() is None, log.read_text("utf-8")
                assert time.monotonic() < deadline, log.read_text("utf-8")
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)
