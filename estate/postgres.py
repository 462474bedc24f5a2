"""The embedded PostgreSQL: its programs (see :mod:`estate.postgres_programs`) are driven directly.

The server is detached, listens on the loopback address and on a unix socket in a short directory of its own, asks for
a password on both, and as root runs as another user.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from estate import ports, process
from estate.errors import StartFailed, tail
from estate.files import Memory, write_private
from estate.os_user import let_pass, let_read, postgres_owner
from estate.postgres_programs import DEFAULT_VERSION, installation, locale_options

SUPERUSER = "postgres"
SOCKET_PATH_LIMIT = 107
START_TIMEOUT_S = 60.0
ANSWER_PATIENCE_S = 10.0
STOP_SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))
"""PostgreSQL's fast shutdown, then its immediate one; seconds to wait after each."""
DEFAULTS = {"max_connections": "200", "shared_buffers": "128MB", "log_line_prefix": "%m [%p] %u@%d "}
FAST_AND_UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
"""For throw-away servers of tests only: a crash of the machine would destroy the data."""


class Cluster:
    """One PostgreSQL server whose data, records and log lie in ``folder``.

    ``superuser_password`` is set when the data directory is made, and must be the same ever after. ``memory`` keeps
    the port and the socket's directory between starts. ``version`` is the major version of the programs, which must fit
    the data directory; ``cache`` is needed for versions that are fetched.
    """

    def __init__(
        self,
        folder: Path,
        *,
        superuser_password: str,
        settings: Mapping[str, str] | None = None,
        memory: Memory | None = None,
        log: Path | None = None,
        version: int = DEFAULT_VERSION,
        cache: Path | None = None,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = log or folder / "postgres.log"
        self.pid_file = folder / "postgres.pid"
        self.memory = memory or Memory(folder / "memory.json")
        self.superuser_password = superuser_password
        self.version = version
        self.cache = cache
        self.settings = {**DEFAULTS, **(settings or {})}

    def __repr__(self) -> str:
        return f"Cluster({str(self.folder)!r})"

    def process(self) -> psutil.Process | None:
        """The running server, or None."""
        record = process.read_record(self.pid_file)
        return record.process() if record else None

    @property
    def port(self) -> int:
        """Port of the last start; 0 before the first."""
        return self.memory.port("postgres")

    @property
    def socket_dir(self) -> Path | None:
        """Directory of the unix socket while the server runs."""
        path = self.memory.read("postgres").get("socket_dir")
        return Path(path) if path else None

    def dsn(self, database: str = "postgres", *, role: str = SUPERUSER, password: str | None = None) -> str:
        """Connection string over TCP. Without a password: the superuser's."""
        secret = self.superuser_password if password is None else password
        return f"postgresql://{quote(role)}:{quote(secret, safe='')}@{ports.LOOPBACK}:{self.port}/{quote(database)}"

    def start(self, *, port: int | None = None) -> int:
        """Start the server unless it runs and return its port, when it accepts connections.

        Without ``port`` the one of the last start is taken if it is free. Raises StartFailed.
        """
        if self.answers(patience_s=ANSWER_PATIENCE_S):
            return self.port
        self.stop()
        owner = postgres_owner()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        programs = installation(self.version, cache=self.cache)
        if owner:
            let_read(programs)
            let_pass(programs / "bin" / "postgres", owner[0])
            let_pass(self.data, owner[0])
        if not self.data.exists():
            self._make_data(programs, owner)
        chosen = ports.choose(port or self.port)
        socket_dir = self._make_socket_dir(owner)
        self.memory.write("postgres", {"port": str(chosen), "socket_dir": str(socket_dir)})
        try:
            started = self._launch(programs, owner, chosen, socket_dir)
        except StartFailed:
            self.stop()
            raise
        if not started:
            self.stop()
            raise StartFailed(f"postgres did not accept connections on port {chosen}; {tail(self.log)}")
        return chosen

    def answers(self, *, patience_s: float = 0.0) -> bool:
        """Whether the server runs and accepts connections, within ``patience_s`` seconds. Raises StartFailed."""
        deadline = time.monotonic() + patience_s
        while self.process() is not None:
            if self._accepts():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back. Leaves no process and no socket; harmless when stopped."""
        process.stop(self.pid_file, STOP_SIGNALS, name="postgres")
        if self.socket_dir:
            shutil.rmtree(self.socket_dir, ignore_errors=True)
            self.memory.write("postgres", {"port": str(self.port)})

    def _make_data(self, programs: Path, owner: tuple[int, int] | None) -> None:
        """Make the data directory beside its final place and rename it: an interrupted start leaves no half of one."""
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        secret = self.folder / ".superuser-password"
        write_private(secret, self.superuser_password)
        if owner:
            os.chown(unfinished, *owner)
            os.chown(secret, *owner)
        command: list[str | Path] = [programs / "bin" / "initdb", "--pgdata", unfinished, "--username", SUPERUSER]
        command += [f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8"]
        command += locale_options(self.version)
        if self.settings.get("fsync") == "off":
            command.append("--no-sync")
        user, group = owner or (None, None)
        try:
            answer = subprocess.run(
                command,
                cwd="/",
                env=_environment(),
                user=user,
                group=group,
                extra_groups=[] if owner else None,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            secret.unlink(missing_ok=True)
        if answer.returncode != 0:
            cause = " | ".join((answer.stderr or answer.stdout).strip().splitlines())[-300:]
            raise StartFailed(f"postgres: no data directory could be made in {self.folder}: {cause}")
        unfinished.rename(self.data)

    def own_database(self, database: str, role: str, password: str) -> None:
        """A role that owns that database and nothing else; other roles cannot enter it. Both are made if missing."""
        owner, name = sql.Identifier(role), sql.Identifier(database)
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(owner))
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(owner, sql.Literal(password)))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, owner))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))

    def _make_socket_dir(self, owner: tuple[int, int] | None) -> Path:
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        if owner or not os.access(base, os.W_OK) or len(base) + 40 > SOCKET_PATH_LIMIT:
            base = tempfile.gettempdir() if len(tempfile.gettempdir()) + 40 <= SOCKET_PATH_LIMIT else "/tmp"  # noqa: S108
        path = Path(tempfile.mkdtemp(prefix="reinstate-", dir=base))
        if owner:
            os.chown(path, *owner)
            let_pass(path, owner[0])
        return path

    def _launch(self, programs: Path, owner: tuple[int, int] | None, port: int, socket_dir: Path) -> bool:
        """True when the server accepts connections, False when the process ended or time ran out."""
        self._clear_wreck()
        settings = {
            **self.settings,
            "port": str(port),
            "listen_addresses": ports.LOOPBACK,
            "unix_socket_directories": str(socket_dir),
        }
        command: list[str | Path] = [programs / "bin" / "postgres", "-D", self.data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        process.launch(
            command, pid_file=self.pid_file, log=self.log, cwd=Path("/"), environment=_environment(), owner=owner
        )
        return self.answers(patience_s=START_TIMEOUT_S)

    def _clear_wreck(self) -> None:
        """After kill -9 of the server: end its orphaned sessions, then drop a lock file that names no server.

        The sessions must go first, since they may still write to the data directory. PostgreSQL itself only checks
        whether the locking pid exists, so an unreaped or a reused one would block the start for ever.
        """
        lock = self.data / "postmaster.pid"
        try:
            pid = int(lock.read_text(encoding="utf-8").splitlines()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        servers = [found for found in psutil.process_iter(["name", "cwd"]) if self._is_server(found)]
        for server in servers:
            if server.pid == pid:  # Started by somebody whose record of it is lost: end it properly.
                server.send_signal(signal.SIGINT)
                process.gone(server, STOP_SIGNALS[0][1])
        for server in servers:
            process.gone(server, 5.0)
        process.kill(servers, name="postgres")
        lock.unlink(missing_ok=True)

    def _is_server(self, found: psutil.Process) -> bool:
        return (
            found.info["name"] == "postgres" and found.info["cwd"] == str(self.data.resolve()) and process.alive(found)
        )

    def _accepts(self) -> bool:
        try:
            with psycopg.connect(self.dsn(), connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StartFailed(
                    f"postgres refuses the superuser's password for {self.data}; restore the secrets file it was made "
                    "with, or remove the directory to start over"
                ) from error
            return False
        return True


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
