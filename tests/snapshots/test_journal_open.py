"""The journal fails open: whatever is done to it or to the tables, the app's own write succeeds and the gap is told."""

import os
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from journal_desk import ORDERS, Desk, open_desk

from snapshots.journal import journal

pytestmark = pytest.mark.postgres
NAME = "public.orders"


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    with open_desk(app_db) as made:
        made.install()
        made.write("UPDATE orders SET note = 'plans are cached' WHERE id = 1")
        made.write("INSERT INTO orders VALUES (99)")
        made.write("DELETE FROM orders WHERE id = 99")
        journal.tick(made.recoverer)
        assert made.gaps() == []
        yield made


@pytest.mark.parametrize(
    ("change", "write", "kind", "journaled"),
    [
        ("ALTER TABLE orders ADD COLUMN extra text DEFAULT 'x'", "UPDATE orders SET extra = 'y'", "column-added", True),
        ("ALTER TABLE orders DROP COLUMN note", "UPDATE orders SET qty = 0", "column-dropped", False),
        ("ALTER TABLE orders RENAME COLUMN note TO remark", "UPDATE orders SET remark = ''", "column-renamed", False),
        ("ALTER TABLE orders ALTER qty TYPE bigint", "UPDATE orders SET qty = 3000000000", "type-changed", False),
        ("ALTER TABLE orders ALTER qty TYPE numeric", "UPDATE orders SET qty = 1.5", "type-changed", True),
        (
            "ALTER TABLE orders ALTER note TYPE jsonb USING NULL",
            "UPDATE orders SET note = '{\"a\": 1}'",
            "type-changed",
            True,
        ),
        ("DROP TABLE reinstate.j_public__orders CASCADE", "UPDATE orders SET qty = 0", "twin-missing", False),
        ('DROP TABLE reinstate."j_public__orders$1"', "UPDATE orders SET qty = 0", "twin-missing", False),
        (
            'ALTER TABLE reinstate."j_public__orders$1" NO INHERIT reinstate.j_public__orders',
            "UPDATE orders SET qty = 0",
            "twin-missing",
            False,
        ),
        ("DROP FUNCTION reinstate.note_failure(text, text, text)", "UPDATE orders SET qty = 0", "", True),
    ],
)
def test_changes_under_the_journal_never_stop_a_write(
    desk: Desk, change: str, write: str, kind: str, journaled: bool
) -> None:
    before = desk.one("SELECT count(*) FROM reinstate.j_public__orders")
    desk.ddl(change)
    assert desk.write(write) == 5
    with desk.session(desk.db.dsn("wf_intake")) as fresh:
        assert fresh.execute(write.encode()).rowcount == 5
    if not kind:
        assert desk.gaps() == []
        return
    assert desk.kinds() == {(NAME, kind)}
    assert {(g.table, g.kind) for g in desk.status().gaps} == {(NAME, kind)}
    if kind != "twin-missing":
        assert (desk.one("SELECT count(*) FROM reinstate.j_public__orders") == before + 20) is journaled
    position = journal.tick(desk.recoverer)
    journal.tick(desk.recoverer)
    assert desk.kinds() == {(NAME, kind)}, "a lasting gap stays open"
    assert desk.kinds(since=position) == {(NAME, kind)}
    # Following the change closes the gap, for the time from then on.
    assert desk.install()
    assert desk.status().gaps == ()
    assert desk.write(write) == 5
    after = journal.tick(desk.recoverer)
    assert desk.kinds() >= {(NAME, kind)}
    assert desk.gaps(since=after) == []
    assert [i[0] for i in desk.images()][-10:] == ["U"] * 10
    assert desk.install() == []


def test_numbers_go_on_above_the_old_ones_when_their_sequence_was_dropped(desk: Desk) -> None:
    before = journal.tick(desk.recoverer)
    desk.ddl("DROP SEQUENCE reinstate.journal_seq")
    assert desk.write("UPDATE orders SET qty = 0") == 5
    assert "journal_seq" in desk.gaps()[0].detail
    highest = desk.one("SELECT max(rj_seq) FROM reinstate.j_public__orders")
    assert desk.install()
    assert desk.write("UPDATE orders SET qty = 1") == 5
    assert len(desk.gaps(since=before)) == 1
    assert desk.gaps(since=journal.tick(desk.recoverer)) == []
    assert desk.one("SELECT count(*) FROM reinstate.j_public__orders WHERE rj_seq > %s", highest) == 10
    assert desk.install() == []


