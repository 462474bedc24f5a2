"""A store in a local folder: readable after a crash at any instant. Folders are 0700, files 0600.

A file is written under ``tmp/`` and reaches the disk; then it gets its name by a hard link, which never replaces
another, or by a rename where one is to be replaced; then the folder reaches the disk too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from snapshots.store.backend import Stat, reaching

ORPHAN_AGE_S = 24 * 3600.0
_IDLE = ("chunks/", "locks/")
"""Whether a removal here survives a crash does not matter."""


class Folder:
    """A :class:`snapshots.store.backend.Backend` in the folder ``root``, which the first write creates."""

    local = True

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self.name = root

    def create(self, path: str, data: bytes) -> bool:
        with reaching(self.name, path):
            return not (self._root / path).exists() and self._write(path, data, replace=False)

    def replace(self, path: str, data: bytes) -> None:
        with reaching(self.name, path):
            self._write(path, data, replace=True)

    def read(self, path: str) -> bytes | None:
        with reaching(self.name, path):
            try:
                return (self._root / path).read_bytes()
            except FileNotFoundError:
                return None

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        return {path: self.read(path) for path in paths}

    def remove(self, path: str) -> None:
        with reaching(self.name, path):
            try:
                (self._root / path).unlink()
            except FileNotFoundError:
                return
            if not path.startswith(_IDLE):
                # A manifest must not come back after a crash that its pieces did not survive.
                _sync_folder((self._root / path).parent)

    def missing(self, paths: Iterable[str]) -> set[str]:
        with reaching(self.name, "the objects"):
            return {path for path in paths if not (self._root / path).exists()}

    def size(self, path: str) -> int:
        with reaching(self.name, path):
            return (self._root / path).stat().st_size

    def names(self, folder: str) -> list[str]:
        with reaching(self.name, folder):
            try:
                return [path.name for path in (self._root / folder).iterdir()]
            except FileNotFoundError:
                return []

    def walk(self, folder: str) -> Iterator[Stat]:
        with reaching(self.name, folder or "the objects"):
            for place, folders, files in os.walk(self._root / folder, onerror=_unless_missing):
                if Path(place) == self._root and "tmp" in folders:
                    folders.remove("tmp")
                for name in files:
                    file = Path(place) / name
                    with contextlib.suppress(FileNotFoundError):
                        found = file.stat()
                        path = file.relative_to(self._root).as_posix()
                        yield Stat(path=path, bytes=found.st_size, modified=found.st_mtime)

    def clean(self) -> int:
        removed = 0
        folder = self._root / "tmp"
        if folder.is_dir():
            for path in folder.iterdir():
                with reaching(self.name, "tmp"), contextlib.suppress(FileNotFoundError):
                    if _orphaned(path):
                        path.unlink()
                        removed += 1
        return removed

    def _write(self, path: str, data: bytes, *, replace: bool) -> bool:
        target = self._root / path
        for folder in (self._root, self._root / "tmp", *reversed(target.relative_to(self._root).parents[:-1])):
            _make_private(self._root / folder)
        temporary = self._root / "tmp" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(target)
            created = replace or _link(temporary, target)
            _sync_folder(target.parent)
            return created
        finally:
            temporary.unlink(missing_ok=True)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _link(temporary: Path, target: Path) -> bool:
    """Give the finished file its name, never replacing another: a hard link, or a rename where links do not exist."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError:
        if target.exists():
            return False
        temporary.rename(target)
    return True


def _make_private(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _orphaned(path: Path) -> bool:
    """A temporary file of a writer that is surely gone: its process on this host ended, or it is a day old."""
    if time.time() - path.stat().st_mtime > ORPHAN_AGE_S:
        return True
    host, _, pid = path.name.rsplit("-", 1)[0].rpartition("-")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
