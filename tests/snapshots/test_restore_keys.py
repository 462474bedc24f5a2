"""Keys that are newer than a point, and keys that are gone, found by one look at all keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from point_desk import build, take
from psycopg import sql

from snapshots import database
from snapshots.capture import pieces, shape, touched
from snapshots.model import TableManifest, TableSpec
from snapshots.points import chunks
from snapshots.restore import keys
from snapshots.store.store import Store

pytestmark = pytest.mark.postgres

NAME = "shop.keyed"
SHAPES = {
    "one number": ("id bigint", ("id",), "(n - 300)::bigint * 4000000007"),
    "three numbers": ("a bigint, b integer, c smallint", ("c", "a", "b"), "-n, n % 7 - 3, (n % 5 - 2)::smallint"),
    "uuid": ("id uuid", ("id",), "md5(n::text)::uuid"),
    "uuid and number": ("line integer, id uuid", ("id", "line"), "-n, md5((n % 9)::text)::uuid"),
}


def _found(app: Any, manifest: TableManifest, store: Store, since: Any, *, most: int = 1000) -> keys.Named | None:
    with database.connect(app.capturer, purpose="test") as conn, conn.transaction():
        chunks.settle(conn)
        fresh = touched.written_since(conn, manifest, since, alias="t")
        assert fresh is not None
        assert keys.fixed(touched.key_columns(manifest))
        return keys.find(conn, store, manifest, live=shape.source(conn, NAME), fresh=fresh, app=None, most=most)


@pytest.mark.parametrize("held", [0, 1 << 20], ids=["read again", "held"])
@pytest.mark.parametrize("kind", list(SHAPES))
def test_newer_and_gone_keys_are_exact(
    app_db: Any, tmp_path: Path, kind: str, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_HELD_BYTES", held)
    monkeypatch.setattr(pieces, "PIECE_PAGES", 1)
    monkeypatch.setattr(keys, "_AT_ONCE", 50)
    columns, key, values = SHAPES[kind]
    listed = ", ".join(key)
    build(app_db, journal=False)
    _run(
        app_db,
        f"CREATE TABLE {NAME} ({columns}, n integer NOT NULL, PRIMARY KEY ({listed}))",
        f"INSERT INTO {NAME} SELECT {values}, n FROM generate_series(1, 600) n",
        f"GRANT SELECT ON {NAME} TO PUBLIC",
    )
    point, store = take(app_db, tmp_path, tables=(TableSpec(name=NAME, key=key),))
    manifest = point.tables[0]
    assert _found(app_db, manifest, store, point.position) == keys.Named(
        newer=chunks.schema(touched.key_columns(manifest)).empty_table(),
        gone=chunks.schema(touched.key_columns(manifest)).empty_table(),
    )
    before = _keys(app_db, listed)
    _run(
        app_db,
        f"DELETE FROM {NAME} WHERE n IN (1, 77, 600)",
        f"UPDATE {NAME} SET n = n WHERE n IN (2, 78)",
        f"INSERT INTO {NAME} SELECT {values}, n FROM generate_series(601, 603) n",
    )
    after = _keys(app_db, listed)
    named = _found(app_db, manifest, store, point.position)
    assert named is not None
    assert _rows(named.gone) == {k for n, k in before.items() if n in (1, 77, 600)}
    assert _rows(named.newer) == {k for n, k in after.items() if n in (2, 78, 601, 602, 603)}
    assert _found(app_db, manifest, store, point.position, most=4) is None, "more are newer"
    _run(app_db, f"DELETE FROM {NAME}")
    emptied = _found(app_db, manifest, store, point.position, most=600)
    assert emptied is not None
    assert (_rows(emptied.gone), emptied.newer.num_rows) == (set(before.values()), 0)
    assert _found(app_db, manifest, store, point.position, most=599) is None, "more are gone"


def test_what_contradicts_the_counts_is_no_answer(app_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(app_db, journal=False)
    _run(
        app_db,
        f"CREATE TABLE {NAME} (id integer PRIMARY KEY)",
        f"INSERT INTO {NAME} SELECT generate_series(1, 50)",
        f"GRANT SELECT ON {NAME} TO PUBLIC",
    )
    point, store = take(app_db, tmp_path, tables=(TableSpec(name=NAME, key=("id",)),))
    _run(app_db, f"DELETE FROM {NAME} WHERE id = 9")
    monkeypatch.setattr(keys, "_sums", lambda *sizes: np.zeros(1 << sizes[-1]))
    assert _found(app_db, point.tables[0], store, point.position) is None


def _run(app: Any, *statements: str) -> None:
    with psycopg.connect(app.installer) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def _keys(app: Any, listed: str) -> dict[int, tuple[str, ...]]:
    with psycopg.connect(app.installer) as conn:
        found = conn.execute(sql.SQL("SELECT n, {} FROM {}").format(sql.SQL(listed), database.qualified(NAME)))
        return {row[0]: tuple(str(v) for v in row[1:]) for row in found}


def _rows(table: Any) -> set[tuple[str, ...]]:
    return {tuple(str(v) for v in row.values()) for row in table.to_pylist()}
