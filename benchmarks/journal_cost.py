"""What the journal costs the app: four clients that write single rows, and one bulk update."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks import clients, proof, scale
from benchmarks.outcome import Outcome
from benchmarks.race import Lap, race, timed
from benchmarks.service import BenchmarkError
from benchmarks.site import CAPTURER, CLERK

if TYPE_CHECKING:
    from benchmarks.site import Database
    from benchmarks.stage import Stage

TPS: Final = "journal-tps"
BULK: Final = "journal-bulk"
RIVAL: Final = "no journal"
CLIENTS: Final = 4
SECONDS: Final = 4
TIMES: Final = 3
"""So many short laps in place of each long one: a machine's mood lasts longer than a lap."""
BULK_ROWS: Final = 100_000
_SINGLE: Final = """\\set id random(1, {orders})
UPDATE shop.orders SET status = 'paid', total = total + 1 WHERE id = :id;
"""


def tps(stage: Stage) -> tuple[Outcome, ...]:
    journaled, plain = stage.base(journaled=True), stage.pristine()
    ours, (theirs,) = race(
        TIMES * stage.laps, lambda: single(stage, journaled.db, True), [lambda: single(stage, plain, False)]
    )
    found = Outcome(
        id=TPS,
        target=0.65,
        stretch=0.8,
        speed=True,
        seconds=tuple(lap.figure for lap in ours),
        rival=RIVAL,
        rival_seconds=tuple(lap.figure for lap in theirs),
        scale=stage.scale,
        more={
            "tps": CLIENTS / median(lap.figure for lap in ours),
            "rival tps": CLIENTS / median(lap.figure for lap in theirs),
            "p99 ms": 1000 * median(lap.more["p99"] for lap in ours),
            "rival p99 ms": 1000 * median(lap.more["p99"] for lap in theirs),
        },
        how=f"{CLIENTS} clients update single orders, {SECONDS} s at a time; figures are the time of one transaction "
        "of a client, the ratio is that of transactions per second",
    )
    return (found,)


def single(stage: Stage, of: Database, journaled: bool) -> Lap:
    """Seconds per transaction and client."""
    orders = scale.sizes(stage.rows).orders
    seconds = SECONDS if orders > 10_000 else 1
    with stage.copy(of) as db:
        writes = clients.run(db, _SINGLE.format(orders=orders), stage.folder(), clients=CLIENTS, seconds=seconds)
        if journaled:
            journal_holds(db, "orders", 2 * len(writes))
    return Lap(figure=seconds * CLIENTS / len(writes), more={"p99": clients.percentile(writes, 0.99)})


def bulk(stage: Stage) -> tuple[Outcome, ...]:
    journaled, plain = stage.base(journaled=True), stage.pristine()
    rows = min(BULK_ROWS, scale.sizes(stage.rows).order_items // 2)
    ours, (theirs,) = race(
        TIMES * stage.laps, lambda: update(stage, journaled.db, rows, True), [lambda: update(stage, plain, rows, False)]
    )
    found = Outcome(
        id=BULK,
        target=1.5,
        stretch=1.2,
        seconds=tuple(lap.figure for lap in ours),
        rival=RIVAL,
        rival_seconds=tuple(lap.figure for lap in theirs),
        scale=stage.scale,
        how=f"one statement that updates {rows:,} order lines, with its commit",
    )
    return (found,)


def update(stage: Stage, of: Database, rows: int, journaled: bool) -> Lap:
    with stage.copy(of) as db:
        with db.open(CLERK) as conn, timed() as watch:
            conn.execute(
                "UPDATE shop.order_items SET qty = qty + 1 WHERE order_id <= (SELECT order_id FROM shop.order_items"
                " ORDER BY order_id, line OFFSET %s LIMIT 1)",
                (rows - 1,),
            )
            conn.commit()
        if journaled:
            journal_holds(db, "order_items", 2 * rows)
    return Lap(figure=watch.seconds)


def journal_holds(db: Database, table: str, images: int) -> None:
    """Raise unless the journal has at least so many images of the table: fast and forgetful would not do."""
    with db.open(CAPTURER) as conn:
        row = conn.execute(
            "SELECT twin FROM reinstate.journal_table WHERE table_name = %s", (f"shop.{table}",)
        ).fetchone()
        held = proof.count(conn, f"reinstate.{row[0]}") if row else 0
    if held < images:
        raise BenchmarkError(f"journal of shop.{table}: {held} images of at least {images}: nothing was measured")
