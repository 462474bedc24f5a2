"""The fixtures other rooms rest on."""

import psycopg
import pytest

from tests.conftest import AppDb, PgServer

pytestmark = pytest.mark.postgres


def test_the_installer_owns_an_empty_database(app_db: AppDb) -> None:
    with psycopg.connect(app_db.installer) as connection:
        connection.execute("CREATE SCHEMA reinstate")
        connection.execute("CREATE TABLE public.t (id int)")
        row = connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user").fetchone()
    assert row == (False,)


def test_every_role_logs_in_as_itself(app_db: AppDb) -> None:
    app_db.role("wf_x")
    for role in ("installer", "capturer", "recoverer", "wf_x"):
        with psycopg.connect(app_db.dsn(role)) as connection:
            assert connection.execute("SELECT session_user::text").fetchone() == (role,)


@pytest.mark.parametrize("role", ["capturer", "recoverer"])
def test_monitors_see_what_other_sessions_do(app_db: AppDb, role: str) -> None:
    with psycopg.connect(app_db.installer) as other, psycopg.connect(app_db.dsn(role)) as connection:
        query = "SELECT usename::text, state FROM pg_stat_activity WHERE pid = %s"
        assert connection.execute(query, [other.info.backend_pid]).fetchone() == ("installer", "idle")


def test_an_unprivileged_role_sees_no_table(app_db: AppDb) -> None:
    with psycopg.connect(app_db.installer) as connection:
        connection.execute("CREATE TABLE public.t (id int)")
    with (
        psycopg.connect(app_db.role("wf_x")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT * FROM public.t")


def test_the_server_is_reachable_over_its_socket(pg: PgServer) -> None:
    dsn = f"host={pg.cluster.socket_dir} port={pg.port} user=postgres dbname=postgres password=test-postgres"
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
