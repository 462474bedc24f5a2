"""Every type and its extremes survive capture, wreck and restore, byte for byte, by both ways back."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from point_desk import WORKFLOWS, Told, write

from snapshots import capture, chunks, database, diff, journal_install, restore, restore_copy
from snapshots.model import TableSpec
from snapshots.store import Store

pytestmark = pytest.mark.postgres

TYPES = """
CREATE SCHEMA zoo;
CREATE TYPE zoo.mood AS ENUM ('ok', 'so so', 'bad, "really"');
CREATE TYPE zoo.pair AS (a int, b text, c zoo.mood);
CREATE DOMAIN zoo.short AS varchar(5) CHECK (value <> 'never');
"""
# Column type and the values that go wrong elsewhere. NULL is added to each.
VALUES: dict[str, list[str]] = {
    "smallint": ["-32768", "32767"],
    "int": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "boolean": ["true", "false"],
    "real": ["'NaN'", "'-0'", "'Infinity'", "'-Infinity'", "3.4028235e38", "1e-45", "0.1"],
    "double precision": ["'NaN'", "'-0'", "'-Infinity'", "1.7976931348623157e308", "5e-324", "0.1", "1e23"],
    "numeric": [
        "'NaN'",
        "'Infinity'",
        "'-Infinity'",
        "1.10",
        "1.1",
        "0.000",
        "1e1000",
        "-9.9e-900",
        "123456789.1234567",
    ],
    "numeric(12,2)": ["1.10", "'NaN'", "-9999999999.99"],
    "numeric(2,-3)": ["99000"],
    "money": ["'-92233720368547758.08'", "'0.01'"],
    "text": ["''", "E'a\\tb\\nc\\\\N\\r'", "'\\N'", "'\\.'", "'héé 🚒 ﷽'", "repeat('long', 300000)"],
    "varchar(7)": ["'ab  '", "''"],
    "char(5)": ["'ab'", "''"],
    "bpchar": ["'ab   '", "'ab'"],
    '"char"': ["'x'", "''", "'\\303'"],
    "name": ["'some name'"],
    "bytea": ["'\\x00ff5c'", "''", "'\\x'"],
    "date": ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'0001-01-01'"],
    "time": ["'24:00'", "'00:00:00.000001'"],
    "timetz": ["'23:59:59.999999+15:59'", "'00:00-12:30:15'"],
    "timestamp": ["'infinity'", "'4713-01-01 00:00 BC'", "'294276-12-31 23:59:59.999999'"],
    "timestamptz": [
        "'-infinity'",
        "'4713-01-02 00:00+00 BC'",
        "'294276-12-31 23:59:59.999999+00'",
        "'1900-01-01+0:19'",
    ],
    "timestamptz(0)": ["'2026-03-29 02:30:00.9 Europe/Berlin'"],
    "interval": ["'-1 year +2 mons -3 days +04:05:06.789'", "'178000000 years'", "'infinity'", "'1 day -24:00'"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "json": ['\'{"a" : 1, "a":2}\'', "'1.10'", "'\" \\u0041\"'"],
    "jsonb": ['\'{"b":[1.10,null,"\\ud83d\\ude92"],"a":1e400}\'', "'null'", "'\"\"'", "'-0.0'"],
    "oid": ["0", "4294967295"],
    "xid8": ["'18446744073709551615'"],
    "regclass": ["'pg_catalog.pg_class'", "'zoo.animals'"],
    "pg_lsn": ["'FFFFFFFF/FFFFFFFF'"],
    "inet": ["'10.1.2.3'", "'10.1.2.3/8'", "'::ffff:1.2.3.4/96'", "'fe80::1'"],
    "cidr": ["'10.0.0.0/8'", "'2001:db8::/32'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "bit(4)": ["B'1010'"],
    "varbit": ["B''", "B'1'", "repeat('10', 70)::varbit"],
    "int4range": ["'empty'", "'[1,5)'", "'(,)'"],
    "numrange": ["'(1.10,2.0]'", "'[Infinity,NaN]'"],
    "tstzrange": ["'[-infinity,2026-01-01 00:00+00)'"],
    "int8multirange": ["'{}'", "'{[1,3),[7,)}'"],
    "point": ["'(1e-300,-0)'", "'(0.30000000000000004,1)'", "'(NaN,Infinity)'"],
    "polygon": ["'((0,0),(1,0),(0.1,0.2))'"],
    "circle": ["'<(0.1,0.2),0.3>'"],
    "path": ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"],
    "tsvector": ["'''it''''s'':1A,2B fat:3'", "''"],
    "tsquery": ["'fat & (rat | !cat:AB)'"],
    "int[]": ["'{}'", "'{{1,2},{3,NULL}}'", "'[-2:0]={1,2,3}'", "'{{{1},{2}},{{3},{4}}}'"],
    "double precision[]": ["'{0.30000000000000004,NaN}'"],
    "text[]": ['\'{NULL,"NULL","","a\\"b\\\\c, {d}"}\''],
    "numeric[]": ["'{NaN,1.10}'"],
    "jsonb[]": ["ARRAY['{\"a\": \"x,y\"}', 'null']::jsonb[]"],
    "zoo.mood": ["'so so'", "'bad, \"really\"'"],
    "zoo.mood[]": ['\'{ok,"bad, \\"really\\""}\''],
    "zoo.pair": ["ROW(1, 'a \"quoted\", (text)', 'ok')::zoo.pair", "ROW(NULL, '', NULL)::zoo.pair"],
    "zoo.pair[]": ["ARRAY[ROW(1, '{}', 'ok')]::zoo.pair[]"],
    "zoo.short": ["'ab  '"],
    "jsonpath": ["'$.a[*] ? (@ > 1.10)'"],
}
XML = ['\'<?xml version="1.0"?><a b="1">&amp; é</a>\'', "'just <b>content</b>'"]
ANIMALS = TableSpec(name="zoo.animals", key=("id",))


@pytest.fixture
def zoo(module_app_db: Any) -> Any:
    """One row per value: all its other columns are null."""
    with psycopg.connect(module_app_db.installer) as conn:
        conn.execute("DROP SCHEMA IF EXISTS zoo CASCADE")
        conn.execute(TYPES)
        kinds = dict(VALUES)
        try:
            with conn.transaction():
                conn.execute("SELECT '<a/>'::xml")
            kinds["xml"] = XML
        except psycopg.errors.FeatureNotSupported:
            pass  # this server was built without libxml
        columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(kinds))
        conn.execute(f"CREATE TABLE zoo.animals (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns})".encode())
        for n, values in enumerate(kinds.values()):
            for value in ["NULL", *values]:
                conn.execute(f"INSERT INTO zoo.animals (c{n}) VALUES ({value})".encode())
        conn.execute("CREATE TABLE zoo.original AS TABLE zoo.animals")
        conn.execute("CREATE TABLE zoo.bag AS TABLE zoo.animals")
        conn.execute("INSERT INTO zoo.bag TABLE zoo.animals")
        conn.execute("GRANT USAGE ON SCHEMA zoo TO capturer, recoverer")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA zoo TO capturer")
        conn.execute("GRANT ALL ON zoo.animals, zoo.bag TO recoverer")
        conn.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA zoo TO capturer, recoverer")
    with database.connect(module_app_db.installer, purpose="test") as conn:
        journal_install.install(conn, [], capturer="capturer", recoverer="recoverer")
    return module_app_db


def _unlike(zoo: Any) -> list[str]:
    """Columns in which a row's bytes are not the original's; the comparison is the server's own."""
    with psycopg.connect(zoo.installer) as conn:
        names = [c.name for c in database.columns(conn, "zoo.animals")]
        found = [
            f"{name} {row}"
            for name in names
            for row in conn.execute(
                f"SELECT o.{name}::text, a.{name}::text FROM zoo.original o FULL JOIN zoo.animals a USING (id)"
                f" WHERE record_image_ne(ROW(o.{name}), ROW(a.{name}))".encode()
            )
        ]
        bag = conn.execute(
            "SELECT count(*) FROM (SELECT b::text FROM zoo.bag b EXCEPT ALL SELECT o::text FROM"
            " (TABLE zoo.original UNION ALL TABLE zoo.original) o)"
        ).fetchone()
        size = conn.execute(
            "SELECT (SELECT count(*) FROM zoo.bag) - 2 * (SELECT count(*) FROM zoo.original)"
        ).fetchone()
    return found + [f"bag {n}" for row in (bag, size) if row for n in row if n]


