"""What the servers of an estate have in common: a folder, a port that stays the same, a process known by a file."""

import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import psutil

from estate import ports, process, secrets
from estate.files import Memory


class Server(ABC):
    """A server of one estate; its own files lie in ``folder``."""

    name: ClassVar[str]
    """Its name as a part of the estate, and of its files."""
    stop_after_s: ClassVar[float] = 20.0
    """How long it may take to end by itself when it is asked to, seconds."""

    def __init__(self, folder: Path, *, memory: Memory, secrets_file: Path, log: Path) -> None:
        self.folder = folder
        self.memory = memory
        self.secrets_file = secrets_file
        self.log = log
        self.pid_file = folder / f"{self.name}.pid"

    @property
    def url(self) -> str:
        """Base address, without a slash at the end; empty before the first start."""
        port = self.memory.port(self.name)
        return f"http://{ports.LOOPBACK}:{port}" if port else ""

    @abstractmethod
    def healthy(self) -> bool:
        """Whether it runs, is set up and answers."""

    def process(self) -> psutil.Process | None:
        """The running server, or None."""
        record = process.read_record(self.pid_file)
        return record.process() if record else None

    def secret(self, name: str) -> str:
        """One of its secrets; empty before the first start."""
        return secrets.read(self.secrets_file).get(name, "")

    def make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def choose_port(self) -> int:
        """The port of the last start if it is still free, else another one, kept for the next start."""
        port = ports.choose(self.memory.port(self.name))
        self.memory.write(self.name, {"port": str(port)})
        return port

    def stop(self) -> None:
        """Ask it to end, then end it and what it started."""
        process.stop(self.pid_file, ((signal.SIGTERM, self.stop_after_s),), name=self.name)
