"""Each data benchmark once, on a tiny shop: it runs, proves its results and fills the table. Times mean nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import engine, journal_cost, proof, repair, site
from benchmarks.outcome import Growth, Outcome
from benchmarks.service import BenchmarkError
from benchmarks.site import CLERK, Site
from benchmarks.stage import Stage
from estate.postgres import FAST_AND_UNSAFE

ROWS = 4_000
LIVE = {"event-contained", "event-running"}
"""These need the whole estate."""
PROMISED = {
    *("undo-100k", "writer-stall-1", "restore-table", "journal-tps", "journal-bulk", "memory-mb", "growth"),
    *(f"repair-{source}-{share}" for source in ("journal", "scan") for share in ("0.01", "1", "10")),
    *("capture-incr-journal", "capture-incr-scan", "capture-full", "capture-size"),
}
SLOW = ("memory-mb", "growth", "writer-stall-1", "journal-tps")

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    # Not below pytest's own folder: that closes itself to other users, and as root the server is one.
    folder = Path(tempfile.mkdtemp(prefix="reinstate-bench-test-"))
    settings = {**FAST_AND_UNSAFE, "shared_buffers": "128MB"}.items()
    try:
        with site.opened(print, folder=folder, settings=list(settings)) as opened:
            yield opened
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stage(server: Site) -> Iterator[Stage]:
    with Stage(say=print, rows=ROWS, number=1, site=server) as found:
        yield found


def test_everything_promised_is_measured() -> None:
    assert set(command.ALL) == PROMISED | LIVE


@pytest.mark.parametrize("name", [n for n in command.ALL if n not in LIVE and n not in SLOW])
def test_it_runs(stage: Stage, name: str) -> None:
    shape_of(stage, name)


@pytest.mark.soak
@pytest.mark.parametrize("name", SLOW)
def test_slow_ones_run(stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_cost, "TIMES", 1)
    shape_of(stage, name)


def shape_of(stage: Stage, name: str) -> None:
    for found in command.ALL[name](stage):
        made = found.document()
        if isinstance(found, Growth):
            assert made["rows"] > 0
            assert made["ours_s"] > 0
            continue
        assert isinstance(found, Outcome)
        assert made["id"] == name
        assert made["ours_s"] > 0
        assert made["scale"] == stage.scale
        assert made["how"]
        missing = found.rival is not None and not found.rival_seconds
        assert (made["ratio"] is None) == (found.rival is None or missing)
        assert found.holds or not missing or made["rival_s"] is None


def test_a_repair_that_does_nothing_has_no_figure(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "repair", lambda *_: (0.001, 0.001))
    with pytest.raises(BenchmarkError, match="the result is wrong"):
        repair.repaired(stage, stage.base(journaled=True), 0.1, "journal")


def test_nothing_of_ours_runs_as_a_superuser(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    base = stage.base(journaled=True)
    with stage.copy(base.db) as db:
        monkeypatch.setattr(type(db), "superuser", property(lambda _: pytest.fail("asked for the superuser")))
        engine.repair(db, base.store, base.point, "journal")
        with db.open(CLERK) as conn:
            assert proof.count(conn, "shop.orders") > 0


def test_a_template_is_made_once_and_what_dead_processes_left_is_dropped(server: Site) -> None:
    server.create("bench_999999999_0")
    before = server.template(ROWS)
    server.sweep()
    with server.admin() as admin:
        names = [r[0] for r in admin.execute("SELECT datname FROM pg_database").fetchall()]
        made = admin.execute("SELECT oid FROM pg_database WHERE datname = %s", (before.name,)).fetchone()
        assert server.template(ROWS) == before
        assert admin.execute("SELECT oid FROM pg_database WHERE datname = %s", (before.name,)).fetchone() == made
    assert "bench_999999999_0" not in names
    assert before.name in names


def test_ids_and_scale_come_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("SCALE", "50k")
    options = command.parsed(["--only", "capture-full", "capture-size", "--rounds", "2", "--out", str(tmp_path / "r")])
    assert (options.only, options.rounds, options.scale) == (["capture-full", "capture-size"], 2, 50_000)
    monkeypatch.setenv("SCALE", "lots")
    with pytest.raises(SystemExit):
        command.parsed([])
    assert "SCALE=lots" in capsys.readouterr().err
