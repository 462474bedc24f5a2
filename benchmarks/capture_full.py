"""A full capture with two readers: how long it takes and how large it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import engine, increments, programs
from benchmarks.outcome import Outcome
from benchmarks.race import Lap, race, timed
from snapshots.store.store import Store

if TYPE_CHECKING:
    from benchmarks.base import Base
    from benchmarks.stage import Stage

FULL: Final = "capture-full"
SIZE: Final = "capture-size"
RIVAL: Final = "pg_dump -Fc -Z0 | zstd -1"
MB: Final = 1_000_000


def laps(stage: Stage) -> tuple[list[Lap], list[Lap]]:
    """Ours and the rival's; the same ones for both benchmarks."""

    def make() -> tuple[list[Lap], list[Lap]]:
        base, zstd = stage.base(journaled=True), programs.zstd()
        rival = (lambda: dumped(stage, zstd)) if zstd else None
        ours, (theirs,) = race(stage.laps, lambda: captured(stage, base), [rival])
        return ours, theirs

    return stage.once("full captures", make)


def captured(stage: Stage, base: Base) -> Lap:
    folder = stage.folder()
    stage.place().checkpoint()
    store = Store(str(folder))
    with timed() as watch:
        point = engine.capture_full(base.db, store)
    stage.once("full capture proven", lambda: increments.prove(stage, base, store, point, base.sums))
    return Lap(figure=watch.seconds, more={"MB": engine.stored_bytes(folder) / MB})


def dumped(stage: Stage, zstd: Path) -> Lap:
    db, file = stage.pristine(), stage.folder() / "shop.dump.zst"
    stage.place().checkpoint()
    command: list[str | Path] = [programs.program("pg_dump"), "-Fc", "-Z0", "--exclude-schema=reinstate"]
    with timed() as watch:
        programs.piped(command, [zstd, "-1", "-q", "-c"], programs.environment(db), file)
    return Lap(figure=watch.seconds, more={"MB": file.stat().st_size / MB})


def full(stage: Stage) -> tuple[Outcome, ...]:
    ours, theirs = laps(stage)
    found = Outcome(
        id=FULL,
        target=1.0,
        stretch=0.7,
        seconds=tuple(lap.figure for lap in ours),
        rival=RIVAL,
        rival_seconds=tuple(lap.figure for lap in theirs),
        scale=stage.scale,
        how="capture.capture with method full and two workers into a local store, to the published point",
    )
    return (found,)


def size(stage: Stage) -> tuple[Outcome, ...]:
    ours, theirs = laps(stage)
    found = Outcome(
        id=SIZE,
        target=0.85,
        unit="MB",
        seconds=tuple(lap.more["MB"] for lap in ours),
        rival=RIVAL,
        rival_seconds=tuple(lap.more["MB"] for lap in theirs),
        scale=stage.scale,
        how="megabytes of everything in the store after a full capture, against the file of the rival",
    )
    return (found,)
