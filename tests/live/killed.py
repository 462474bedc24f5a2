"""Run the recover flow and die by SIGKILL right before the outcome of one step is recorded: its effect has happened."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from console.main import run
from ledger import steps


def main(step: str, arguments: list[str]) -> int:
    outcome = steps.outcome

    def die(ledger: Any, recovery: str, name: str, **rest: Any) -> None:
        if name == step and rest.get("status") == "done":
            os.kill(os.getpid(), signal.SIGKILL)
        outcome(ledger, recovery, name, **rest)

    steps.outcome = die  # type: ignore[assignment]
    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
