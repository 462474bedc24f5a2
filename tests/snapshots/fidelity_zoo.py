"""Every type of PostgreSQL with the values that other tools damage, one row each; and what "the same" means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql

from snapshots import database, roles
from snapshots.journal import install
from snapshots.model import TableSpec

TYPES = """
CREATE SCHEMA zoo;
CREATE TYPE zoo.mood AS ENUM ('ok', 'so so', 'bad, "really"');
CREATE TYPE zoo.pair AS (a int, b text, c zoo.mood);
CREATE TYPE zoo.nest AS (p zoo.pair, q zoo.pair[], "Odd %s" numeric);
CREATE DOMAIN zoo.short AS varchar(5) CHECK (value <> 'never');
CREATE DOMAIN zoo.grade AS numeric NOT NULL DEFAULT 1.0;
CREATE TABLE zoo."Land mark" (id int);
CREATE TYPE zoo.span AS RANGE (subtype = numeric, multirange_type_name = zoo.spans);
"""
# Column type and the values that go wrong elsewhere. NULL is added to each.
VALUES: dict[str, list[str]] = {
    "smallint": ["-32768", "32767"],
    "int": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "boolean": ["true", "false"],
    "real": ["'NaN'", "'-0'", "'Infinity'", "'-Infinity'", "3.4028235e38", "1e-45", "1.1754942e-38", "0.1"],
    "double precision": [
        *("'NaN'", "'-0'", "'Infinity'", "'-Infinity'", "1.7976931348623157e308", "5e-324", "2.225073858507201e-308"),
        *("0.1", "1e23", "9007199254740993"),
    ],
    "numeric": [
        *("'NaN'", "'Infinity'", "'-Infinity'", "1.10", "1.1", "0.000", "1e1000", "-9.9e-900", "123456789.1234567"),
        *("1e131071", "1e-16383", "'-0'"),
    ],
    "numeric(12,2)": ["1.10", "'NaN'", "-9999999999.99"],
    "numeric(2,-3)": ["99000", "-1000"],
    "numeric(3,5)": ["0.00999"],
    "money": ["'-92233720368547758.08'", "'92233720368547758.07'", "'0.01'"],
    "text": [
        *("''", "E'a\\tb\\nc\\\\N\\r'", "'\\N'", "'\\.'", "E'\\\\.\\n\\\\.'", "'héé 🚒 ﷽'", "repeat('long', 300000)"),
        *("E'\\u0001\\u007f\\u0080\\u200b\\ufeff\\ufffd'", "chr(1114111)", "'\"quoted\", ''and'' so'", "' '", "'NULL'"),
    ],
    "varchar(7)": ["'ab  '", "''"],
    "char(5)": ["'ab'", "''", "'     '"],
    "bpchar": ["'ab   '", "'ab'"],
    '"char"': ["'x'", "''", "'\\303'", "'\\001'"],
    "name": ["'some name'", "repeat('n', 63)::name"],
    "bytea": ["'\\x00ff5c'", "''", "'\\x0a0d00'", "decode(repeat('00ff', 500000), 'hex')"],
    "date": ["'infinity'", "'-infinity'", "'4714-11-24 BC'", "'5874897-12-31'", "'0001-01-01'"],
    "time": ["'24:00'", "'00:00:00.000001'"],
    "timetz": ["'23:59:59.999999+15:59'", "'00:00-12:30:15'"],
    "timestamp": ["'infinity'", "'4714-11-24 00:00 BC'", "'294276-12-31 23:59:59.999999'"],
    "timestamptz": [
        *("'-infinity'", "'4714-11-24 00:00+00 BC'", "'294276-12-31 23:59:59.999999+00'", "'1900-01-01+0:19'"),
    ],
    "timestamptz(0)": ["'2026-03-29 02:30:00.9 Europe/Berlin'"],
    "interval": ["'-1 year +2 mons -3 days +04:05:06.789'", "'178000000 years'", "'1 day -24:00'", "'30 days'"],
    "interval day to second(3)": ["'1 day 00:00:00.001'"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "json": ['\'{"a" : 1, "a":2}\'', "'1.10'", "'\" \\u0041\"'", "E'{\\n}'"],
    "jsonb": ['\'{"b":[1.10,null,"\\ud83d\\ude92"],"a":1e400}\'', "'null'", "'\"\"'", "'-0.0'", "'[]'"],
    "oid": ["0", "4294967295"],
    "xid": ["'4294967295'"],
    "cid": ["'7'"],
    "tid": ["'(4294967295,65535)'"],
    "xid8": ["'18446744073709551615'", "'0'"],
    "pg_snapshot": ["'10:20:10,14'"],
    "txid_snapshot": ["'10:20:10,14'"],
    "oidvector": ["'1 2 3'"],
    "int2vector": ["'1 2'"],
    "regclass": ["'pg_catalog.pg_class'", "'zoo.\"Land mark\"'"],
    "regtype": ["'zoo.pair'", "'integer[]'"],
    "regproc": ["'pg_catalog.now'"],
    "regnamespace": ["'zoo'"],
    "pg_lsn": ["'FFFFFFFF/FFFFFFFF'", "'0/0'"],
    "inet": ["'10.1.2.3'", "'10.1.2.3/8'", "'::ffff:1.2.3.4/96'", "'fe80::1'", "'0.0.0.0/0'"],
    "cidr": ["'10.0.0.0/8'", "'2001:db8::/32'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "bit(4)": ["B'1010'"],
    "bit": ["B'1'"],
    "varbit": ["B''", "B'1'", "repeat('10', 70)::varbit"],
    "int4range": ["'empty'", "'[1,5)'", "'(,)'"],
    "int8range": ["'[-9223372036854775808,9223372036854775807)'"],
    "numrange": ["'(1.10,2.0]'", "'[Infinity,NaN]'"],
    "daterange": ["'[-infinity,infinity]'", "'[2026-01-01,2026-02-01)'"],
    "tsrange": ["'(\"2026-01-01 00:00:00.000001\",]'"],
    "tstzrange": ["'[-infinity,2026-01-01 00:00+00)'"],
    "zoo.span": ["'[1.10,2.20)'", "'empty'"],
    "int8multirange": ["'{}'", "'{[1,3),[7,)}'"],
    "zoo.spans": ["'{[1.10,2.20),(3,4]}'"],
    "point": ["'(1e-300,-0)'", "'(0.30000000000000004,1)'", "'(NaN,Infinity)'"],
    "line": ["'{1,-0.1,0.30000000000000004}'"],
    "lseg": ["'[(0,0.1),(-0,2)]'"],
    "box": ["'(1,1),(0.1,-0)'"],
    "polygon": ["'((0,0),(1,0),(0.1,0.2))'"],
    "circle": ["'<(0.1,0.2),0.3>'"],
    "path": ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"],
    "tsvector": ["'''it''''s'':1A,2B fat:3'", "''", "repeat('word ', 10)::tsvector"],
    "tsquery": ["'fat & (rat | !cat:AB)'", "'a <2> b'"],
    "int[]": ["'{}'", "'{{1,2},{3,NULL}}'", "'[-2:0]={1,2,3}'", "'[2:3][0:0]={{1},{2}}'", "'{{{1},{2}},{{3},{4}}}'"],
    "double precision[]": ["'{0.30000000000000004,NaN,-0}'"],
    "text[]": ['\'{NULL,"NULL","","a\\"b\\\\c, {d}"}\'', "E'{\"line\\nfeed\"}'"],
    "numeric[]": ["'{NaN,1.10}'"],
    "jsonb[]": ["ARRAY['{\"a\": \"x,y\"}', 'null']::jsonb[]"],
    "timestamptz[]": ["'{infinity,\"0001-01-01 00:00:00+00 BC\"}'"],
    "bytea[]": ["ARRAY['\\x00'::bytea, '']"],
    "box[]": ["'{(1,1),(0,0);(2,2),(1,1)}'"],
    "int4range[]": ["'{\"[1,2)\",empty}'"],
    "zoo.mood": ["'so so'", "'bad, \"really\"'"],
    "zoo.mood[]": ['\'{ok,"bad, \\"really\\""}\''],
    "zoo.pair": [
        "ROW(1, 'a \"quoted\", (text)', 'ok')::zoo.pair",
        "ROW(NULL, '', NULL)::zoo.pair",
        "ROW(NULL, NULL, NULL)::zoo.pair",
    ],
    "zoo.pair[]": ["ARRAY[ROW(1, '{}', 'ok'), NULL]::zoo.pair[]"],
    "zoo.nest": ["ROW(ROW(1, E'\\\\', 'ok'), ARRAY[ROW(2, '\"', NULL)]::zoo.pair[], 1.10)::zoo.nest"],
    "zoo.short": ["'ab  '"],
    "zoo.short[]": ["'{ab,NULL}'"],
    "jsonpath": ["'$.a[*] ? (@ > 1.10)'"],
}
XML = ['\'<?xml version="1.0"?><a b="1">&amp; é</a>\'', "'just <b>content</b>'"]
EXTENSIONS: dict[str, dict[str, list[str]]] = {
    "hstore": {"hstore": ['\'a=>1, "b c"=>NULL, ""=>"\\"q\\""\'', "''"], "hstore[]": ["ARRAY['a=>b'::hstore]"]},
    "citext": {"citext": ["'MiXed'"]},
    "ltree": {"ltree": ["'a.b.c'"], "lquery": ["'a.*{1,2}.!b'"]},
    "cube": {"cube": ["'(0.1,2),(3,-0)'"]},
    "seg": {"seg": ["'1.10 .. 2.20'"]},
    "isn": {"isbn13": ["'978-0-393-04002-9'"]},
    "vector": {"vector(3)": ["'[0.1,-0,1e-30]'"], "halfvec(2)": ["'[0.1,2]'"], "sparsevec(5)": ["'{1:0.1,5:2}/5'"]},
}
SINCE_17 = {"interval": ["'infinity'", "'-infinity'"]}

ANIMALS = TableSpec(name="zoo.animals", key=("id",))
ODD = TableSpec(name="zoo.Odd %s name", key=("Key one", "select"))
BARE = TableSpec(name="zoo.bare", key=("id",))
WIDE = TableSpec(name="zoo.wide", key=("id",))
BAG = TableSpec(name="zoo.bag", key=())
KEYED = (ANIMALS, ODD, BARE, WIDE)
TABLES = (*KEYED, BAG)
WIDTH = 240
OTHERS = f"""
CREATE TABLE zoo."Odd %s name" (
    "Key one" text COLLATE "C", "select" numeric, "Ünï ""q"" %s %(x)s" text, "UPPER" int, " " text, "rj" text,
    "a,b(c)" int[], "twice" int GENERATED ALWAYS AS ("UPPER" * 2) STORED, "ident" bigint GENERATED ALWAYS AS IDENTITY,
    "given" int GENERATED BY DEFAULT AS IDENTITY (START 10 INCREMENT 5), PRIMARY KEY ("Key one", "select")
);
INSERT INTO zoo."Odd %s name" ("Key one", "select", "Ünï ""q"" %s %(x)s", "UPPER", " ", "rj", "a,b(c)") VALUES
    ('', 1.0, '%s', 1, '', 'n', '{{1}}'), ('NULL', 1.10, NULL, NULL, ' ', '', NULL),
    ('a"b,c', 'NaN', '', -1, 'x', NULL, '{{}}'), (E'tab\\tline\\n', 0.00, '\\', 7, '\\.', '%', '[0:0]={{NULL}}'),
    ('\\N', -1e300, '\\N', 0, '\\N', '\\N', '{{NULL}}');
