"""Programs of PostgreSQL's own, from the same installation as the server, and zstd where the machine has it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.service import BenchmarkError
from benchmarks.site import INSTALLER, Database
from estate.postgres_programs import installation


def program(name: str) -> Path:
    return installation() / "bin" / name


def zstd() -> Path | None:
    """The program, or ``None`` where it is missing."""
    found = shutil.which("zstd")
    return Path(found) if found else None


def environment(db: Database, *, superuser: bool = False, role: str = INSTALLER) -> dict[str, str]:
    """libpq's settings for one database. Passwords travel in the environment, never in arguments."""
    site = db.site
    known = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    return {
        **known,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(site.cluster.port),
        "PGDATABASE": db.name,
        "PGUSER": "postgres" if superuser else role,
        "PGPASSWORD": site.cluster.superuser_password if superuser else site.password,
    }


def run(command: Sequence[str | Path], env: Mapping[str, str], *, into: Path | None = None) -> str:
    """Run a program to its end and return what it printed. Raises :class:`BenchmarkError` with its first complaint."""
    done = subprocess.run(
        [str(part) for part in command],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        first = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise BenchmarkError(f"{Path(command[0]).name} ended with code {done.returncode}: {first}")
    if into is not None:
        into.write_text(done.stdout, encoding="utf-8")
    return done.stdout


def piped(first: Sequence[str | Path], second: Sequence[str | Path], env: Mapping[str, str], into: Path) -> None:
    """``first | second > into``, without a shell. Raises :class:`BenchmarkError` when one of them fails."""
    with into.open("wb") as out:
        left = subprocess.Popen(
            [str(p) for p in first], env=dict(env), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        right = subprocess.Popen([str(p) for p in second], stdin=left.stdout, stdout=out)
        assert left.stdout is not None  # noqa: S101 - made with a pipe
        left.stdout.close()
        codes = right.wait(), left.wait()
    if any(codes):
        raise BenchmarkError(f"{first[0]} | {second[0]} ended with codes {codes[1]} and {codes[0]}")


def dump(db: Database, into: Path, *options: str) -> None:
    """``pg_dump`` of the shop, without schema ``reinstate``: a rival would not have it."""
    command: list[str | Path] = [program("pg_dump"), *options, "--exclude-schema=reinstate", "--file", into]
    run(command, environment(db))


def restore(db: Database, archive: Path, *options: str | Path) -> None:
    """``pg_restore`` with two jobs as the superuser, who may do all of it."""
    command: list[str | Path] = [program("pg_restore"), "--jobs=2", "--dbname", db.name, *options, archive]
    run(command, environment(db, superuser=True))
