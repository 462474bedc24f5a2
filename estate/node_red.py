"""A headless Node-RED 5 with nodes for PostgreSQL, in a user directory of its own, behind an admin token."""

import time
from pathlib import Path

import httpx

from estate import node, process, secrets, web
from estate.errors import StartFailed, tail
from estate.server import Server

HOST = Path(__file__).with_name("node_red_host")
START_TIMEOUT_S = 120.0
TOKEN = "NODE_RED_TOKEN"  # noqa: S105 - the name of a secret
CREDENTIAL_SECRET = "NODE_RED_CREDENTIAL_SECRET"  # noqa: S105 - likewise


class NodeRed(Server):
    """The Node-RED of one estate; its flows, credentials and context lie in ``folder``."""

    name = "node-red"
    stop_after_s = 20.0
    """Node-RED gives its nodes up to 15 s to close."""

    @property
    def token(self) -> str:
        """The admin API's bearer token; empty before the first start."""
        return self.secret(TOKEN)

    def healthy(self) -> bool:
        """Whether it runs, takes the token and has started its flows."""
        if self.process() is None or not self.token:
            return False
        try:
            with web.client(self.url, timeout_s=web.PROBE_TIMEOUT_S) as http:
                answer = http.get("/diagnostics", headers={"Authorization": f"Bearer {self.token}"})
                return answer.status_code == httpx.codes.OK and bool(answer.json()["runtime"]["isStarted"])
        except (httpx.TransportError, ValueError, KeyError):
            return False

    def start(self, modules: Path, cache: Path, *, settings: Path = HOST / "settings.js") -> None:
        """Start Node-RED from ``modules`` unless it is healthy. Raises StartFailed."""
        if self.healthy():
            return
        self.stop()
        self.make_folder()
        kept = secrets.ensure(self.secrets_file, TOKEN, CREDENTIAL_SECRET)
        port = self.choose_port()
        process.launch(
            [
                node.binary(),
                modules / "node_modules" / "node-red" / "red.js",
                "--settings",
                settings,
                "--userDir",
                self.folder,
            ],
            pid_file=self.pid_file,
            log=self.log,
            cwd=self.folder,
            environment={
                **node.environment(self.folder, cache),
                "NO_UPDATE_NOTIFIER": "1",
                "ESTATE_NODE_RED_PORT": str(port),
                "ESTATE_NODE_RED_TOKEN": kept[TOKEN],
                "ESTATE_NODE_RED_CREDENTIAL_SECRET": kept[CREDENTIAL_SECRET],
            },
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.healthy():
            if self.process() is None:
                raise StartFailed(f"{self.name} ended while starting; {tail(self.log)}")
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"{self.name} did not answer at {self.url} in {START_TIMEOUT_S:.0f} s; {tail(self.log)}"
                )
            time.sleep(0.1)