CREATE TABLE zoo.bare (id uuid PRIMARY KEY);
INSERT INTO zoo.bare SELECT md5(n::text)::uuid FROM generate_series(1, 50) n;
CREATE TABLE zoo.wide (id int PRIMARY KEY, {", ".join(f"w{n} {'text' if n % 2 else 'numeric'}" for n in range(WIDTH))});
INSERT INTO zoo.wide SELECT n, {", ".join(f"(n + {n} / 10.0)" + ("::text" if n % 2 else "") for n in range(WIDTH))}
    FROM generate_series(1, 5) n;
"""


@dataclass(frozen=True, repr=False)
class Zoo:
    """``kept`` holds, by table, what COPY gave for it: text and binary."""

    app: Any
    kept: dict[str, tuple[bytes, bytes]]


def types_of(conn: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """What this server knows: by its version, its libraries and the extensions that lie beside it."""
    kinds = {kind: list(values) for kind, values in VALUES.items()}
    if conn.info.server_version >= 170000:
        for kind, values in SINCE_17.items():
            kinds[kind] += values
    try:
        with conn.transaction():
            conn.execute("SELECT '<a/>'::xml")
        kinds["xml"] = XML
    except errors.FeatureNotSupported:
        pass  # built without libxml
    for extension, more in EXTENSIONS.items():
        try:
            with conn.transaction():
                conn.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(extension)))
            for kind, values in more.items():
                with conn.transaction():
                    conn.execute(f"SELECT NULL::{kind}".encode())
                kinds[kind] = values
        except (errors.FeatureNotSupported, errors.UndefinedFile, errors.UndefinedObject, errors.InsufficientPrivilege):
            continue
    return kinds


def build(app: Any, *, actors: tuple[str, ...] = ()) -> None:
    """Schema and rows by the installer, roles by the SQL that is printed for the administrator, and the journal."""
    with psycopg.connect(app.installer) as conn:
        conn.execute("DROP SCHEMA IF EXISTS zoo CASCADE; DROP SCHEMA IF EXISTS reinstate CASCADE")
        conn.execute(TYPES)
        kinds = types_of(conn)
        columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(kinds))
        identity = "id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        conn.execute(f"CREATE TABLE zoo.animals ({identity}, grade zoo.grade, {columns})".encode())
        for n, values in enumerate(kinds.values()):
            for value in ["NULL", *values]:
                conn.execute(f"INSERT INTO zoo.animals (c{n}) VALUES ({value})".encode())
        every = ", ".join(f"c{n}" for n in range(len(kinds)))
        firsts = ", ".join(values[0] for values in kinds.values())
        conn.execute(f"INSERT INTO zoo.animals (grade, {every}) VALUES (1.10, {firsts})".encode())
        conn.execute(OTHERS.encode())
        conn.execute("CREATE TABLE zoo.bag AS SELECT * FROM zoo.animals; INSERT INTO zoo.bag TABLE zoo.animals")
        for actor in actors:
            rights = "GRANT USAGE ON SCHEMA zoo TO {0}; GRANT {1} ON ALL TABLES IN SCHEMA zoo TO {0}"
            writes = sql.SQL("SELECT, INSERT, UPDATE, DELETE")
            conn.execute(sql.SQL(rights).format(sql.Identifier(actor), writes))
    with psycopg.connect(app.superuser, autocommit=True) as administrator:
        administrator.execute(roles.sql(database=app.name, tables=[t.name for t in TABLES]).encode())
    with database.connect(app.installer, purpose="test") as conn:
        install.install(conn, KEYED, capturer="capturer", recoverer="recoverer")
    for spec in TABLES:
        with psycopg.connect(app.superuser, autocommit=True) as conn:
            conn.execute("CREATE SCHEMA IF NOT EXISTS kept")
            name = sql.Identifier("kept", spec.name.partition(".")[2])
            conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
            conn.execute(sql.SQL("CREATE TABLE {} AS TABLE {}").format(name, database.qualified(spec.name)))


def image(app: Any, spec: TableSpec) -> tuple[bytes, bytes]:
    """The table as COPY gives it in the order of its key, as text and in the wire's binary form."""
    order = sql.SQL(", ").join(map(sql.Identifier, spec.key)) if spec.key else sql.SQL("t::text")
    query = sql.SQL("COPY (SELECT * FROM {} t ORDER BY {}) TO STDOUT (FORMAT {})")
    made = {}
    for form in ("text", "binary"):
        with database.connect(app.installer, purpose="test") as conn, conn.cursor() as cursor:
            try:
                with cursor.copy(query.format(database.qualified(spec.name), order, sql.SQL(form))) as copy:
                    made[form] = b"".join(copy)
            except errors.UndefinedFunction:
                made[form] = b""  # a type of an extension without a binary form; images are compared all the same
    return made["text"], made["binary"]


