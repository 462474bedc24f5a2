"""An empty database with the app's schema and no rows, to try a recovery point in; gone afterwards.

Without a server named it lies in a PostgreSQL of its own that is started for the purpose and removed. The schema is
copied from the live database by PostgreSQL's own programs, without the journal, without owners and grants, and without
the foreign keys to tables that a point does not hold.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from recovery.errors import RecoveryError

TIMEOUT_S = 600.0
LOCK_WAIT_MS = 15_000
"""So long the copy of the schema waits for who changes a table at this moment."""
_JOURNAL = """
SELECT format('TRIGGER %s %s %s', n.nspname, c.relname, t.tgname)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_proc p ON p.oid = t.tgfoid WHERE p.pronamespace = 'reinstate'::regnamespace AND NOT t.tgisinternal
"""
_OUTWARD = """
SELECT format('FK CONSTRAINT %%s %%s %%s', n.nspname, c.relname, k.conname)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE k.contype = 'f' AND NOT pn.nspname || '.' || p.relname = ANY(%s)
"""


@contextmanager
def database(server: str | None = None) -> Iterator[str]:
    """The connection string of a fresh, empty database, which is dropped at the end.

    ``server``: a role that may create databases; ``None``: a PostgreSQL of its own. Raises the errors of
    ``psycopg`` and the estate.
    """
    if server is not None:
        with _created(server) as dsn:
            yield dsn
        return
    from estate.postgres import FAST_AND_UNSAFE, Cluster

    folder = Path(tempfile.mkdtemp(prefix="reinstate-scratch-"))
    cluster = Cluster(folder, superuser_password=secrets.token_hex(16), settings=FAST_AND_UNSAFE)
    try:
        cluster.start()
        with _created(cluster.dsn()) as dsn:
            yield dsn
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _created(server: str) -> Iterator[str]:
    name = sql.Identifier(f"reinstate_scratch_{secrets.token_hex(4)}")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
        try:
            yield conninfo.make_conninfo(server, dbname=name.as_string(None).strip('"'))
        finally:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def copy_schema(live: str, into: str, tables: Collection[str]) -> list[str]:
    """Make the schema of ``live`` (its owner's connection string) in the empty database ``into``. ``tables`` are those
    that will have rows. Returns what could not be made, a sentence each: it matters only if the tables do not fit."""
    with psycopg.connect(live) as connection:
        journal = connection.execute("SELECT to_regnamespace('reinstate') IS NOT NULL").fetchone()
        leave = _texts(connection.execute(_OUTWARD, (list(tables),)))
        if journal and journal[0]:
            leave |= _texts(connection.execute(_JOURNAL))
    with tempfile.TemporaryDirectory(prefix="reinstate-schema-") as folder:
        archive, wanted = Path(folder) / "schema", Path(folder) / "wanted"
        plain = ("--no-owner", "--no-privileges")
        what = ("--schema-only", "--exclude-schema=reinstate", "--no-publications", "--no-subscriptions")
        _run(
            "pg_dump",
            live,
            ["--format=custom", *plain, *what, f"--lock-wait-timeout={LOCK_WAIT_MS}", f"--file={archive}"],
        )
        listed = _run("pg_restore", None, ["--list", str(archive)]).stdout.splitlines()
        wanted.write_text("\n".join(entry for entry in listed if not _left_out(entry, leave)) + "\n", encoding="utf-8")
        done = _run("pg_restore", into, [*plain, f"--use-list={wanted}", str(archive)], partly=True)
    return [line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line]


def _left_out(entry: str, leave: Collection[str]) -> bool:
    """Whether an entry of the archive's list (``12; 34 56 TRIGGER schema table name owner``) is one to leave out."""
    _, _, described = entry.partition("; ")
    words = described.split(" ", 2)
    return len(words) == 3 and words[2].rpartition(" ")[0] in leave


def _texts(rows: Any) -> set[str]:
    return {str(row[0]) for row in rows}


def _run(
    program: str, dsn: str | None, options: Sequence[str], *, partly: bool = False
) -> subprocess.CompletedProcess[str]:
    from estate.postgres_programs import installation

    environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    arguments: list[str] = []
    if dsn is not None:
        known: Mapping[str, Any] = conninfo.conninfo_to_dict(dsn)
        if password := known.get("password"):
            environment["PGPASSWORD"] = str(password)  # never an argument, which everybody on the machine sees
        open_part = {k: v for k, v in known.items() if k != "password" and v is not None}
        arguments = [f"--dbname={conninfo.make_conninfo(**open_part)}"]
    done = subprocess.run(
        [str(installation() / "bin" / program), *arguments, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0 and not partly:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        said = next((line.partition("error: ")[2] for line in lines if "error: " in line), lines[-1])
        raise RecoveryError(f"{program}: {said}; the schema of the app could not be copied, so nothing was proven")
    return done
