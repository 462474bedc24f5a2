"""Operations that can be killed: each runs in a fork of this process and ends itself with SIGKILL at its n-th moment.

Moments are what the operating system and the driver see, without any change of the product: opening a file of the
store for writing, linking, renaming, removing one, making a folder (by an audit hook), and each exchange with the
database (every statement, every COPY block, every commit). The process dies just before the moment.

As a program it reads one JSON object a line, ``{"op", "n", "store", "database", "args"}``, and answers with one:
``{"status", "moments"}``. Status is 0, -9 or 1; ``n`` 0 never kills and counts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Moments:
    """Counts in a child; ``store`` is the folder whose files are watched, if any."""

    def __init__(self, n: int, *, store: str, database: bool) -> None:
        self.n = n
        self.seen = 0
        self.store = store
        self.database = database
        self.over = False

    def install(self) -> None:
        if self.store:
            sys.addaudithook(self._audit)
        if self.database:
            import psycopg

            real = psycopg.Connection.wait

            def wait(conn: Any, *args: Any, **kwargs: Any) -> Any:
                self.pass_one()
                return real(conn, *args, **kwargs)

            psycopg.Connection.wait = wait  # type: ignore[method-assign]

    def pass_one(self) -> None:
        if not self.over:
            self.seen += 1
            if self.seen == self.n:
                os.kill(os.getpid(), signal.SIGKILL)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if isinstance(args[0], str | os.PathLike) and args[2] & WRITING and self._ours(args[0]):
                self.pass_one()
        elif event in ("os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and self._ours(args[0]):
            self.pass_one()

    def _ours(self, path: Any) -> bool:
        return os.fspath(path).startswith(self.store) if isinstance(path, str | os.PathLike) else False


class Killer:
    """The program, started by a test. ``run`` gives the status and how many moments there were."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.killed_at"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def run(self, op: str, n: int, *, store: Path | None = None, database: bool = False, **args: Any) -> dict[str, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {"op": op, "n": n, "store": str(store or ""), "database": database, "args": args}
        self.process.stdin.write(json.dumps(asked, default=str) + "\n")
        self.process.stdin.flush()
        answer: dict[str, int] = json.loads(self.process.stdout.readline())
        assert answer["status"] in (0, -signal.SIGKILL), f"{op} failed at moment {n}: see its standard error"
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def killer() -> Iterator[Killer]:
    made = Killer()
    try:
        yield made
    finally:
        made.close()


def moments(total: int, *, most: int | None) -> list[int]:
    """Which of ``total`` moments to die at: all, or about ``most`` of them, the first and the last ones included."""
    if most is None or total <= most:
        return list(range(1, total + 1))
    spread = {round(1 + i * (total - 1) / (most - 1)) for i in range(most)}
    return sorted({*spread, total - 1, total})


def _child(asked: dict[str, Any], answer: int) -> None:
    from tests.crash import crash_ops

    counted = Moments(asked["n"], store=asked["store"], database=asked["database"])
    try:
        counted.install()
        getattr(crash_ops, asked["op"])(**asked["args"])
        counted.over = True
        os.write(answer, str(counted.seen).encode())
    except BaseException:  # noqa: BLE001 - whatever it was, the test must see it
        counted.over = True
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    import adbc_driver_postgresql.dbapi  # noqa: F401 - loaded once, before the forks
    import pyarrow.parquet  # noqa: F401

    from tests.crash import crash_ops

    _ = crash_ops
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _child(json.loads(line), write)
        os.close(write)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        counted = os.read(read, 64).decode()
        os.close(read)
        print(json.dumps({"status": status, "moments": int(counted or 0)}), flush=True)


if __name__ == "__main__":
    main()
