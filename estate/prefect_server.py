"""A Prefect server on SQLite behind a password, run as its own program: nothing here imports Prefect."""

import os
import secrets as random
import signal
import sys
from pathlib import Path

import psutil

from estate import ports, process, secrets, web
from estate.files import Memory

START_TIMEOUT_S = 240.0
STOP_SIGNALS = ((signal.SIGTERM, 20.0),)
AUTH = "PREFECT_AUTH"
"""Name of the secret ``user:password``; clients take it as ``PREFECT_API_AUTH_STRING``."""
USER = "operator"


class PrefectServer:
    """The Prefect server of one estate; everything of it lies in ``folder``."""

    def __init__(self, folder: Path, *, memory: Memory, secrets_file: Path, log: Path) -> None:
        self.folder = folder
        self.memory = memory
        self.secrets_file = secrets_file
        self.log = log
        self.pid_file = folder / "prefect.pid"

    @property
    def url(self) -> str:
        """Address of its pages, without a slash at the end; empty before the first start."""
        port = self.memory.port("prefect")
        return f"http://{ports.LOOPBACK}:{port}" if port else ""

    def process(self) -> psutil.Process | None:
        """The running server, or None."""
        record = process.read_record(self.pid_file)
        return record.process() if record else None

    @property
    def auth(self) -> str:
        """``user:password`` of its pages and its API; empty before the first start."""
        return secrets.read(self.secrets_file).get(AUTH, "")

    def healthy(self) -> bool:
        """Whether it runs, behind a password, and answers. A health question needs no password."""
        return self.process() is not None and bool(self.auth) and web.healthy(f"{self.url}/api/health")

    def start(self) -> None:
        """Start it unless it is healthy. Raises StartFailed."""
        if self.healthy():
            return
        self.stop()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.auth:
            secrets.write(self.secrets_file, {AUTH: f"{USER}:{random.token_urlsafe(18)}"})
        port = ports.choose(self.memory.port("prefect"))
        self.memory.write("prefect", {"port": str(port)})
        process.launch(
            [sys.executable, "-m", "prefect", "server", "start", "--host", ports.LOOPBACK, "--port", str(port)],
            pid_file=self.pid_file,
            log=self.log,
            cwd=self.folder,
            environment={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self.folder),
                "LC_ALL": "C.UTF-8",
                "TZ": "UTC",
                "DO_NOT_TRACK": "1",
                "PREFECT_HOME": str(self.folder),
                "PREFECT_API_URL": f"{self.url}/api",
                "PREFECT_UI_API_URL": f"{self.url}/api",
                "PREFECT_SERVER_API_AUTH_STRING": self.auth,
                "PREFECT_API_AUTH_STRING": self.auth,  # its own services are clients of it
                "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.folder / 'prefect.db'}",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
                "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
                # In memory, they would not outlive a kill, and runs under way would lose their place.
                "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
                "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
            },
        )
        web.await_health(
            f"{self.url}/api/health",
            part="prefect",
            process=self.process,
            patience_s=START_TIMEOUT_S,
            log=self.log,
        )

    def stop(self) -> None:
        """End the server and what it started."""
        process.stop(self.pid_file, STOP_SIGNALS, name="prefect")
