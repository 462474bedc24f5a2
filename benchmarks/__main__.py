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

import psycopg

from benchmarks import (
    capture_full,
    capture_incr,
    event_contained,
    event_running,
    growth,
    journal_cost,
    memory,
    repairs,
    restore_table,
    scale,
    undo_100k,
    writer_stall,
)
from benchmarks.outcome import Growth, Machine, Outcome, document, table, write
from benchmarks.service import BenchmarkError
from benchmarks.stage import LAPS, Stage
from snapshots.errors import SnapshotError

RESULTS: Final = Path(__file__).with_name("results.json")
Benchmark = Callable[[Stage], Sequence[Outcome | Growth]]
ALL: Final[Mapping[str, Benchmark]] = {
    undo_100k.ID: undo_100k.run,
    **repairs.ALL,
    writer_stall.ID: writer_stall.run,
    capture_incr.JOURNAL: capture_incr.by_journal,
    capture_incr.SCAN: capture_incr.by_scan,
    capture_full.FULL: capture_full.full,
    capture_full.SIZE: capture_full.size,
    restore_table.ID: restore_table.run,
    journal_cost.TPS: journal_cost.tps,
    journal_cost.BULK: journal_cost.bulk,
    memory.ID: memory.run,
    growth.ID: growth.run,
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
    grown: list[Growth] = []
    broken: list[str] = []
    machine = Machine(processors=os.cpu_count() or 1, load=os.getloadavg()[0])
    with Stage(say=say, number=options.rounds, rows=options.scale) as stage:
        for name in wanted:
            say(f"{name}: measuring")
            try:
                for found in ALL[name](stage):
                    (outcomes if isinstance(found, Outcome) else grown).append(found)  # type: ignore[arg-type]
            except (BenchmarkError, SnapshotError, psycopg.Error) as error:
                broken.append(f"{name}: {str(error).splitlines()[0]}")
                say(f"benchmarks: {broken[-1]}")
            made = document(stage.measured(), outcomes, machine, grown)
            if outcomes or grown:  # At once: whoever ends a long run keeps what it has measured.
                write(options.out, made)
    sys.stdout.write(f"{json.dumps(made, indent=1) if options.json else table(outcomes, machine, grown)}\n")
    for text in broken:
        sys.stderr.write(f"benchmarks: not measured: {text}\n")
    return 0 if not broken and all(o.holds for o in outcomes) else MISSED


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure what is promised in numbers, on real parts and against rivals in the same run. "
        "Example: SCALE=200k python -m benchmarks --only repair-journal-1 --rounds 3",
    )
    parser.add_argument("--only", nargs="+", action="extend", choices=list(ALL), metavar="ID", help="only these")
    parser.add_argument("--rounds", type=int, help=f"how often each is measured (default {LAPS}; anomalies 5)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are kept")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    parser.add_argument("--list", action="store_true", help="print the ids and end")
    options = parser.parse_args(arguments)
    if options.list:
        sys.stdout.write("\n".join(ALL) + "\n")
        sys.exit(0)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    try:
        options.scale = scale.from_environment()
    except ValueError as error:
        parser.error(str(error))
    return options


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    # Who ends the measurement ends what it started, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    raise SystemExit(main())