def images(app: Any, specs: tuple[TableSpec, ...] = TABLES) -> dict[str, tuple[bytes, bytes]]:
    return {spec.name: image(app, spec) for spec in specs}


def unlike(app: Any, specs: tuple[TableSpec, ...] = TABLES) -> list[str]:
    """Columns in which a row's bytes are not the kept ones, by the server's own comparison of images."""
    found: list[str] = []
    with psycopg.connect(app.superuser) as conn:
        for spec in specs:
            live, kept = database.qualified(spec.name), sql.Identifier("kept", spec.name.partition(".")[2])
            if not spec.key:
                query = sql.SQL(
                    "SELECT count(*) FROM ((SELECT t::text FROM {0} t EXCEPT ALL SELECT t::text FROM {1} t)"
                    " UNION ALL (SELECT t::text FROM {1} t EXCEPT ALL SELECT t::text FROM {0} t)) d"
                )
                row = conn.execute(query.format(live, kept)).fetchone()
                found += [f"{spec.name}: {row[0]} rows"] if row and row[0] else []
                continue
            keys = sql.SQL(", ").join(map(sql.Identifier, spec.key))
            whole = sql.SQL(
                "SELECT count(*) FROM {} o FULL JOIN {} l USING ({}) WHERE record_image_eq(o, l) IS NOT TRUE"
            )
            row = conn.execute(whole.format(kept, live, keys)).fetchone()
            if not row or not row[0]:
                continue
            found.append(f"{spec.name}: {row[0]} rows")
            for column in database.columns(conn, spec.name):
                query = sql.SQL(
                    "SELECT left(o.{0}::text, 99), left(l.{0}::text, 99) FROM {1} o FULL JOIN {2} l USING ({3})"
                    " WHERE record_image_ne(ROW(o.{0}), ROW(l.{0}))"
                )
                for was, is_ in conn.execute(query.format(sql.Identifier(column.name), kept, live, keys)):
                    found.append(f"{spec.name}.{column.name} ({column.type}): {was!r} is {is_!r}")
    return found
