"""A change that the journal missed is found and named, however it was made; what was journaled never is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from journal_desk import ORDERS, Desk, open_desk
from point_desk import HASH, Told

from snapshots.capture import capture
from snapshots.errors import Incomplete, Refused
from snapshots.journal import audit, journal
from snapshots.model import RecoveryPoint, TableSpec
from snapshots.store.store import Store

pytestmark = pytest.mark.postgres
NAME = "public.orders"
assert HASH


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    with open_desk(app_db) as made:
        made.ddl("INSERT INTO orders SELECT n, n, n, 'old' FROM generate_series(6, 300) n")
        made.install()
        journal.tick(made.recoverer)
        yield made


@pytest.fixture(params=["fingerprint", "rows"])
def point(desk: Desk, request: Any, tmp_path: Path) -> RecoveryPoint:
    return take(desk, tmp_path, fingerprint=request.param == "fingerprint")


def take(desk: Desk, folder: Path, *specs: TableSpec, fingerprint: bool = False) -> RecoveryPoint:
    return capture.capture(
        desk.db.capturer, specs or (ORDERS,), {}, Told(), Store(str(folder)), app="desk", fingerprint=fingerprint
    )


def missed(desk: Desk, point: RecoveryPoint, folder: Path, *specs: TableSpec) -> tuple[audit.Missed, ...]:
    return audit.audit(desk.capturer, point, Store(str(folder)), specs or (ORDERS,))


def named(found: tuple[audit.Missed, ...]) -> dict[str, list[int]]:
    assert {m.table for m in found} <= {NAME}
    assert all(m.rows == len(m.keys) for m in found)
    return {m.kind: sorted(int(k[0]) for k in m.keys) for m in found}


def unseen(desk: Desk, *statements: str) -> None:
    """What a session does that fires no trigger of ours."""
    with psycopg.connect(desk.db.superuser) as conn:
        conn.execute("ALTER TABLE orders DISABLE TRIGGER ALL")
        for statement in statements:
            conn.execute(statement.encode())
        conn.execute("ALTER TABLE orders ENABLE TRIGGER ALL")
        for name in ("insert", "update", "delete", "truncate"):
            conn.execute(f"ALTER TABLE orders ENABLE ALWAYS TRIGGER rj_{name}".encode())


def traffic(desk: Desk) -> None:
    desk.write("UPDATE orders SET qty = qty + 1 WHERE id % 7 = 0")
    desk.write("DELETE FROM orders WHERE id % 11 = 0")
    desk.write("INSERT INTO orders SELECT n, 1, 1.10, NULL FROM generate_series(1000, 1010) n")
    desk.write("UPDATE orders SET id = id + 2000 WHERE id IN (1001, 1002)")
    desk.write("INSERT INTO orders VALUES (2000, 1) ON CONFLICT (id) DO UPDATE SET qty = 3")
    desk.write("DELETE FROM orders WHERE id = 1005")
    desk.write("INSERT INTO orders VALUES (1005, 9, 9, 'again')")
    desk.write("BEGIN; UPDATE orders SET qty = 0; ROLLBACK")


def test_what_was_journaled_is_never_missed(desk: Desk, point: RecoveryPoint, tmp_path: Path) -> None:
    assert missed(desk, point, tmp_path) == ()
    traffic(desk)
    journal.tick(desk.recoverer)
    desk.write("DELETE FROM orders WHERE id > 900")
    traffic(desk)
    assert missed(desk, point, tmp_path) == ()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE orders SET note = 'bad' WHERE id IN (3, 14)", {"update": [3, 14]}),
        (
            "UPDATE orders SET total = total + 0.000 WHERE id = 3; UPDATE orders SET total = 9 WHERE id = 3",
            {"update": [3]},
        ),
        ("DELETE FROM orders WHERE id IN (4, 15)", {"delete": [4, 15]}),
        ("INSERT INTO orders VALUES (5000, 1), (5001, 1)", {"insert": [5000, 5001]}),
        ("UPDATE orders SET id = 6000 WHERE id = 8", {"insert": [6000], "delete": [8]}),
        (
            "UPDATE orders SET note = CASE id WHEN 2 THEN 'x3' ELSE 'x2' END WHERE id IN (2, 3)",
            {"update": [2, 3]},
        ),
        ("UPDATE orders SET qty = qty WHERE id < 50", {}),
    ],
)
def test_changes_with_the_triggers_off_are_named(
    desk: Desk, point: RecoveryPoint, tmp_path: Path, statement: str, expected: dict[str, list[int]]
) -> None:
    traffic(desk)
    unseen(desk, statement)
    desk.write("UPDATE orders SET qty = 77 WHERE id = 14")
    assert named(missed(desk, point, tmp_path)) == expected


def test_a_missed_change_between_two_journaled_ones_is_named(desk: Desk, point: RecoveryPoint, tmp_path: Path) -> None:
    """The last image equals the live row: only the sum of all of them tells."""
    desk.write("UPDATE orders SET qty = 100 WHERE id = 20")
    unseen(desk, "UPDATE orders SET qty = 55 WHERE id = 20", "INSERT INTO orders VALUES (7000, 1)")
    desk.write("UPDATE orders SET qty = 200 WHERE id = 20")
    desk.write("DELETE FROM orders WHERE id = 7000")
    assert named(missed(desk, point, tmp_path)) == {"update": [20], "insert": [7000]}


@pytest.mark.parametrize("how", ["triggers as replica", "copy as replica", "truncate", "twin lost", "image lost"])
def test_every_way_past_the_journal_is_found(desk: Desk, point: RecoveryPoint, tmp_path: Path, how: str) -> None:
    traffic(desk)
    expected: dict[str, list[int]]
    with psycopg.connect(desk.db.superuser) as conn:
        if how == "triggers as replica":
            conn.execute("ALTER TABLE orders ENABLE TRIGGER rj_update")
            conn.execute("SET session_replication_role = replica")
            conn.execute("UPDATE orders SET qty = -1 WHERE id = 3")
            conn.execute("ALTER TABLE orders ENABLE ALWAYS TRIGGER rj_update")
            expected = {"update": [3]}
        elif how == "copy as replica":
            conn.execute("ALTER TABLE orders ENABLE TRIGGER rj_insert")
            conn.execute("SET session_replication_role = replica")
            with conn.cursor() as cursor, cursor.copy("COPY orders (id) FROM STDIN") as copy:
                copy.write("8001\n8002\n")
            conn.execute("ALTER TABLE orders ENABLE ALWAYS TRIGGER rj_insert")
            expected = {"insert": [8001, 8002]}
        elif how == "truncate":
            conn.execute("CREATE TEMP TABLE keep AS SELECT * FROM orders WHERE id > 10")
            conn.execute("ALTER TABLE orders DISABLE TRIGGER rj_truncate")
            conn.execute("TRUNCATE orders")
            conn.execute("ALTER TABLE orders ENABLE ALWAYS TRIGGER rj_truncate")
            conn.commit()
            expected = {"delete": [n for n in range(1, 301) if n % 11] + [*range(1000, 1011), 2000, 3001, 3002]}
            expected["delete"] = sorted(set(expected["delete"]) - {1001, 1002})
        elif how == "twin lost":
            conn.execute("DROP TABLE reinstate.j_public__orders CASCADE")
            expected = {
                "update": [n for n in range(1, 301) if n % 7 == 0 and n % 11],
                "delete": [n for n in range(1, 301) if n % 11 == 0],
                "insert": sorted({*range(1000, 1011), 2000, 3001, 3002} - {1001, 1002}),
            }
        else:
            conn.execute("DELETE FROM reinstate.j_public__orders WHERE id = 21")
            expected = {"update": [21]}
    found = missed(desk, point, tmp_path)
    if how == "truncate":
        assert found[0].rows == len(expected["delete"])
        assert [int(k[0]) for k in found[0].keys] == expected["delete"][: audit.KEYS_NAMED]
    else:
        assert named(found) == expected


def test_what_was_found_is_a_gap_that_no_undo_crosses(desk: Desk, point: RecoveryPoint, tmp_path: Path) -> None:
    unseen(desk, "UPDATE orders SET qty = -1 WHERE id = 3")
    journal.tick(desk.recoverer)
    found = missed(desk, point, tmp_path)
    for _ in range(2):
        audit.record(desk.recoverer, found)
    gaps = [g for g in desk.gaps(since=point.position) if g.kind == "audit"]
    assert [(g.table, g.at, g.detail) for g in gaps] == [(NAME, point.position.at, "1 update not in the journal")]
    with pytest.raises(Incomplete):
        journal.require_complete(desk.capturer, since=point.position, tables=[NAME])
    later = journal.tick(desk.recoverer)
    assert desk.gaps(since=later) == []


def test_a_point_from_before_the_journal_is_refused(desk: Desk, point: RecoveryPoint, tmp_path: Path) -> None:
    desk.ddl("DROP TABLE reinstate.j_public__orders CASCADE")
    desk.install()
    with pytest.raises(Refused, match="complete only since"):
        missed(desk, point, tmp_path)


def test_changed_columns_do_not_hide_or_invent_anything(desk: Desk, point: RecoveryPoint, tmp_path: Path) -> None:
    traffic(desk)
    desk.ddl("ALTER TABLE orders ADD COLUMN extra int DEFAULT 5; ALTER TABLE orders ALTER qty TYPE bigint")
    desk.install()
    desk.write("UPDATE orders SET qty = 3000000000, extra = 1 WHERE id = 30")
    assert missed(desk, point, tmp_path) == ()
    unseen(desk, "UPDATE orders SET qty = 1 WHERE id = 31")
    assert named(missed(desk, point, tmp_path)) == {"update": [31]}


@pytest.mark.parametrize("fingerprint", [False, True])
def test_a_table_without_a_key_is_counted(app_db: Any, tmp_path: Path, fingerprint: bool) -> None:
    spec = TableSpec(name="public.log", key=())
    schema = "CREATE TABLE public.log (at timestamptz, line text); GRANT ALL ON public.log TO wf_intake, capturer;"
    with open_desk(app_db, schema + "INSERT INTO log SELECT NULL, 'l' || n % 3 FROM generate_series(1, 9) n") as desk:
        desk.install(spec)
        journal.tick(desk.recoverer)
        point = take(desk, tmp_path, spec, fingerprint=fingerprint)
        desk.write("INSERT INTO log VALUES (now(), 'new'), (now(), 'new')")
        desk.write("DELETE FROM log WHERE line = 'l1'")
        assert missed(desk, point, tmp_path, spec) == ()
        desk.ddl("ALTER TABLE log DISABLE TRIGGER ALL; DELETE FROM log WHERE line = 'new'")
        (found,) = missed(desk, point, tmp_path, spec)
        assert (found.table, found.kind, found.rows, found.keys) == ("public.log", "rows", 2, ())


PARTITIONED = """
CREATE TABLE public.events (day date, id int, note varchar(20), n numeric(8, 2), twice numeric GENERATED ALWAYS AS
    (2 * n) STORED, c char(5), PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE public.events_2 PARTITION OF public.events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
GRANT ALL ON public.events, public.events_1, public.events_2 TO wf_intake;
GRANT SELECT ON public.events, public.events_1, public.events_2 TO capturer;
INSERT INTO public.events (day, id, note, n, c)
    SELECT '2026-01-01'::date + n % 50, n, 'e' || n, n, 'x' FROM generate_series(1, 99) n;
"""


@pytest.mark.parametrize("fingerprint", [False, True])
def test_partitions_and_keys_of_several_columns(app_db: Any, tmp_path: Path, fingerprint: bool) -> None:
    spec = TableSpec(name="public.events", key=("id", "day"))
    with open_desk(app_db, PARTITIONED) as desk:
        desk.install(spec)
        journal.tick(desk.recoverer)
        point = take(desk, tmp_path, spec, fingerprint=fingerprint)
        desk.write("UPDATE events SET n = n + 1, c = 'ab' WHERE id < 40")
        desk.write("UPDATE events SET day = '2026-02-20' WHERE id = 5")
        desk.write("DELETE FROM events_2 WHERE id = 45")
        assert missed(desk, point, tmp_path, spec) == ()
        desk.ddl("ALTER TABLE events_2 DISABLE TRIGGER rj_update")
        desk.write("UPDATE events_2 SET note = 'past it' WHERE id IN (32, 5)")
        (found,) = missed(desk, point, tmp_path, spec)
        assert (found.kind, found.rows, found.keys) == ("update", 2, (("5", "2026-02-20"), ("32", "2026-02-02")))


def test_a_journal_of_another_server_is_not_audited(desk: Desk, tmp_path: Path) -> None:
    point = take(desk, tmp_path)
    desk.ddl("UPDATE reinstate.journal_table SET system_id = '1'")
    with pytest.raises(Refused, match="is of another server"):
        missed(desk, point, tmp_path)
