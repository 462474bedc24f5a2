"""The PostgreSQL server of the measurements and its databases.

The server lies in the cache folder, so that a shop of one size is made once: as a template database that each round
copies. Several measurements may run at the same time; the last to leave stops the server.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
from psycopg import Connection, errors, sql

from benchmarks import scale, shop
from estate import secrets
from estate.estate import default_cache
from estate.files import locked
from estate.postgres import Cluster
from snapshots import database, roles

INSTALLER, CAPTURER, RECOVERER = "bench_installer", "bench_capturer", "bench_recoverer"
WORKFLOW, CLERK = "bench_workflow", "bench_clerk"
ROLES: Final = (INSTALLER, CAPTURER, RECOVERER, WORKFLOW, CLERK)
SETTINGS: Final = {
    "shared_buffers": "512MB",
    "effective_cache_size": "4GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "random_page_cost": "1.1",
    "autovacuum_naptime": "1h",
    "fsync": "on",
    "synchronous_commit": "on",
}
"""As on a small server in production: nothing that trades safety for speed. The same for ours and the rivals. No vacuum
wakes up in between: one that has just begun holds its table's lock for a second (``deadlock_timeout``), by luck."""
PATIENCE_S: Final = 900.0
COPY_ATTEMPTS: Final = 6
"""PostgreSQL itself waits five seconds each time."""
_SECRET: Final = "BENCH_PASSWORD"  # noqa: S105 - a name


@dataclass(frozen=True, kw_only=True)
class Database:
    """One database of the site. The superuser's connection is for preparing and for rivals that want it, never for
    what of ours is measured."""

    site: Site
    name: str

    def dsn(self, role: str) -> str:
        return self.site.cluster.dsn(self.name, role=role, password=self.site.password)

    @property
    def superuser(self) -> str:
        return self.site.cluster.dsn(self.name)

    @contextmanager
    def open(self, role: str, *, superuser: bool = False) -> Iterator[Connection[Any]]:
        """A connection of this project's own kind, closed at the end."""
        conn = database.connect(self.superuser if superuser else self.dsn(role), purpose="benchmark")
        try:
            yield conn
        finally:
            conn.close()


