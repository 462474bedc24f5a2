"""What the app writes is in its twin: exactly, with who, when and for which run."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from journal_desk import ORDERS, Desk, open_desk

from snapshots.journal import journal
from snapshots.model import TableSpec

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    with open_desk(app_db) as made:
        made.install()
        yield made


def test_each_kind_of_write_leaves_its_images(desk: Desk) -> None:
    desk.write("INSERT INTO orders VALUES (6, 6, 7.5, 'new')")
    desk.write("UPDATE orders SET qty = 60 WHERE id = 6")
    desk.write("DELETE FROM orders WHERE id = 6")
    desk.write("DELETE FROM orders WHERE id < 5")
    desk.write("TRUNCATE orders")
    assert desk.images(columns=("id", "qty")) == [
        ("I", "n", 6, 6),
        ("U", "o", 6, 6),
        ("U", "n", 6, 60),
        ("D", "o", 6, 60),
        *(("D", "o", n, n) for n in range(1, 5)),
        ("T", "o", 5, 5),
    ]
    assert desk.gaps() == []


def test_upsert_merge_copy_and_data_modifying_with_are_seen(desk: Desk) -> None:
    desk.write("INSERT INTO orders VALUES (5, 1), (7, 1) ON CONFLICT (id) DO UPDATE SET qty = 50")
    desk.write(
        "MERGE INTO orders o USING (VALUES (7), (8)) v(id) ON o.id = v.id"
        " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 8)"
    )
    desk.write("WITH gone AS (DELETE FROM orders WHERE id = 8 RETURNING id) INSERT INTO orders SELECT id + 1 FROM gone")
    with desk.app.cursor().copy("COPY orders (id) FROM STDIN") as copy:
        copy.write("20\n21\n")
    assert sorted(desk.images(columns=("id", "qty")), key=str) == sorted(
        [
            ("U", "o", 5, 5),
            ("U", "n", 5, 50),
            ("I", "n", 7, 1),
            ("D", "o", 7, 1),
            ("I", "n", 8, 8),
            ("D", "o", 8, 8),
            ("I", "n", 9, None),
            ("I", "n", 20, None),
            ("I", "n", 21, None),
        ],
        key=str,
    )


def test_rolled_back_work_is_not_in_the_journal(desk: Desk) -> None:
    desk.write("BEGIN")
    desk.write("UPDATE orders SET qty = 0")
    desk.write("ROLLBACK")
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 1 WHERE id = 1")
        with desk.app.transaction(force_rollback=True):
            desk.write("UPDATE orders SET qty = 2 WHERE id = 2")
    assert desk.images() == [("U", "o", 1), ("U", "n", 1)]


def test_actor_cannot_be_overridden_and_the_run_is_that_of_the_statement(desk: Desk) -> None:
    desk.write("SET application_name = 'n8n'")
    desk.write("SET ROLE none")
    desk.write(
        "WITH tag AS MATERIALIZED (SELECT set_config('reinstate.run', '812', true))"
        " INSERT INTO orders SELECT 6, 6, 6, 'tagged' FROM tag"
    )
    desk.write("UPDATE orders SET note = 'untagged' WHERE id = 6")
    for text in ("SET SESSION AUTHORIZATION recoverer", "SET session_replication_role = replica"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            desk.write(text)
    rows = desk.capturer.execute(
        "SELECT rj_op::text, rj_actor::text, rj_app, rj_run FROM reinstate.j_public__orders ORDER BY rj_seq"
    ).fetchall()
    assert rows == [
        ("I", "wf_intake", "n8n", "812"),
        ("U", "wf_intake", "n8n", None),
        ("U", "wf_intake", "n8n", None),
    ]


def test_two_numbers_per_statement_and_one_transaction_number(desk: Desk) -> None:
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id < 3")
        desk.write("UPDATE orders SET qty = 1 WHERE id < 3")
        xid = desk.app.execute("SELECT pg_current_xact_id()::text").fetchone()
    rows = desk.capturer.execute(
        "SELECT rj_seq, rj_side::text, rj_xid::text, count(*) FROM reinstate.j_public__orders GROUP BY 1, 2, 3"
        " ORDER BY 1"
    ).fetchall()
    assert xid is not None
    assert [r[1:] for r in rows] == [("o", xid[0], 2), ("n", xid[0], 2)] * 2
    first = rows[0][0]
    assert [r[0] for r in rows] == [first, first + 1, first + 2, first + 3]


ODD_COLUMNS = """
CREATE TABLE public.orders (id int PRIMARY KEY, v_at int, v_run text, session_user_ text, tg_op text, "@rj_piece" int);
GRANT ALL ON public.orders TO wf_intake;
"""


def test_columns_of_the_app_do_not_pass_for_what_the_journal_says(app_db: Any) -> None:
    with open_desk(app_db, ODD_COLUMNS) as desk:
        desk.install()
        desk.write("INSERT INTO orders VALUES (1, 7, 'forged', 'nobody', 'DELETE', 3)")
        row = desk.capturer.execute(
            "SELECT rj_actor::text, rj_run, rj_op::text, v_at, tg_op FROM reinstate.j_public__orders"
        ).fetchone()
        assert row == ("wf_intake", None, "I", 7, "DELETE")


TYPES = """
CREATE TYPE public.mood AS ENUM ('good', 'bad');
CREATE DOMAIN public.percent AS int CHECK (VALUE BETWEEN 0 AND 100);
CREATE COLLATION public.plain (provider = libc, locale = 'C');
CREATE TABLE public."Odd ""Names%" (
    "Key" uuid PRIMARY KEY, mood public.mood, share public.percent, code char(4), bits bit(3), tags text[][],
    meta jsonb, at timestamptz(0), span interval, raw bytea, price numeric(8, 3), name text COLLATE public.plain,
    doubled int GENERATED ALWAYS AS (2 * share) STORED, nr bigint GENERATED ALWAYS AS IDENTITY, gone int);
