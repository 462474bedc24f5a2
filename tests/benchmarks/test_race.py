"""The pure parts of the benchmarks: sizes, turns, logs of clients, rivals' scripts."""

from pathlib import Path

import pytest

from benchmarks import clients, damage, rival_undo, scale, shop
from benchmarks.clients import Write, Writer
from benchmarks.proof import differ, same
from benchmarks.race import Lap, race
from benchmarks.service import BenchmarkError
from benchmarks.stage import Stage


@pytest.mark.parametrize(("text", "rows"), [("2M", 2_000_000), ("200k", 200_000), ("1.5M", 1_500_000), ("5000", 5_000)])
def test_scale_is_read_and_written(text: str, rows: int) -> None:
    assert scale.rows(text) == rows
    assert scale.rows(scale.label(rows)) == rows


@pytest.mark.parametrize("text", ["", "many", "2G", "-1", "12"])
def test_a_scale_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SCALE="):
        scale.rows(text)


@pytest.mark.parametrize("rows", [5_000, 200_000, 8_000_000])
def test_tables_share_the_rows(rows: int) -> None:
    sizes = scale.sizes(rows)
    assert sizes.rows == rows
    assert min(sizes.customers, sizes.products, sizes.orders, sizes.payments, sizes.events) > 0
    assert sizes.order_items > sizes.orders


def test_who_begins_changes_and_a_missing_rival_has_no_laps() -> None:
    order: list[str] = []

    def runs(name: str) -> Lap:
        order.append(name)
        return Lap(figure=float(len(order)))

    ours, (theirs, missing) = race(3, lambda: runs("ours"), [lambda: runs("rival"), None])
    assert "".join(name[0] for name in order) in ("orrooor", "orroor")
    assert [len(ours), len(theirs), len(missing)] == [3, 3, 0]


def test_the_longest_write_is_one_that_was_under_way() -> None:
    writer = Writer(writes=[Write(ended=1.0, took=0.9), Write(ended=5.0, took=2.0), Write(ended=9.0, took=1.5)])
    assert writer.longest(4.0, 6.0) == 2.0
    assert writer.longest(4.0, 8.0) == 2.0
    assert writer.longest(7.8, 8.0) == 1.5
    with pytest.raises(BenchmarkError, match="wrote nothing"):
        writer.longest(1.5, 2.5)


def test_pgbench_logs_are_read_without_the_lag_of_pacing(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("0 1 2500 0 100 500000 1500\n0 2 800 0 101 0 300\n0 3 half\n")
    writes = clients._read(tmp_path, paced=True)
    assert [(w.ended, w.took) for w in writes] == [(100.5, 0.001), (101.0, 0.0005)]
    assert clients.percentile(writes, 0.99) == 0.001
    assert clients.percentile([], 0.99) == 0.0


def test_a_wrong_result_has_no_figure() -> None:
    good = {"shop.orders": (2, 10, 20)}
    same(good, good, what="repair")
    with pytest.raises(BenchmarkError, match=r"repair: the result is wrong in shop.orders \(1 rows instead of 2\)"):
        same({"shop.orders": (1, 10, 20)}, good, what="repair")
    with pytest.raises(BenchmarkError, match="nothing was damaged"):
        differ(good, good, what="repair")


def test_emaj_is_supplied_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(rival_undo.VARIABLE, raising=False)
    assert rival_undo.emaj_script() is None
    monkeypatch.setenv(rival_undo.VARIABLE, str(tmp_path / "no.sql"))
    with pytest.raises(BenchmarkError, match="there is no such file"):
        rival_undo.emaj_script()


def test_the_extension_s_script_is_made_to_run_by_itself() -> None:
    text = (
        '\\echo Use "CREATE EXTENSION" \\quit\n'
        "CREATE EXTENSION IF NOT EXISTS btree_gist;\nBEGIN TRANSACTION;\n"
        "CREATE TABLE emaj.a (\n  b int,\n  PRIMARY KEY (b),\n  EXCLUDE USING gist (b WITH =, c WITH &&)\n  );\n"
        "CREATE FUNCTION f() AS $$\n  BEGIN\n  END $$;\nCOMMIT;\n"
    )
    made = rival_undo.adapted(text)
    assert made.startswith("CREATE SCHEMA emaj;")
    assert "PRIMARY KEY (b)\n  );" in made
    assert "  BEGIN\n  END $$;" in made
    for gone in ("echo", "EXTENSION", "gist", "COMMIT", "TRANSACTION"):
        assert gone not in made


def test_rounds_and_shared_things(tmp_path: Path) -> None:
    with Stage(say=print, rows=200_000) as stage:
        assert (stage.laps, stage.scale, stage.measured()) == (3, "200k", 0)
        made = [stage.once("a", object) for _ in range(2)]
        assert made[0] is made[1]
        folder = stage.folder()
        assert folder.is_dir()
    assert not folder.exists()
    assert scale.sizes(200_000).orders > damage.SPARED_EVERY
    assert set(shop.NAMES) == {t.name for t in shop.TABLES}
