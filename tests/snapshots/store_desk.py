"""Places for a store: a folder, memory, and a real S3 server on the loopback address; plain and encrypted."""

import base64
import contextlib
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from snapshots.store.store import Store

KEY = base64.b64encode(b"k" * 32).decode()
NEW_KEY = base64.b64encode(b"n" * 32).decode()
KINDS = ("local", "memory", "s3")


@dataclass(frozen=True, kw_only=True)
class Place:
    """An address at which nothing is yet. ``open`` gives a store there, as another process would see it."""

    url: str
    keys: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def open(self, *keys: str) -> Store:
        return Store(self.url, options=self.options, keys=keys or self.keys)


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, Any]]:
    """moto's server in a process of its own; gives the options for fsspec. Its bucket is ``points``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert server.poll() is None, "moto's server ended"
                assert time.monotonic() < deadline, "moto's server does not answer"
                time.sleep(0.05)
            options = {"key": "test", "secret": "hunter2", "endpoint_url": f"http://127.0.0.1:{port}"}
            fsspec.filesystem("s3", **options).mkdir("points")
            yield options
        finally:
            server.terminate()
            server.wait(timeout=10)


def place(kind: str, tmp_path: Path, s3: dict[str, Any], *, keys: tuple[str, ...] = ()) -> Place:
    name = uuid.uuid4().hex
    match kind:
        case "local":
            return Place(url=str(tmp_path / name), keys=keys)
        case "memory":
            return Place(url=f"memory://{name}", keys=keys)
        case _:
            return Place(url=f"s3://points/{name}", keys=keys, options=s3)
