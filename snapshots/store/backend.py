"""What a store stands on: whole objects under names, in a folder or behind any fsspec address.

Every object appears under its name only when it is complete. :meth:`Backend.create` never replaces: a folder links the
finished file to its name, an object store is asked to put only where nothing is (``If-None-Match: *``), and where it
cannot, we look before and after. Whatever goes wrong is one error that names the store and never its options.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import fsspec
import tenacity
from fsspec.implementations.local import LocalFileSystem

from snapshots.errors import SnapshotError
from snapshots.points.errors import BadName, StoreFull, StoreUnreachable

T = TypeVar("T")
ATTEMPTS = 5
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
FEW = 20
"""So many objects are looked up one by one, more in a listing."""
_REFUSING = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_FINAL = (*_REFUSING, FileNotFoundError, KeyError, ValueError, TypeError)
_FINAL_CODES = frozenset({errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENOSPC, errno.EDQUOT})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CONDITIONAL = frozenset({"s3", "s3a", "memory"})
"""Protocols whose ``pipe_file`` takes ``mode="create"``."""

_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs"})
"""Protocols without folders: making one would at best do nothing, at worst make a bucket."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stat:
    """An object as a listing shows it. ``modified``: seconds since 1970 by the store's clock, ``None`` when unknown."""

    path: str
    bytes: int
    modified: float | None


class Backend(Protocol):
    """Objects by path (``folder/name``, no leading slash). Raises :class:`StoreUnreachable` for what went wrong."""

    name: str
    """For messages: the address without secrets."""
    local: bool

    def create(self, path: str, data: bytes) -> bool:
        """Write a whole object unless one is there; true when it was written. One that is there stays as it is."""

    def replace(self, path: str, data: bytes) -> None:
        """Write a whole object in the place of another, or of none: readers see the old one or the new one."""

    def read(self, path: str) -> bytes | None:
        """The object as it is now; ``None`` when it is not there."""

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        """Several small objects at once, as fast as the store allows."""

    def remove(self, path: str) -> None:
        """Remove the object, if it is there."""

    def missing(self, paths: Iterable[str]) -> set[str]:
        """Which of these are not there."""

    def size(self, path: str) -> int:
        """Bytes of an object that is there."""

    def names(self, folder: str) -> list[str]:
        """Names of what lies directly in ``folder``; empty when there is no such folder."""

    def walk(self, folder: str) -> Iterator[Stat]:
        """All objects below ``folder`` (``""``: the whole store)."""

    def clean(self) -> int:
        """Remove what crashed writers left; the count. What living ones may be writing stays."""


def open_backend(url: str, options: Mapping[str, Any]) -> Backend:
    """The backend for a path or an fsspec address. Nothing is created. Raises :class:`BadName` and
    :class:`StoreUnreachable`."""
    from snapshots.store.folder import Folder

    try:
        filesystem, root = fsspec.url_to_fs(url, **dict(options))
    except (ValueError, ImportError) as error:
        raise BadName(f"The store address is not usable ({error}); give a folder or an fsspec address.") from error
    except Exception as error:  # noqa: BLE001 - some backends connect at once, each with errors of its own
        raise StoreUnreachable(f"Cannot open the store ({type(error).__name__}); check its address.") from None
    return Folder(root) if isinstance(filesystem, LocalFileSystem) else Remote(filesystem, root)


@contextlib.contextmanager
def reaching(name: str, path: str) -> Iterator[None]:
    """Turn whatever a backend raises on the way into one error that names the store and never its options."""
    try:
        yield
    except SnapshotError:
        raise
    except Exception as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StoreFull(
                f"The store {name} is full ({cause}) and {path} was not written; make room (`reinstate store prune`)."
            ) from error
        raise StoreUnreachable(
            f"Cannot reach {path} in the store {name} ({cause}); check the address, rights and free space.",
            retryable=not isinstance(error, _REFUSING),
        ) from error