@dataclass(kw_only=True)
class Site:
    """Use :func:`opened`. ``databases`` made by :meth:`copy` are dropped at the end."""

    folder: Path
    cluster: Cluster
    password: str = field(repr=False)
    say: Callable[[str], None]
    made: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def admin(self) -> Connection[Any]:
        return psycopg.connect(self.cluster.dsn(), autocommit=True)

    def checkpoint(self) -> None:
        """Before each measured operation: nobody pays for what another wrote."""
        with self.admin() as admin:
            admin.execute("CHECKPOINT")

    def template(self, rows: int) -> Database:
        """The pristine shop of about ``rows`` rows; made when it is not there yet."""
        name = f"shop_{rows}_{shop.VERSION}"
        with locked(self.cluster.folder / f".{name}.lock", patience_s=PATIENCE_S, waiting=self.say):
            with self.admin() as admin:
                known = admin.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if known is None:
                self._make(name, rows)
        return Database(site=self, name=name)

    def _make(self, name: str, rows: int) -> None:
        self.say(f"making a shop of {scale.label(rows)} rows (kept for the next time)")
        unfinished = Database(site=self, name=f"{name}_unfinished")
        self.drop(unfinished.name)
        self.create(unfinished.name)
        with psycopg.connect(unfinished.superuser) as admin:
            granted = roles.sql(
                database=unfinished.name,
                tables=(),
                installer=INSTALLER,
                capturer=CAPTURER,
                recoverer=RECOVERER,
                workflow_roles=(WORKFLOW, CLERK),
            )
            admin.execute(granted.encode())
        with psycopg.connect(unfinished.dsn(INSTALLER)) as owner:
            shop.build(owner, scale.sizes(rows))
        with psycopg.connect(unfinished.superuser) as admin:
            granted = roles.sql(
                database=unfinished.name,
                tables=shop.NAMES,
                installer=INSTALLER,
                capturer=CAPTURER,
                recoverer=RECOVERER,
            )
            admin.execute(granted.encode())
        with self.admin() as admin:
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            admin.execute(rename.format(sql.Identifier(unfinished.name), sql.Identifier(name)))

    def create(self, name: str, *, template: str | None = None) -> None:
        statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(INSTALLER))
        if template:
            statement += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template))
        for last in (False,) * (COPY_ATTEMPTS - 1) + (True,):
            try:
                with self.admin() as admin:
                    admin.execute(statement)
                return
            except errors.ObjectInUse:  # On a busy machine, a session may take long to end after its client has gone.
                if last:
                    raise

    def drop(self, name: str) -> None:
        with self.admin() as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def empty(self) -> Database:
        """A database without anything, of this process."""
        name = f"bench_{os.getpid()}_{next(self._numbers)}"
        self.create(name)
        self.made.append(name)
        return Database(site=self, name=name)

    def copy(self, of: Database) -> Database:
        """A database of this process that equals ``of``, to which nobody may be connected."""
        name = f"bench_{os.getpid()}_{next(self._numbers)}"
        self.create(name, template=of.name)
        self.made.append(name)
        return Database(site=self, name=name)

    @contextmanager
    def borrowed(self, of: Database | None) -> Iterator[Database]:
        """A copy of ``of`` (``None``: an empty database) for the length of the block."""
        made = self.copy(of) if of else self.empty()
        try:
            yield made
        finally:
            self.drop(made.name)
            self.made.remove(made.name)

    def sweep(self) -> None:
        """Drop what processes left that are gone, and templates of another shop than this one."""
        with self.admin() as admin:
            names = [r[0] for r in admin.execute("SELECT datname FROM pg_database").fetchall()]
            for name in names:
                if name.startswith("shop_") and not name.endswith((shop.VERSION, "_unfinished")):
                    with suppress(errors.ObjectInUse):
                        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        names = [name for name in names if name.startswith("bench_")]
        for name in names:
            owner = name.split("_")[1]
            if not owner.isdigit() or not psutil.pid_exists(int(owner)):
                self.drop(name)

    def leave(self) -> None:
        """Drop what this process made."""
        while self.made:
            self.drop(self.made.pop())


@contextmanager
def opened(
    say: Callable[[str], None], *, folder: Path | None = None, settings: Sequence[tuple[str, str]] = ()
) -> Iterator[Site]:
    """The site in ``folder`` (default: below ``$REINSTATE_CACHE``), started if need be."""
    folder = folder or default_cache() / "benchmarks"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    site = attached(folder, say=say, settings=settings)
    with ExitStack() as stack:
        users = stack.enter_context((folder / "users.lock").open("w"))
        with locked(folder / ".start.lock", patience_s=PATIENCE_S, waiting=say):
            fcntl.flock(users, fcntl.LOCK_SH)
            site.cluster.start()
            _make_roles(site)
        try:
            site.sweep()
            yield site
        finally:
            site.leave()
            with locked(folder / ".start.lock", patience_s=PATIENCE_S):
                fcntl.flock(users, fcntl.LOCK_UN)
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass
                else:
                    site.cluster.stop()


def attached(
    folder: Path, *, say: Callable[[str], None] = lambda _: None, settings: Sequence[tuple[str, str]] = ()
) -> Site:
    """The site in ``folder`` as it is; nothing is started."""
    known = secrets.ensure(folder / "secrets.env", "BENCH_SUPERUSER", _SECRET)
    cluster = Cluster(
        folder / "postgres", superuser_password=known["BENCH_SUPERUSER"], settings={**SETTINGS, **dict(settings)}
    )
    return Site(folder=folder, cluster=cluster, password=known[_SECRET], say=say)


def _make_roles(site: Site) -> None:
    with site.admin() as admin:
        for role in ROLES:
            if admin.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
                statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                admin.execute(statement.format(sql.Identifier(role), sql.Literal(site.password)))
