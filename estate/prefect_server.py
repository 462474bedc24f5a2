"""A Prefect server on SQLite behind a password, run as its own program: nothing here imports Prefect."""

import os
import secrets as random
import sys

from estate import ports, process, secrets, web
from estate.server import Server

START_TIMEOUT_S = 240.0
AUTH = "PREFECT_AUTH"
"""Name of the secret ``user:password``; clients take it as ``PREFECT_API_AUTH_STRING``."""
USER = "operator"


class PrefectServer(Server):
    """The Prefect server of one estate; everything of it lies in ``folder``."""

    name = "prefect"

    @property
    def auth(self) -> str:
        """``user:password`` of its pages and its API; empty before the first start."""
        return self.secret(AUTH)

    def healthy(self) -> bool:
        """Whether it runs, behind a password, and answers. A health question needs no password."""
        return self.process() is not None and bool(self.auth) and web.healthy(f"{self.url}/api/health")

    def start(self) -> None:
        """Start it unless it is healthy. Raises StartFailed."""
        if self.healthy():
            return
        self.stop()
        self.make_folder()
        if not self.auth:
            secrets.write(self.secrets_file, {AUTH: f"{USER}:{random.token_urlsafe(18)}"})
        port = self.choose_port()
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