def test_more_digits_are_not_rounded_in_the_twin(desk: Desk) -> None:
    desk.ddl("ALTER TABLE orders ALTER total TYPE numeric(14, 4)")
    desk.write("UPDATE orders SET total = 1.2345 WHERE id = 1")
    assert desk.images(columns=("id", "total"))[-1] == ("U", "n", 1, Decimal("1.2345"))
    assert desk.gaps() == []


def test_a_widened_column_keeps_its_old_images(desk: Desk) -> None:
    desk.write("UPDATE orders SET qty = 7 WHERE id = 2")
    desk.ddl("ALTER TABLE orders ALTER qty TYPE bigint; ALTER TABLE orders RENAME qty TO amount")
    desk.ddl("ALTER TABLE orders RENAME note TO swap; ALTER TABLE orders ADD note int; ALTER TABLE orders DROP total")
    desk.install()
    desk.write("UPDATE orders SET amount = 3000000000, note = 3 WHERE id = 2")
    assert desk.images(columns=("id", "amount", "swap", "note"))[-4:] == [
        ("U", "o", 2, 2, "old", None),
        ("U", "n", 2, 7, "old", None),
        ("U", "o", 2, 7, "old", None),
        ("U", "n", 2, 3000000000, "old", 3),
    ]
    assert {k for _, k in desk.kinds()} == {"column-added", "column-dropped", "column-renamed"}
    assert all(g.until is not None for g in desk.gaps())


def test_schema_reinstate_dropped(desk: Desk) -> None:
    desk.ddl("DROP SCHEMA reinstate CASCADE")
    assert desk.write("UPDATE orders SET qty = 0") == 5
    assert desk.kinds(tables=[NAME]) == {("*", "journal-missing")}
    status = desk.status(NAME)
    assert not status.installed
    assert status.missing == (NAME,)
    assert [g.kind for g in status.gaps] == ["journal-missing"]
    with pytest.raises(Exception, match="not installed"):
        journal.tick(desk.recoverer)
    desk.install()
    assert desk.write("UPDATE orders SET qty = 1") == 5
    assert len(desk.images()) == 10
    assert desk.status(NAME).gaps == ()


def test_table_dropped_replaced_or_renamed(desk: Desk) -> None:
    desk.ddl("ALTER TABLE orders RENAME TO purchases")
    desk.write("UPDATE purchases SET qty = 0")
    assert desk.kinds() == {(NAME, "table-renamed")}
    desk.ddl("ALTER TABLE purchases RENAME TO orders; CREATE TABLE o2 (LIKE orders INCLUDING ALL); DROP TABLE orders")
    assert desk.kinds() == {(NAME, "table-missing")}
    desk.ddl("ALTER TABLE o2 RENAME TO orders; GRANT ALL ON orders TO wf_intake")
    desk.write("INSERT INTO orders VALUES (1)")
    desk.install()
    desk.write("INSERT INTO orders VALUES (2)")
    assert desk.images()[-1] == ("I", "n", 2)
    assert desk.status(NAME).gaps == ()


def limit_file_size(pid: int, size: str) -> None:
    """The soft limit of one process; as its own user, which is the only one that may."""
    owner = Path(f"/proc/{pid}").stat()
    as_user: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    if owner.st_uid == os.getuid():
        as_user = {}
    subprocess.run(["prlimit", f"--pid={pid}", f"--fsize={size}:unlimited"], check=True, **as_user)  # noqa: S607


def test_disk_full(desk: Desk) -> None:
    """The limit of a file's size makes extending the twin fail as a full disk would; the app's table is small. It is
    above the size of a WAL segment, whose failure would stop the server."""
    text = "repeat(md5(n::text), 58)"
    desk.write(f"INSERT INTO orders SELECT n, 1, 1, {text} FROM generate_series(1001, 8000) n")
    desk.write("DELETE FROM orders WHERE id > 1000")
    desk.owner.autocommit = True
    desk.owner.execute("VACUUM orders")
    desk.owner.autocommit = False
    size = desk.one(f"SELECT pg_relation_size('{desk.piece()}')")
    assert size > 20_000_000
    limit_file_size(desk.app.info.backend_pid, "20000000")
    lost = f"INSERT INTO orders SELECT n, 1, 1, {text} FROM generate_series(9001, 9050) n"
    assert desk.write(lost) == 50
    assert desk.one("SELECT count(*) FROM reinstate.j_public__orders WHERE id > 9000") == 0
    assert desk.kinds() == {(NAME, "disk-full")}
    # The disk has room again.
    limit_file_size(desk.app.info.backend_pid, "unlimited")
    journal.tick(desk.recoverer)
    journal.tick(desk.recoverer)
    assert desk.write("DELETE FROM orders WHERE id > 9000") == 50
    after = journal.tick(desk.recoverer)
    (gap,) = desk.gaps()
    assert gap.until is not None
    assert desk.gaps(since=after) == []
    assert desk.status().gaps == ()


