"""Values that nobody thought of: rows of many types, drawn, through point and undo and back, byte for byte."""

from __future__ import annotations

import math
import uuid
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from point_desk import Told

from snapshots import database, roles
from snapshots.capture import capture
from snapshots.journal import install
from snapshots.model import Policy, RunRef, TableSpec, UndoSpec
from snapshots.restore import restore
from snapshots.store.store import Store
from snapshots.undo import undo

pytestmark = pytest.mark.postgres

DRAWN = TableSpec(name="zoo.drawn", key=("id",))
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=12)
FLOAT = st.floats(allow_nan=True, allow_infinity=True)
NUMERIC = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False).map(
        lambda d: format(d, "f") if abs(d.adjusted()) < 400 else "0"
    ),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "-0.000", "1e130000", "1e-16000"]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT.filter(lambda t: "\\u0000" not in t),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
YEARS = st.integers(-4712, 294_000)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT,
    "bytea": st.binary(max_size=20),
    "double precision": FLOAT,
    "real": st.floats(width=32),
    "numeric": NUMERIC,
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "text[]": st.lists(st.none() | TEXT, max_size=4),
    # In an array, a NaN is a NaN: PostgreSQL prints no sign of it.
    "double precision[]": st.lists(FLOAT.map(lambda f: math.nan if math.isnan(f) else f), max_size=3),
    "jsonb": JSON,
    "json": JSON,
    "timestamp": st.tuples(YEARS, st.integers(0, 86_399_999_999)).map(
        lambda t: f"{abs(t[0]) + 1:04}-02-28 {'BC ' if t[0] < 0 else ''}00:00:00"
    ),
    "interval": st.tuples(st.integers(-900, 900), st.integers(-99, 99), st.integers(-(10**9), 10**9)).map(
        lambda t: f"{t[0]} months {t[1]} days {t[2]} microseconds"
    ),
    "uuid": st.uuids(),
    "inet": st.ip_addresses().map(str),
    "int8range": st.tuples(st.integers(-9, 9), st.integers(0, 9)).map(lambda t: f"[{t[0]},{t[0] + t[1]})"),
    "varbit": st.text("01", max_size=70),
    "numeric(20,4)": st.integers(-(10**19), 10**19).map(lambda n: f"{n}e-4"),
}
ROW = st.tuples(*(st.none() | strategy for strategy in KINDS.values()))


def adapted(kind: str, value: Any) -> Any:
    if value is None or kind not in ("json", "jsonb"):
        return str(value) if isinstance(value, uuid.UUID) else value
    from psycopg.types.json import Json

    return Json(value)


@pytest.fixture(scope="module")
def app(module_app_db: Any) -> Any:
    module_app_db.role("wf_bad")
    columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(KINDS))
    with psycopg.connect(module_app_db.installer) as conn:
        conn.execute(f"CREATE SCHEMA zoo; CREATE TABLE zoo.drawn (id int PRIMARY KEY, {columns})".encode())
        conn.execute("GRANT USAGE ON SCHEMA zoo TO wf_bad; GRANT SELECT, UPDATE, DELETE ON zoo.drawn TO wf_bad")
    with psycopg.connect(module_app_db.superuser, autocommit=True) as administrator:
        administrator.execute(roles.sql(database=module_app_db.name, tables=["zoo.drawn"]).encode())
    with database.connect(module_app_db.installer, purpose="test") as conn:
        install.install(conn, [DRAWN], capturer="capturer", recoverer="recoverer")
    return module_app_db


def rows(app: Any) -> bytes:
    query = "COPY (SELECT * FROM zoo.drawn ORDER BY id) TO STDOUT (FORMAT binary)"
    with psycopg.connect(app.installer) as conn, conn.cursor() as cursor, cursor.copy(query) as copy:
        return b"".join(copy)


def wreck(app: Any, run: str) -> None:
    with psycopg.connect(app.dsn("wf_bad")) as conn:
        conn.execute("SELECT set_config('reinstate.run', %s, true)", (run,))
        blank = ", ".join(f"c{n} = NULL" for n in range(len(KINDS)))
        conn.execute(f"UPDATE zoo.drawn SET {blank} WHERE id % 2 = 0".encode())
        conn.execute("DELETE FROM zoo.drawn WHERE id % 2 = 1")


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(drawn=st.lists(ROW, min_size=12, max_size=12))
def test_drawn_values_survive(app: Any, tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[Any, ...]]) -> None:
    folder: Path = tmp_path_factory.mktemp("drawn")
    store = Store(str(folder))
    with psycopg.connect(app.installer) as conn:
        conn.execute("TRUNCATE zoo.drawn")
    empty = capture.capture(app.capturer, [DRAWN], {}, Told(), store, app="zoo")
    with psycopg.connect(app.installer) as conn:
        marks = ", ".join(f"%s::{kind}" for kind in KINDS)
        for n, row in enumerate(drawn):
            values = [adapted(kind, value) for kind, value in zip(KINDS, row, strict=True)]
            conn.execute(f"INSERT INTO zoo.drawn VALUES ({n}, {marks})".encode(), values)
    before = rows(app)
    point = capture.capture(app.capturer, [DRAWN], {}, Told(), store, app="zoo", base=empty, method="scan")
    assert point.tables[0].deltas
    name = folder.name
    wreck(app, name)
    assert rows(app) != before
    with database.connect(app.recoverer, purpose="test") as conn:
        restore.apply(
            conn,
            point,
            store,
            [DRAWN],
            recovery_id=name,
            step="1",
            plan_hash="h",
            source="scan",
            caps=restore.Caps(max_deleted_share=1.0),
        )
        assert rows(app) == before
        wreck(app, f"{name} again")
        refs = (RunRef(actor="wf_bad", run=f"{name} again"),)
        spec = UndoSpec(tables=(DRAWN,), runs=refs, policy=Policy.REFUSE, max_deleted_share=1.0)
        planned = undo.preview(conn, spec)
        assert planned.problems == ()
        undo.apply(conn, spec, recovery_id=name, step="2", plan_hash="h", expected=planned.counts)
    assert rows(app) == before
