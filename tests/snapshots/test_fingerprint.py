"""Fingerprints tell apart what merely looks equal, and add up."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from journal_desk import Desk, open_desk

from snapshots import database
from snapshots.errors import Refused
from snapshots.journal import fingerprint

pytestmark = pytest.mark.postgres

SCHEMA = """
CREATE TABLE public.t (id int PRIMARY KEY, n numeric, f float8, txt text, c bpchar, j jsonb, s interval, a int[],
    at timestamptz(3), m money, z timetz);
INSERT INTO public.t SELECT n, n + 0.1, n, 'a' || n, 'x', '{"a": 1.1}', '1 mon', '{1}', '2026-01-01', 1, '10:00+00'
FROM generate_series(1, 50) n;
GRANT SELECT ON public.t TO capturer;
"""


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    with open_desk(app_db, SCHEMA) as made:
        yield made


def taken(desk: Desk, buckets: int = fingerprint.BUCKETS, key: tuple[str, ...] = ("id",)) -> tuple[str, ...]:
    columns = database.columns(desk.capturer, "public.t")
    found = fingerprint.fingerprint(desk.capturer, columns, "public.t", key, buckets=buckets)
    desk.capturer.rollback()
    return found


def test_the_same_rows_have_the_same_fingerprint_wherever_they_lie(desk: Desk) -> None:
    before = taken(desk)
    desk.ddl("UPDATE public.t SET n = n; CREATE TABLE public.u AS SELECT * FROM public.t ORDER BY id DESC")
    desk.ddl("DELETE FROM public.t; INSERT INTO public.t SELECT * FROM public.u; SET TimeZone = 'Asia/Tokyo'")
    assert taken(desk) == before
    assert len(before) <= 51


@pytest.mark.parametrize(
    "change",
    [
        "n = n + 0.00",
        "n = 'NaN'",
        "f = '-0'",
        "f = 5e-324",
        "txt = NULL",
        "txt = ''",
        "txt = txt || ' '",
        "c = 'x '",
        "c = ''",
        "j = '{\"a\": 1.10}'",
        "s = '30 days'",
        "a = '[2:2]={1}'",
        "a = '{}'",
        "at = at + interval '1 ms'",
        "at = 'infinity'",
        "m = 1.01",
        "z = '11:00+01'",
    ],
)
def test_every_exact_change_of_one_value_shows(desk: Desk, change: str) -> None:
    desk.ddl("UPDATE public.t SET f = 0 WHERE id = 7")
    before = taken(desk)
    desk.ddl(f"UPDATE public.t SET {change} WHERE id = 7")
    after = taken(desk)
    assert after != before
    assert len(fingerprint.differing(fingerprint.read(before)[1], fingerprint.read(after)[1])) == 1


@pytest.mark.parametrize("buckets", [1, 1024])
def test_values_swapped_between_two_rows_show(desk: Desk, buckets: int) -> None:
    before = taken(desk, buckets)
    desk.ddl("UPDATE public.t SET txt = 'a' || (3 - id) WHERE id < 3")
    assert taken(desk, buckets) != before
    desk.ddl("UPDATE public.t SET txt = 'a' || id WHERE id < 3")
    assert taken(desk, buckets) == before


def test_a_row_twice_is_not_a_row_once_or_none(desk: Desk) -> None:
    desk.ddl("ALTER TABLE public.t DROP CONSTRAINT t_pkey")
    once = taken(desk, key=())
    desk.ddl("INSERT INTO public.t SELECT * FROM public.t WHERE id = 1")
    twice = taken(desk, key=())
    desk.ddl("INSERT INTO public.t SELECT DISTINCT * FROM public.t WHERE id = 1")
    thrice = taken(desk, key=())
    assert len({once, twice, thrice}) == 3


def test_changes_can_be_added_and_taken_off(desk: Desk) -> None:
    columns = database.columns(desk.capturer, "public.t")
    before = fingerprint.read(taken(desk))[1]
    desk.ddl("CREATE TABLE public.img AS SELECT t.*, -1 AS sign FROM public.t t WHERE id < 9")
    desk.ddl("UPDATE public.t SET n = n * 2, txt = NULL WHERE id < 5; DELETE FROM public.t WHERE id BETWEEN 5 AND 8")
    desk.ddl("INSERT INTO public.img SELECT t.*, 1 FROM public.t t WHERE id < 9; GRANT SELECT ON img TO capturer")
    net = fingerprint.sums(
        desk.capturer, psycopg.sql.SQL("public.img AS t"), "t", columns, ("id",), sign=psycopg.sql.SQL("t.sign")
    )
    assert fingerprint.added(before, net) != before
    assert fingerprint.differing(fingerprint.added(before, net), fingerprint.read(taken(desk))[1]) == ()


def test_what_cannot_be_compared_says_so(desk: Desk) -> None:
    first = taken(desk)[0]
    desk.ddl("ALTER TABLE public.t ADD COLUMN more int")
    assert taken(desk)[0] != first
    with pytest.raises(Refused, match="cannot be read"):
        fingerprint.read(("1:18:1024:abc", "nonsense"))
    with pytest.raises(Refused, match="cannot be read"):
        fingerprint.read(())
