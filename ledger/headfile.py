"""The head file: the number and hash of the newest entry, kept apart from the ledger, so that a cut tail shows.

It is written after the commit, under a file lock, and only ever moves forward: it may lag behind the ledger by a
crash, it never leads. A head that the ledger contradicts is evidence and is left as it is until somebody, on record,
accepts the ledger as it stands (``Ledger.accept_head``). It is no defence against a person who can write both files:
keep a copy of it, or print its hash, where that person has no access.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ledger.errors import Damaged


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """``seq`` 0 with the genesis hash stands for an empty ledger."""

    ledger: str
    seq: int
    hash: str


class HeadFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time, on this machine. Reads need no lock: the file is replaced as a whole."""
        fd = os.open(self.path.with_name(self.path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def read(self) -> Head | None:
        """The head on file, ``None`` when there is no file. Raises ``Damaged`` when it cannot be understood."""
        try:
            value = json.loads(self.path.read_text())
            return Head(ledger=str(value["ledger"]), seq=int(value["seq"]), hash=str(value["hash"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"head file {self.path}: unreadable; compare it with a copy, then accept the head") from error

    def create(self, head: Head) -> None:
        """Write ``head`` unless there is a file already."""
        with self.locked():
            if not self.path.exists():
                self.replace(head)

    def advance(self, head: Head, *, prev_hash: str, hash_of: Callable[[int], str | None]) -> None:
        """Move forward to ``head``, whose entry follows ``prev_hash``, unless the file contradicts the ledger.
        ``hash_of`` reads the hash of an earlier entry."""
        with self.locked():
            try:
                old = self.read()
            except Damaged:
                return
            if old is None or old.ledger != head.ledger or old.seq >= head.seq:
                return
            follows = old.hash == prev_hash if old.seq == head.seq - 1 else old.hash == hash_of(old.seq)
            if follows:
                self.replace(head)

    def replace(self, head: Head) -> None:
        """Write ``head`` whatever was there, all or nothing. Call it under :meth:`locked`."""
        draft = self.path.with_name(self.path.name + ".tmp")
        fd = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(json.dumps(asdict(head)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