class Remote:
    """Objects behind an fsspec filesystem. What may heal is tried again, with backoff and jitter."""

    local = False

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else str(filesystem.protocol[0])
        self.name = f"{protocol}://{root}"
        self._conditional = protocol in _CONDITIONAL
        self._folders = protocol not in _FLAT

    def create(self, path: str, data: bytes) -> bool:
        at = self._at(path)
        if self._conditional:
            try:
                return self._calling(path, lambda: self._create(at, data))
            except StoreUnreachable as error:
                if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSYS):
                    raise
                self._conditional = False
        if self._calling(path, lambda: self._fs.exists(at)):
            return False
        self.replace(path, data)
        return self.read(path) == data

    def _create(self, at: str, data: bytes) -> bool:
        self._prepare(at)
        try:
            self._fs.pipe_file(at, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            response = getattr(error.__cause__, "response", {})
            if response.get("Error", {}).get("Code") in {"PreconditionFailed", "412"}:
                return False
            raise
        return True

    def replace(self, path: str, data: bytes) -> None:
        at = self._at(path)

        def put() -> None:
            self._prepare(at)
            self._fs.pipe_file(at, data)

        self._calling(path, put)

    def read(self, path: str) -> bytes | None:
        def get() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(self._at(path)))
            except (FileNotFoundError, KeyError):
                return None

        return self._calling(path, get)

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        wanted = {self._at(p): p for p in paths}
        if not wanted:
            return {}

        def get() -> dict[str, bytes | None]:
            found = self._fs.cat(list(wanted), on_error="return")
            if not isinstance(found, dict):
                found = {next(iter(wanted)): found}
            answers: dict[str, bytes | None] = {}
            for at, path in wanted.items():
                data = found.get(at, found.get("/" + at.lstrip("/")))
                if isinstance(data, Exception) and not isinstance(data, FileNotFoundError | KeyError):
                    raise data
                answers[path] = bytes(data) if isinstance(data, bytes | bytearray) else None
            return answers

        return self._calling(next(iter(wanted.values())), get)

    def remove(self, path: str) -> None:
        def rm() -> None:
            with contextlib.suppress(FileNotFoundError, KeyError):
                self._fs.rm_file(self._at(path))

        self._calling(path, rm)

    def missing(self, paths: Iterable[str]) -> set[str]:
        wanted = set(paths)
        if len(wanted) > FEW:
            top = {p.split("/", 1)[0] for p in wanted}
            return wanted - {found.path for folder in top for found in self.walk(folder)}

        def look() -> set[str]:
            self._fs.invalidate_cache()
            return {p for p in wanted if not self._fs.exists(self._at(p))}

        return self._calling("the objects", look) if wanted else set()

    def size(self, path: str) -> int:
        def look() -> int:
            self._fs.invalidate_cache()
            return int(self._fs.size(self._at(path)))

        return self._calling(path, look)

    def names(self, folder: str) -> list[str]:
        def look() -> list[str]:
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
            return [n for n in (str(f).rstrip("/").rsplit("/", 1)[-1] for f in found) if n]

        return self._calling(folder, look)

    def walk(self, folder: str) -> Iterator[Stat]:
        def look() -> dict[str, dict[str, Any]]:
            self._fs.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._fs.find(self._at(folder), detail=True)
            return found

        start = len(self._root.strip("/")) + 1
        for at, info in self._calling(folder or "the objects", look).items():
            yield Stat(path=at.strip("/")[start:], bytes=int(info.get("size") or 0), modified=_modified(info))

    def clean(self) -> int:
        return 0  # nothing is ever written under another name

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    def _prepare(self, at: str) -> None:
        self._fs.invalidate_cache()
        if self._folders:
            self._fs.makedirs(at.rsplit("/", 1)[0], exist_ok=True)

    def _calling(self, path: str, call: Callable[[], T]) -> T:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_transient),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            reraise=True,
        )
        with reaching(self.name, path):
            return retrying(call)


def _transient(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FINAL_CODES:
        return False
    return isinstance(error, Exception) and not isinstance(error, _FINAL)


def _modified(info: Mapping[str, Any]) -> float | None:
    at = info.get("LastModified") or info.get("mtime") or info.get("created")
    if at is None:
        return None
    return float(at) if isinstance(at, int | float) else float(at.timestamp())
