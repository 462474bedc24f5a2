"""The embedded PostgreSQL: detached, private, repaired, and gone when stopped."""

import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from estate import ports
from estate.errors import StartFailed
from estate.files import Memory
from estate.postgres import FAST_AND_UNSAFE, Cluster

pytestmark = pytest.mark.postgres
SECRET = "it's a: secret/@"  # noqa: S105 - every character a connection string has to escape


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "pg", superuser_password=SECRET, settings=FAST_AND_UNSAFE)
    yield made
    made.stop()


def one(cluster: Cluster) -> object:
    with psycopg.connect(cluster.dsn()) as connection:
        row = connection.execute("SELECT 1").fetchone()
    assert row
    return row[0]


def kill(cluster: Cluster) -> None:
    process = cluster.process()
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)


def test_start_stop_and_start_again_keep_port_and_data(cluster: Cluster) -> None:
    port = cluster.start()
    with psycopg.connect(cluster.dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    cluster.stop()
    assert cluster.process() is None
    assert cluster.start() == port
    with psycopg.connect(cluster.dsn()) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def test_the_version_asked_for_is_the_version_that_runs(tmp_path: Path) -> None:
    made = Cluster(tmp_path / "pg", superuser_password=SECRET, settings=FAST_AND_UNSAFE, version=16)
    try:
        made.start()
        with psycopg.connect(made.dsn()) as connection:
            assert connection.info.server_version // 10000 == 16
    finally:
        made.stop()


def test_an_unknown_version_or_one_without_a_place_to_keep_it_is_refused(tmp_path: Path) -> None:
    for version, why in ((9, "choose one of 15, 16, 18"), (15, "give a cache directory")):
        made = Cluster(tmp_path / "pg", superuser_password=SECRET, version=version)
        with pytest.raises(StartFailed, match=why):
            made.start()


def test_starting_twice_changes_nothing(cluster: Cluster) -> None:
    cluster.start()
    first = cluster.process()
    cluster.start()
    assert cluster.process() == first


def test_another_handle_on_the_same_folder_finds_the_running_server(cluster: Cluster) -> None:
    cluster.start()
    other = Cluster(cluster.folder, superuser_password=SECRET)
    assert other.answers()
    assert other.port == cluster.port


def test_stopping_leaves_no_process_no_socket_and_no_record(cluster: Cluster) -> None:
    cluster.start()
    sockets, process = cluster.socket_dir, cluster.process()
    assert sockets is not None
    assert process is not None
    assert (sockets / f".s.PGSQL.{cluster.port}").is_socket()
    with psycopg.connect(cluster.dsn()):
        cluster.stop()
    assert not process.is_running() or process.status() == "zombie"
    assert not sockets.exists()
    assert not cluster.pid_file.exists()
    assert ports.is_free(cluster.port)
    cluster.stop()


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a rather long directory's name"] * 6)
    cluster = Cluster(folder, superuser_password=SECRET, settings=FAST_AND_UNSAFE)
    try:
        cluster.start()
        assert len(str(cluster.data)) > 107
        assert one(cluster) == 1
    finally:
        cluster.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run PostgreSQL as another user")
def test_a_private_directory_above_is_passed_but_not_opened(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    cluster = Cluster(closed / "pg", superuser_password=SECRET, settings=FAST_AND_UNSAFE)
    try:
        cluster.start()
        process = cluster.process()
        assert process is not None
        assert process.uids().effective != 0
        assert stat.S_IMODE(closed.stat().st_mode) & 0o007 == 0 or stat.S_IMODE(closed.stat().st_mode) == 0o701
    finally:
        cluster.stop()


def test_data_and_sockets_are_private(cluster: Cluster) -> None:
    cluster.start()
    assert cluster.socket_dir is not None
    for path in (cluster.data, cluster.socket_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("how", ["tcp", "socket"])
def test_nobody_enters_without_the_password(cluster: Cluster, how: str) -> None:
    cluster.start()
    host = "127.0.0.1" if how == "tcp" else str(cluster.socket_dir)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host=host, port=cluster.port, user="postgres", password="wrong")  # noqa: S106


def test_start_repairs_a_killed_server_with_a_session_at_work(cluster: Cluster) -> None:
    cluster.start()
    before = cluster.process()
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.pgconn.send_query(b"SELECT pg_sleep(60)")
        kill(cluster)
        cluster.start()
        connection.pgconn.finish()
    assert cluster.process() != before
    assert one(cluster) == 1


def test_the_lock_of_a_pid_that_now_belongs_to_another_program_is_no_obstacle(cluster: Cluster) -> None:
    cluster.start()
    kill(cluster)
    lock = cluster.data / "postmaster.pid"
    lines = lock.read_text(encoding="utf-8").splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]), encoding="utf-8")
    cluster.start()
    assert one(cluster) == 1


def test_a_server_whose_record_is_lost_is_replaced(cluster: Cluster) -> None:
    cluster.start()
    lost = cluster.process()
    assert lost is not None
    cluster.pid_file.unlink()
    cluster.start()
    assert not lost.is_running() or lost.status() == "zombie"
    assert one(cluster) == 1


def test_a_port_taken_meanwhile_is_replaced(cluster: Cluster) -> None:
    port = cluster.start()
    cluster.stop()
    other = Cluster(cluster.folder.with_name("other"), superuser_password=SECRET, settings=FAST_AND_UNSAFE)
    try:
        assert other.start(port=port) == port
        assert cluster.start() != port
        assert one(cluster) == 1
    finally:
        other.stop()


def test_an_interrupted_first_start_leaves_nothing_in_the_way(cluster: Cluster) -> None:
    unfinished = cluster.folder / "data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n", encoding="utf-8")
    cluster.start()
    assert one(cluster) == 1


def test_a_lost_password_is_one_clear_line(cluster: Cluster) -> None:
    cluster.start()
    cluster.stop()
    forgetful = Cluster(cluster.folder, superuser_password="other", settings=FAST_AND_UNSAFE)  # noqa: S106
    with pytest.raises(StartFailed, match=r"refuses the superuser's password .* restore the secrets file") as caught:
        forgetful.start()
    assert len(str(caught.value).splitlines()) == 1
    assert forgetful.process() is None


def test_a_server_that_cannot_start_says_why(cluster: Cluster) -> None:
    broken = Cluster(cluster.folder, superuser_password=SECRET, settings={**FAST_AND_UNSAFE, "work_mem": "many"})
    with pytest.raises(StartFailed, match=r"postgres did not accept connections .*work_mem") as caught:
        broken.start()
    assert len(str(caught.value).splitlines()) == 1
    assert SECRET not in str(caught.value)
    assert broken.socket_dir is None


def test_the_socket_lies_in_a_short_directory_even_when_the_temporary_one_is_long(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path.joinpath(*["long" * 10] * 4)
    far.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(far))
    cluster.start()
    assert len(str(cluster.socket_dir)) < 60


def test_memory_survives_damage(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "estate.json")
    memory.write("n8n", {"port": "5"})
    memory.write("prefect", {"port": "6"})
    assert (memory.port("n8n"), memory.port("prefect"), memory.port("postgres")) == (5, 6, 0)
    memory.path.write_text("{", encoding="utf-8")
    assert memory.port("n8n") == 0