def test_a_gap_that_cannot_even_be_written_is_found_by_its_counter(desk: Desk) -> None:
    good = journal.tick(desk.recoverer)
    desk.ddl("ALTER TABLE reinstate.gap ADD CONSTRAINT full_disk CHECK (kind <> 'column-dropped') NOT VALID")
    desk.ddl("ALTER TABLE orders DROP COLUMN note")
    assert desk.write("UPDATE orders SET qty = 0") == 5
    assert desk.one("SELECT count(*) FROM reinstate.gap") == 0
    # Put back: nothing to see in the catalogues any more, only the counter tells.
    desk.ddl("ALTER TABLE reinstate.gap DROP CONSTRAINT full_disk")
    desk.ddl(
        "UPDATE reinstate.journal_table SET columns = (SELECT jsonb_agg(c) FROM jsonb_array_elements(columns) c"
        " WHERE c ->> 'name' <> 'note')"
    )
    assert desk.kinds() == {(NAME, "capture-failed")}
    journal.tick(desk.recoverer)
    (gap,) = desk.gaps()
    assert gap.kind == "capture-failed"
    assert gap.at == good.at
    assert desk.gaps(since=good) == [gap]


def test_size_cap(app_db: Any) -> None:
    with open_desk(app_db) as desk:
        desk.install(size_cap_mb=1)
        for _ in range(3):
            desk.write("INSERT INTO orders SELECT n, 1, 1, repeat('x', 100) FROM generate_series(1000, 5999) n")
            desk.write("DELETE FROM orders WHERE id >= 1000")
        assert desk.write("UPDATE orders SET qty = 0") == 5
        assert desk.kinds() == {(NAME, "size-cap")}
        assert desk.status().tables[0].bytes < 4 * 1024 * 1024
        assert desk.install(size_cap_mb=100)
        assert desk.write("UPDATE orders SET qty = 1") == 5
        assert len(desk.images()[-10:]) == 10
        assert desk.status().gaps == ()


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_truncate_that_cannot_be_copied_is_a_gap(app_db: Any, isolation: str) -> None:
    with open_desk(app_db) as desk:
        desk.install(truncate_limit=4 if isolation == "read committed" else 100)
        desk.write(f"SET default_transaction_isolation = '{isolation}'")
        desk.write("TRUNCATE orders")
        assert desk.images() == []
        assert desk.kinds() == {(NAME, "truncate")}


def test_a_locked_twin_delays_a_write_by_a_second_at_most(desk: Desk) -> None:
    desk.write("SET statement_timeout = '5s'")
    with desk.owner.transaction():
        desk.owner.execute("LOCK TABLE reinstate.j_public__orders")
        assert desk.write("UPDATE orders SET qty = 0") == 5
    assert desk.kinds() == {(NAME, "lock-timeout")}


def test_serializable_writers_do_not_fail_because_of_the_journal(desk: Desk) -> None:
    """Reading a table of the journal in a capture function would add conflicts between unrelated writes."""
    sessions = [desk.session(desk.db.dsn("wf_intake")) for _ in range(2)]
    for session in sessions:
        session.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    for n, session in enumerate(sessions, 1):
        session.execute("INSERT INTO orders VALUES (%s)", (100 + n,))
    for session in sessions:
        session.commit()
    assert desk.images()[-2:] == [("I", "n", 101), ("I", "n", 102)]


def test_the_gap_is_not_written_once_per_statement(desk: Desk) -> None:
    desk.ddl("ALTER TABLE orders DROP COLUMN note")
    for _ in range(20):
        desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
    assert desk.one("SELECT count(*) FROM reinstate.gap") == 1
    assert ORDERS.name == NAME
