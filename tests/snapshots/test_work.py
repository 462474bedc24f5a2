"""What the database adds up for each position is what counting transaction by transaction gives."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from journal_desk import ORDERS, Desk, open_desk

from snapshots.model import Position, TableSpec
from snapshots.points import ranking, work
from snapshots.points.work import Work, Written

pytestmark = pytest.mark.postgres
CLIENTS = TableSpec(name="public.clients", key=("id",))
BOTH = (ORDERS.name, CLIENTS.name)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

Image = tuple[str, int, str, str | None, str, str]
"""Table, transaction, actor, run, kind, side."""


@pytest.fixture
def desk(app_db: Any) -> Any:
    with open_desk(app_db) as made:
        made.ddl("CREATE TABLE public.clients (id int PRIMARY KEY)")
        made.install(ORDERS, CLIENTS)
        yield made


def journaled(desk: Desk, images: Sequence[Image]) -> None:
    for table, twin in ((ORDERS.name, "j_public__orders"), (CLIENTS.name, "j_public__clients")):
        with desk.owner.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO reinstate.{twin} (id, rj_seq, rj_xid, rj_at, rj_actor, rj_run, rj_op, rj_side)"
                " VALUES (1, 1, %s::text::xid8, now(), %s, %s, %s, %s)".encode(),
                [(str(x), actor, run, op, side) for name, x, actor, run, op, side in images if name == table],
            )
    desk.owner.commit()


def place(number: int, lowest: int, highest: int, running: Sequence[int]) -> Position:
    snapshot = f"{lowest}:{highest}:{','.join(map(str, sorted(running)))}"
    return Position(snapshot=snapshot, system_id="1", timeline=1, at=EPOCH + timedelta(minutes=number))


def counted(images: Sequence[Image], place: Position, first: Position, tables: Sequence[str], bad: set[int]) -> Work:
    later = [i for i in images if i[0] in tables and not (ranking.seen_by(place, i[1]) or ranking.seen_by(first, i[1]))]
    rows = [(i, int((i[4], i[5]) != ("U", "o"))) for i in later]
    by_table: dict[str, int] = defaultdict(int)
    for image, one in rows:
        if image[1] not in bad:
            by_table[image[0]] += one

    def written(chosen: Sequence[tuple[Image, int]], by_run: bool) -> tuple[Written, ...]:
        groups: dict[tuple[str, str | None], list[tuple[Image, int]]] = defaultdict(list)
        for image, one in chosen:
            groups[image[2], image[3] if by_run else None].append((image, one))
        made = [
            Written(
                actor=actor,
                run=run,
                rows=sum(one for _, one in mine),
                transactions=len({i[1] for i, _ in mine}),
                tables=tuple(sorted({i[0] for i, _ in mine})),
                bad=any(i[1] in bad for i, _ in mine),
            )
            for (actor, run), mine in groups.items()
        ]
        return tuple(sorted(made, key=lambda w: (-w.rows, w.actor, w.run or "")))

    runs = written([(i, one) for i, one in rows if i[3]], by_run=True)
    return Work(
        tables=dict(sorted(by_table.items(), key=lambda t: (-t[1], t[0]))),
        actors=written([(i, one) for i, one in rows if i[1] not in bad], by_run=False),
        damage=sum(one for i, one in rows if i[1] in bad),
        runs=runs[: work.RUNS],
        runs_in_all=len(runs),
    )


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_counting_one_by_one_gives(desk: Desk, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - no secret
    images: list[Image] = []
    for xid in range(1000, 1200):
        for _ in range(random.choice((1, 1, 2, 5))):
            run = random.choice((None, "", "always", f"Z{xid // 9}", f"ä{xid}", f"r{random.randrange(80)}"))
            op, side = random.choice((("I", "n"), ("D", "o"), ("U", "o"), ("U", "n"), ("T", "o")))
            images.append((random.choice(BOTH), xid, random.choice(("wf", "Wf", "bob")), run, op, side))
    journaled(desk, images)
    places = []
    for number, lowest in enumerate(sorted(random.sample(range(995, 1205), 9))):
        highest = lowest + random.choice((0, 1, 7, 40))
        running = {x for x in range(lowest, highest) if x == lowest or random.random() < 0.4}
        places.append(place(number, lowest, highest, sorted(running)))
    bad = set(random.sample(range(1000, 1200), 12))
    for tables in (BOTH, (CLIENTS.name,), ()):
        found = work.after(desk.capturer, places, tables, bad)
        desk.capturer.rollback()
        assert list(found) == [counted(images, p, places[0], tables, bad) for p in places]


def test_without_places_there_is_nothing(desk: Desk) -> None:
    assert work.after(desk.capturer, (), BOTH) == ()


def test_the_answer_does_not_grow_with_the_journal(desk: Desk) -> None:
    journaled(desk, [(ORDERS.name, xid, "wf", f"r{xid}", "I", "n") for xid in range(1000, 4000)])
    places = [place(n, 900 + 700 * n, 900 + 700 * n, ()) for n in range(4)]
    lines = work._lines(desk.capturer, places, BOTH, ())
    desk.capturer.rollback()
    assert len(lines) <= len(places) * (work.RUNS + 2)
    assert [w.runs_in_all for w in work.after(desk.capturer, places, BOTH)] == [3000, 2400, 1700, 1000]