ALTER TABLE public."Odd ""Names%" DROP COLUMN gone;
GRANT ALL ON public."Odd ""Names%" TO wf_intake;
"""


def test_types_survive_exactly_and_generated_columns_are_left_out(app_db: Any) -> None:
    spec = TableSpec(name='public.Odd "Names%', key=("Key",))
    with open_desk(app_db, TYPES) as desk:
        desk.install(spec)
        values = (
            "('7e57d004-2b97-0e7a-b45f-5387367791cd', 'bad', 7, 'ab', B'101', '{{a,b},{c,NULL}}', '{\"x\": 1.10}',"
            " '2026-01-02 03:04:05+00', '1 mon 2 days', '\\x00ff', 1.5, 'z')"
        )
        desk.write(f'INSERT INTO "Odd ""Names%" VALUES {values}')
        desk.write('UPDATE "Odd ""Names%" SET price = price WHERE name = \'z\'')
        desk.write('TRUNCATE "Odd ""Names%"')
        names = ("mood", "share", "code", "bits", "tags", "at", "raw", "price", "nr")
        expected = (
            "bad", 7, "ab  ", "101", [["a", "b"], ["c", None]], datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), b"\0\xff",
            Decimal("1.500"), 1,
        )  # fmt: skip
        images = desk.images(spec.name, names)
        assert [i[:2] for i in images] == [("I", "n"), ("U", "o"), ("U", "n"), ("T", "o")]
        assert all(i[2:] == expected for i in images)
        twin = desk.one("SELECT twin FROM reinstate.journal_table")
        assert "doubled" not in [c.name for c in desk.capturer.execute(f'SELECT * FROM reinstate."{twin}"').description]  # type: ignore[union-attr]
        assert desk.gaps() == []


PARTITIONED = """
CREATE TABLE public.events (id int, day date, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE public.events_2 (note text, extra int, day date NOT NULL, id int NOT NULL);
ALTER TABLE public.events_2 DROP COLUMN extra;
ALTER TABLE public.events ATTACH PARTITION public.events_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
GRANT ALL ON public.events, public.events_1, public.events_2 TO wf_intake;
"""
EVENTS = TableSpec(name="public.events", key=("id", "day"))


def test_partitions_are_journaled_whichever_name_the_app_writes_to(app_db: Any) -> None:
    with open_desk(app_db, PARTITIONED) as desk:
        desk.install(EVENTS)
        desk.write("INSERT INTO events VALUES (1, '2026-01-05'), (2, '2026-02-05')")
        desk.write("INSERT INTO events_2 (id, day) VALUES (3, '2026-02-06')")
        desk.write("UPDATE events SET day = '2026-02-07' WHERE id = 1")
        desk.write("TRUNCATE events")
        images = desk.images("public.events", ("id", "day"))
        assert [i[:3] for i in images[:5]] == [
            ("I", "n", 1), ("I", "n", 2), ("I", "n", 3), ("U", "o", 1), ("U", "n", 1),
        ]  # fmt: skip
        assert sorted(i[:3] for i in images[5:]) == [("T", "o", 1), ("T", "o", 2), ("T", "o", 3)]
        assert desk.gaps() == []
        desk.ddl("CREATE TABLE public.events_3 PARTITION OF events FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')")
        assert desk.kinds() == {("public.events", "partition-unjournaled")}
        assert desk.install(EVENTS)
        assert desk.status("public.events").gaps == ()
        assert desk.install(EVENTS) == []


CASCADE = """
CREATE TABLE public.orders (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE public.items (id int PRIMARY KEY, order_id int REFERENCES public.orders ON DELETE CASCADE);
GRANT ALL ON public.orders, public.items TO wf_intake;
CREATE FUNCTION public.bump() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE orders SET n = n + 1 WHERE id = NEW.id AND n = NEW.n AND n < 2; RETURN NULL; END $$;
CREATE TRIGGER bump AFTER INSERT OR UPDATE ON public.orders FOR EACH ROW EXECUTE FUNCTION public.bump();
"""


def test_cascades_and_triggers_of_the_app_are_seen_with_their_actor(app_db: Any) -> None:
    with open_desk(app_db, CASCADE) as desk:
        desk.install(ORDERS, TableSpec(name="public.items", key=("id",)))
        desk.write("INSERT INTO orders VALUES (1)")
        desk.write("INSERT INTO items VALUES (10, 1), (11, 1)")
        inner_first = desk.images("public.orders", ("id", "n"))
        # The inner statement journals first: order is by linking images, not by number.
        assert sorted(inner_first) == sorted(
            [("I", "n", 1, 0), ("U", "o", 1, 0), ("U", "n", 1, 1), ("U", "o", 1, 1), ("U", "n", 1, 2)]
        )
        assert inner_first[-1] == ("I", "n", 1, 0)
        desk.write("DELETE FROM orders")
        assert desk.images("public.items")[2:] == [("D", "o", 10), ("D", "o", 11)]
        actors = {t.actor for t in journal.transactions(desk.capturer, since=datetime.min.replace(tzinfo=UTC))}
        assert actors == {"wf_intake"}


def test_the_app_can_neither_read_nor_call_the_journal(desk: Desk) -> None:
    for text in (
        "SELECT * FROM reinstate.j_public__orders",
        "SELECT reinstate.record_tick()",
        "SELECT reinstate.fence('wf_intake', 'x')",
        "SELECT reinstate.j_public__orders()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            desk.app.execute(text.encode())
