"""Private files, replaced as a whole, and locks between processes."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from estate.errors import EstateBusy


def write_private(path: Path, text: str) -> None:
    """Replace a file of mode 0600 as a whole: a reader sees the old or the new text, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def locked(path: Path, *, patience_s: float, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock that ends with the process, at the latest. ``waiting`` hears once who holds it meanwhile.

    Raises EstateBusy after ``patience_s`` seconds.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        deadline = time.monotonic() + patience_s
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = path.read_text(encoding="utf-8").strip() or "unknown"
                if time.monotonic() > deadline:
                    raise EstateBusy(f"{path} is held by process {holder}; wait for it or end it, then retry") from None
                if waiting and not told:
                    waiting(f"waiting for process {holder}, which is at work on {path.parent}")
                    told = True
                time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class Memory:
    """What is remembered between starts, by part (ports, the socket directory): one JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def read(self, part: str) -> dict[str, str]:
        """The part's values; empty when nothing is known."""
        return self._all().get(part, {})

    def port(self, part: str, name: str = "port") -> int:
        """A remembered port, 0 when there is none."""
        value = self.read(part).get(name, "")
        return int(value) if value.isdigit() else 0

    def write(self, part: str, values: dict[str, str]) -> None:
        """Replace the part's values."""
        with self._lock:
            write_private(self.path, json.dumps({**self._all(), part: values}, indent=2, sort_keys=True) + "\n")

    def _all(self) -> dict[str, dict[str, str]]:
        try:
            known: dict[str, dict[str, str]] = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return known
