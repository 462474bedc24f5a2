"""A point's rows as files: exact, readable by other tools, whole or not there."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import psycopg
import pytest

from snapshots.errors import Refused
from snapshots.points import export, reading
from snapshots.points.errors import TableMissing
from tests.snapshots import point_desk as desk


@pytest.mark.postgres
def test_parquet_and_csv_hold_every_value_exactly(app_db: Any, tmp_path: Path) -> None:
    desk.build(app_db)
    desk.write(app_db, "INSERT INTO shop.log VALUES ('infinity', E'quo\"te, new\\nline'), (NULL, '')")
    point, store = desk.take(app_db, tmp_path / "store")
    made = export.export(store, point, tmp_path / "parquet")
    assert {m.table: m.rows for m in made} == {"shop.customers": 20, "shop.orders": 200, "shop.log": 14}
    assert sorted(p.name for p in (tmp_path / "parquet").iterdir()) == [
        "schema.json", "shop.customers.parquet", "shop.log.parquet", "shop.orders.parquet",
    ]  # fmt: skip
    assert all(p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "parquet").iterdir())
    described = json.loads((tmp_path / "parquet" / "schema.json").read_text())
    assert described["tables"]["shop.orders"]["columns"]["total"] == "numeric(12,2)"
    assert "shout" not in described["tables"]["shop.customers"]["columns"]
    orders = pd.read_parquet(tmp_path / "parquet" / "shop.orders.parquet")
    with psycopg.connect(app_db.installer) as conn:
        wanted = conn.execute("SELECT id, total::text FROM shop.orders ORDER BY id").fetchall()
    assert list(orders.sort_values("id")[["id", "total"]].itertuples(index=False, name=None)) == wanted
    with duckdb.connect() as reader:
        path = str(tmp_path / "parquet" / "shop.log.parquet")
        [(strange,)] = reader.execute("SELECT line FROM read_parquet(?) WHERE \"at\" = 'infinity'", [path]).fetchall()
    assert strange == 'quo"te, new\nline'

    [one] = export.export(store, point, tmp_path / "csv", form="csv", tables=["shop.log"])
    with one.file.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["at", "line"]
    assert ["infinity", 'quo"te, new\nline'] in lines
    assert len(lines) == 15


@pytest.mark.postgres
def test_nothing_is_overwritten_and_nothing_half_written_stays(
    app_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.build(app_db)
    point, store = desk.take(app_db, tmp_path / "store")
    with pytest.raises(TableMissing, match=r"shop\.no"):
        export.export(store, point, tmp_path / "out", tables=["shop.no"])
    export.export(store, point, tmp_path / "out", tables=["shop.log"])
    with pytest.raises(Refused, match="is there already"):
        export.export(store, point, tmp_path / "out", tables=["shop.log"])

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(reading, "batches", broken)
    with pytest.raises(RuntimeError):
        export.export(store, point, tmp_path / "again")
    assert list((tmp_path / "again").iterdir()) == []
