"""``python -m benchmarks``: measure, print a table, write ``benchmarks/results.json``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import event_contained, event_running
from benchmarks.outcome import Machine, Outcome, document, table, write
from benchmarks.service import BenchmarkError
from benchmarks.stage import Stage

RESULTS: Final = Path(__file__).with_name("results.json")
ALL: Final[Mapping[str, Callable[[Stage], Outcome]]] = {
    event_contained.ID: event_contained.run,
    event_running.ID: event_running.run,
}
"""Every benchmark by its id, in the order in which they run. A new one is a file of its own and a line here."""
MISSED: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every target holds, 1 when one is missed or could not be measured."""
    options = parsed(arguments)
    wanted = options.only or list(ALL)
    outcomes: list[Outcome] = []
    machine = Machine(processors=os.cpu_count() or 1, load=os.getloadavg()[0])
    try:
        with Stage(say=say, number=options.rounds) as stage:
            for name in wanted:
                say(f"{name}: measuring")
                outcomes.append(ALL[name](stage))
            found = document(stage.rows(), outcomes, machine)
    except BenchmarkError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return MISSED
    write(options.out, found)
    sys.stdout.write(f"{json.dumps(found, indent=1) if options.json else table(outcomes, machine)}\n")
    return 0 if all(o.holds for o in outcomes) else MISSED


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure what is promised in numbers, on real parts. Example: python -m benchmarks --only "
        "event-running --rounds 3",
    )
    parser.add_argument("--only", action="append", choices=list(ALL), help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="how often what is measured repeatedly is (default 5)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are kept")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    # Who ends the measurement ends what it started, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    raise SystemExit(main())