def test_every_type_survives(zoo: Any, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    tables = (ANIMALS, TableSpec(name="zoo.bag", key=()))
    point = capture.capture(zoo.capturer, tables, WORKFLOWS, Told(), store, app="zoo")
    with database.connect(zoo.recoverer, purpose="test") as conn:
        assert [t.rows for t in diff.diff(conn, point, store)] == [0, 0], "an untouched table differs from its point"

    every = ", ".join(f"{c.name} = NULL" for c in chunks.stored(point.tables[0].columns) if c.name != "id")
    write(
        zoo,
        f"UPDATE zoo.animals SET {every} WHERE id % 2 = 0",
        "DELETE FROM zoo.animals WHERE id % 2 = 1",
        "DELETE FROM zoo.bag WHERE id % 2 = 0",
        "INSERT INTO zoo.bag TABLE zoo.bag",
    )
    assert _unlike(zoo)
    with database.connect(zoo.recoverer, purpose="test") as conn:
        caps = restore.Caps(max_deleted_share=1.0)
        restore.apply(conn, point, store, tables, recovery_id="r", step=point.id, plan_hash="h", caps=caps)
    assert _unlike(zoo) == []

    write(zoo, "TRUNCATE zoo.animals, zoo.bag")
    assert _unlike(zoo)
    with database.connect(zoo.installer, purpose="test") as conn:
        restore_copy.into_empty(conn, point, store)
    assert _unlike(zoo) == []
