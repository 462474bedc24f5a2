"""A headless Node-RED 5 with nodes for PostgreSQL, in a user directory of its own, behind an admin token."""

import os
import signal
import time
from pathlib import Path

import httpx
import psutil

from estate import node, ports, process, secrets, web
from estate.errors import StartFailed, tail
from estate.files import Memory

PART = "node-red"
HOST = Path(__file__).with_name("node_red_host")
START_TIMEOUT_S = 120.0
STOP_SIGNALS = ((signal.SIGTERM, 20.0),)
"""Node-RED gives its nodes up to 15 s to close."""
TOKEN = "NODE_RED_TOKEN"  # noqa: S105 - the name of a secret
CREDENTIAL_SECRET = "NODE_RED_CREDENTIAL_SECRET"  # noqa: S105 - likewise


class NodeRed:
    """The Node-RED of one estate; its flows, credentials and context lie in ``folder``."""

    def __init__(self, folder: Path, *, memory: Memory, secrets_file: Path, log: Path) -> None:
        self.folder = folder
        self.memory = memory
        self.secrets_file = secrets_file
        self.log = log
        self.pid_file = folder / "node-red.pid"

    @property
    def url(self) -> str:
        """Base address, without a slash at the end; empty before the first start."""
        port = self.memory.port(PART)
        return f"http://{ports.LOOPBACK}:{port}" if port else ""

    @property
    def token(self) -> str:
        """The admin API's bearer token; empty before the first start."""
        return secrets.read(self.secrets_file).get(TOKEN, "")

    def process(self) -> psutil.Process | None:
        """The running Node-RED, or None."""
        record = process.read_record(self.pid_file)
        return record.process() if record else None

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
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = secrets.ensure(self.secrets_file, TOKEN, CREDENTIAL_SECRET)
        port = ports.choose(self.memory.port(PART))
        self.memory.write(PART, {"port": str(port)})
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
                "PATH": f"{node.binary().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
                "HOME": str(self.folder),
                "LC_ALL": "C.UTF-8",
                "TZ": "UTC",
                "NODE_ENV": "production",
                "NODE_COMPILE_CACHE": str(cache / "node-compile-cache"),
                "NO_UPDATE_NOTIFIER": "1",
                "ESTATE_NODE_RED_PORT": str(port),
                "ESTATE_NODE_RED_TOKEN": kept[TOKEN],
                "ESTATE_NODE_RED_CREDENTIAL_SECRET": kept[CREDENTIAL_SECRET],
            },
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.healthy():
            if self.process() is None:
                raise StartFailed(f"{PART} ended while starting; {tail(self.log)}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{PART} did not answer at {self.url} in {START_TIMEOUT_S:.0f} s; {tail(self.log)}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Let its nodes close, then end Node-RED and what it started."""
        process.stop(self.pid_file, STOP_SIGNALS, name=PART)
