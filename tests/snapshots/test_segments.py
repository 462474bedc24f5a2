"""The journal's images leave with each point, once, and outlive the journal."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from point_desk import CUSTOMERS, ORDERS, TABLES, WORKFLOWS, Told, build, write

from snapshots import database
from snapshots.capture import capture
from snapshots.journal import journal, segments
from snapshots.model import RecoveryPoint, Segment
from snapshots.points import points
from snapshots.points.errors import Damaged
from snapshots.store.store import Store

pytestmark = pytest.mark.postgres


@pytest.fixture
def app(app_db: Any) -> Any:
    build(app_db)
    return app_db


def _take(app: Any, store: Store, last: RecoveryPoint | None, **how: Any) -> RecoveryPoint:
    return capture.capture(app.capturer, TABLES, WORKFLOWS, Told(), store, app="desk", base=last, **how)


def _images(store: Store, listed: tuple[Segment, ...], table: str) -> list[tuple[Any, ...]]:
    found = []
    for segment in (s for s in listed if s.table == table):
        rows = segments.rows(store, segment)
        found += list(zip(*(rows.column(n).to_pylist() for n in ("id", "rj_op", "rj_side")), strict=True))
    return found


def test_each_point_lists_every_image_since_its_base_once(app: Any, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    base = _take(app, store, None)
    assert base.segments == ()
    with database.connect(app.installer, purpose="test") as open_one:
        open_one.execute("UPDATE shop.orders SET total = 0 WHERE id = 50")
        write(app, "UPDATE shop.orders SET total = 1.10 WHERE id = 3", "DELETE FROM shop.orders WHERE id = 4")
        one = _take(app, store, base)
        open_one.commit()  # written before that point, committed after it
    write(app, "INSERT INTO shop.customers (email) VALUES ('new@example.com')")
    two = _take(app, store, one)
    three = _take(app, store, two)
    assert _images(store, one.segments, "shop.orders") == [(3, "U", "o"), (3, "U", "n"), (4, "D", "o")]
    assert two.segments[: len(one.segments)] == one.segments
    assert _images(store, two.segments, "shop.orders")[3:] == [(50, "U", "o"), (50, "U", "n")]
    assert _images(store, two.segments, "shop.customers") == [(21, "I", "n")]
    assert three.segments == two.segments
    assert {s.since for s in two.segments} == {base.position, one.position}
    first = segments.rows(store, one.segments[0])
    assert first.column("total").to_pylist() == ["3.30", "1.10", "4.40"]
    assert points.audit(store, three) == ()


def test_a_new_base_puts_what_led_to_it_together(app: Any, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    last = base = _take(app, store, None)
    for n in range(3):
        write(app, f"UPDATE shop.orders SET total = {n} WHERE id = 9")
        last = _take(app, store, last)
    assert len(last.segments) == 3
    write(app, "UPDATE shop.orders SET total = 9 WHERE id = 9")
    anew = _take(app, store, last, method="full")
    assert anew.base is None
    (whole,) = anew.segments
    assert (whole.table, whole.rows, whole.since) == ("shop.orders", 8, base.position)
    images = segments.rows(store, whole)
    assert images.column("rj_seq").to_pylist() == sorted(images.column("rj_seq").to_pylist())
    write(app, "UPDATE shop.orders SET total = 10 WHERE id = 9")
    after = _take(app, store, anew)
    assert after.base == anew.id
    assert [(s.rows, s.since) for s in after.segments] == [(2, anew.position)]


def test_a_table_with_a_gap_gives_no_segment(app: Any, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    base = _take(app, store, None)
    write(app, "UPDATE shop.customers SET email = 'x@example.com' WHERE id = 1", "UPDATE shop.orders SET total = 1")
    write(app, "ALTER TABLE shop.orders DISABLE TRIGGER USER", "ALTER TABLE shop.orders ENABLE TRIGGER USER")
    with database.connect(app.recoverer, purpose="test") as conn:
        journal.tick(conn)
    point = _take(app, store, base)
    assert {s.table for s in point.segments} == {CUSTOMERS.name}
    assert ORDERS.name in {t.name for t in point.tables}


def test_a_segment_that_is_not_what_it_says_is_named(app: Any, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    base = _take(app, store, None)
    write(app, "UPDATE shop.orders SET total = 1 WHERE id = 1")
    (segment,) = _take(app, store, base).segments
    with pytest.raises(Damaged, match="holds 2 rows, not 5"):
        segments.rows(store, Segment(table=segment.table, sha256=segment.sha256, rows=5, bytes=1, since=segment.since))
    other = store.put_chunk(b"not parquet")
    with pytest.raises(Damaged, match="not readable"):
        segments.rows(store, Segment(table="shop.orders", sha256=other, rows=2, bytes=11, since=segment.since))
    assert isinstance(segments.rows(store, segment), pa.Table)
