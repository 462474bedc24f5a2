"""Under traffic, with ticks, new pieces and re-installs going on, the images add up to the table and nothing fails."""

import random
import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from journal_desk import open_desk

from snapshots.journal import journal

pytestmark = pytest.mark.postgres
WRITERS = 3
STATEMENTS = 120
BALANCE = """
SELECT count(*) FROM (
    SELECT id, qty, total, note, sum(n) FROM (
        SELECT id, qty, total, note, CASE rj_side WHEN 'n' THEN 1 ELSE -1 END AS n FROM reinstate.j_public__orders
        UNION ALL SELECT id, qty, total, note, -1 FROM public.orders
    ) AS both_sides GROUP BY 1, 2, 3, 4 HAVING sum(n) <> 0) AS unexplained
"""


def statement(dice: random.Random) -> str:
    key = dice.randrange(40)
    return dice.choice(
        [
            f"INSERT INTO orders VALUES ({key}, 1, {dice.random():.2f}, 'a') ON CONFLICT (id) DO UPDATE SET qty = 0",
            f"UPDATE orders SET qty = qty + 1 WHERE id BETWEEN {key} AND {key + 3}",
            f"UPDATE orders SET note = 'n{dice.randrange(3)}' WHERE id = {key}",
            f"DELETE FROM orders WHERE id = {key}",
        ]
    )


def test_every_image_is_there_whatever_else_goes_on(app_db: Any) -> None:
    with open_desk(app_db) as desk:
        desk.ddl("DELETE FROM orders")
        desk.install()
        failures: list[BaseException] = []

        def traffic(seed: int) -> None:
            dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
            try:
                with psycopg.connect(desk.db.dsn("wf_intake"), autocommit=True) as conn:
                    for _ in range(STATEMENTS):
                        try:
                            with conn.transaction():
                                for _ in range(dice.randrange(1, 4)):
                                    with conn.transaction(force_rollback=dice.random() < 0.2):
                                        conn.execute(statement(dice).encode())
                        except psycopg.errors.DeadlockDetected:
                            continue  # the writers' own: they take keys in any order
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=traffic, args=(seed,)) for seed in range(WRITERS)]
        start = journal.tick(desk.recoverer)
        for thread in threads:
            thread.start()
        turns = 0
        while any(t.is_alive() for t in threads):
            at = journal.tick(desk.recoverer).at
            desk.recoverer.execute("SELECT reinstate.turn('public.orders')")
            desk.recoverer.commit()
            turns += 1
            assert journal.prune(desk.recoverer, retention=timedelta(days=1)) == []
            assert desk.install() == []
            assert at >= start.at
        for thread in threads:
            thread.join()
        assert failures == []
        assert turns > 1
        journal.tick(desk.recoverer)
        assert desk.one("SELECT count(*) FROM reinstate.piece WHERE sealed_at IS NOT NULL") >= turns - 1
        assert desk.gaps(since=start) == []
        assert desk.one("SELECT count(*) FROM reinstate.j_public__orders") > STATEMENTS
        desk.ddl("GRANT SELECT ON public.orders TO capturer")
        assert desk.one(BALANCE) == 0
