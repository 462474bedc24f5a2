"""Real parts for tests: a PostgreSQL server per session, an app database per test, a whole estate for live tests.

The server is PostgreSQL 18, or what ``REINSTATE_TEST_POSTGRES`` says (15, 16, 18).
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql

from estate import Addresses, Estate
from estate.estate import PARTS, default_cache
from estate.postgres import FAST_AND_UNSAFE, SUPERUSER, Cluster
from estate.postgres_programs import DEFAULT_VERSION

INSTALLER, CAPTURER, RECOVERER = "installer", "capturer", "recoverer"


@dataclass(frozen=True, kw_only=True)
class PgServer:
    """The session's PostgreSQL server."""

    cluster: Cluster

    @property
    def port(self) -> int:
        return self.cluster.port

    def superuser_dsn(self, database: str = "postgres") -> str:
        return self.cluster.dsn(database)

    def create_database(self, name: str, *, owner: str | None = None) -> str:
        """A fresh database (one of that name is dropped first); returns the superuser's connection string."""
        self.drop_database(name)
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if owner:
            statement += sql.SQL(" OWNER {}").format(sql.Identifier(owner))
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            connection.execute(statement)
        return self.superuser_dsn(name)

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_role(self, name: str) -> None:
        """A login role whose password is ``test-<name>``, whatever an earlier test gave it."""
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            for verb in ("CREATE", "ALTER"):
                statement = sql.SQL(verb + " ROLE {} LOGIN PASSWORD {}").format(  # type: ignore[arg-type]
                    sql.Identifier(name), sql.Literal(f"test-{name}")
                )
                try:
                    connection.execute(statement)
                except errors.DuplicateObject:
                    continue
                return

    def drop_role(self, name: str) -> None:
        """Drop a role, unless another test's database still needs it."""
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            try:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
            except (errors.DependentObjectsStillExist, errors.ObjectInUse):
                return

    def dsn(self, database: str, role: str) -> str:
        return self.cluster.dsn(database, role=role, password=f"test-{role}")


@dataclass(frozen=True, kw_only=True)
class AppDb:
    """A database owned by the installer role, for one app. Table privileges are the product's business."""

    server: PgServer
    name: str
    roles: list[str] = field(default_factory=list)

    def dsn(self, role: str) -> str:
        """Connection string of one of its roles: installer, capturer, recoverer or one made by `role`."""
        return self.server.dsn(self.name, role)

    def role(self, name: str) -> str:
        """Make a login role of the app (say, of one workflow) and return its connection string."""
        self.server.create_role(name)
        self.roles.append(name)
        return self.dsn(name)

    @property
    def installer(self) -> str:
        return self.dsn(INSTALLER)

    @property
    def capturer(self) -> str:
        return self.dsn(CAPTURER)

    @property
    def recoverer(self) -> str:
        return self.dsn(RECOVERER)

    @property
    def superuser(self) -> str:
        """For setting up and looking on; never for running the product."""
        return self.server.superuser_dsn(self.name)


def make_app_db(server: PgServer, name: str) -> AppDb:
    """A fresh database ``name`` with the three roles of the product."""
    app = AppDb(server=server, name=name)
    for role in (INSTALLER, CAPTURER, RECOVERER):
        app.role(role)
    server.create_database(name, owner=INSTALLER)
    with psycopg.connect(server.superuser_dsn(), autocommit=True) as connection:
        # The state, role and query of other sessions are hidden from ordinary roles.
        connection.execute(sql.SQL("GRANT pg_monitor TO {}, {}").format(*map(sql.Identifier, (CAPTURER, RECOVERER))))
    return app


def drop_app_db(app: AppDb) -> None:
    """Remove the database, then the roles that nothing else needs."""
    app.server.drop_database(app.name)
    for role in app.roles:
        app.server.drop_role(role)


@contextmanager
def throwaway_server(prefix: str) -> Iterator[PgServer]:
    """A server; it and its directory are gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    cluster = Cluster(
        folder,
        superuser_password=f"test-{SUPERUSER}",
        settings=FAST_AND_UNSAFE,
        version=int(os.environ.get("REINSTATE_TEST_POSTGRES") or DEFAULT_VERSION),
        cache=default_cache(),
    )
    try:
        cluster.start()
        yield PgServer(cluster=cluster)
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def pg() -> Iterator[PgServer]:
    with throwaway_server("reinstate-test-") as server:
        yield server


@pytest.fixture
def app_db(pg: PgServer) -> Iterator[AppDb]:
    """A fresh app database for one test."""
    app = make_app_db(pg, "app")
    yield app
    drop_app_db(app)


@pytest.fixture(scope="module")
def module_app_db(pg: PgServer) -> Iterator[AppDb]:
    """One app database for all tests of a module, where setting it up is dear."""
    app = make_app_db(pg, "module_app")
    yield app
    drop_app_db(app)


@dataclass(frozen=True, kw_only=True)
class RunningEstate:
    """PostgreSQL, n8n and a Prefect server, up for the whole session."""

    estate: Estate
    addresses: Addresses

    @property
    def home(self) -> Path:
        return self.estate.home


@contextmanager
def temporary_estate(parts: Sequence[str] = PARTS) -> Iterator[RunningEstate]:
    """The estate, or some ``parts`` of it, in a temporary home. Downloads stay in the shared cache.

    At the end everything is stopped, and it is an error if a process or the socket's directory is left.
    """
    home = Path(tempfile.mkdtemp(prefix="reinstate-estate-"))
    running = Estate(home)
    try:
        addresses = running.up(parts)
        yield RunningEstate(estate=running, addresses=addresses)
    finally:
        sockets = running.addresses().pg_socket_dir
        running.down()
        left = [part for part in running.status() if part.state != "down"]
        shutil.rmtree(home)
    assert not left
    assert sockets is None or not sockets.exists()


@pytest.fixture(scope="session")
def estate() -> Iterator[RunningEstate]:
    """One estate for all tests marked ``live`` that leave it as they found it."""
    with temporary_estate() as running:
        yield running


@pytest.fixture(scope="session")
def directus_estate() -> Iterator[RunningEstate]:
    """A live Directus and its PostgreSQL, for all tests marked ``directus``."""
    with temporary_estate(("postgres", "directus")) as running:
        yield running
