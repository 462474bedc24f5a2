"""Where recovery points live: a folder or any fsspec address, content-addressed, readable after a crash at any instant.

Layout under the store's root::

    chunks/ab/<sha256>.parquet     an immutable piece of a table, named by its content
    points/<app>/<id>.json         a manifest, with its own checksum and format version
    tmp/<host>-<pid>-<random>      an object being written (local stores only)

Chunks are written before the manifest that names them, and every object appears under its name only when it is
complete: locally by write, ``fsync``, link and ``fsync`` of the folder; on object stores by one whole-object put.
Adding an object that exists leaves it as it is. Reads verify the checksum. Local stores are 0700, files 0600.

Errors: :class:`StoreUnreachable` (worth trying again), :class:`PointMissing`, :class:`Damaged`,
:class:`UnknownFormat`, :class:`BadName` (trying again cannot help).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from .errors import SnapshotError
from .point_errors import BadName, Damaged, PointMissing, StoreUnreachable, UnknownFormat

FORMAT = 2
READABLE = frozenset({1, 2})
"""Manifest formats this version reads; old ones stay readable."""
ORPHAN_AGE_S = 24 * 3600.0
_PERMANENT = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA = re.compile(r"[0-9a-f]{64}")


class Store:
    """A store of recovery points at ``url`` (a path, ``file://``, ``memory://``, ``s3://`` ...).

    ``options`` go to fsspec (credentials, endpoints) and never appear in errors or reprs. Nothing is created before
    the first write. Safe to use from several processes at once.
    """

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None) -> None:
        try:
            self._fs, self._root = fsspec.url_to_fs(url, **dict(options or {}))
        except (ValueError, ImportError) as error:
            raise BadName(f"The store address is not usable ({error}); give a folder or an fsspec address.") from error
        except Exception as error:  # noqa: BLE001 - some backends connect at once, each with errors of its own
            raise StoreUnreachable(f"Cannot open the store ({type(error).__name__}); check its address.") from None
        self._local = isinstance(self._fs, LocalFileSystem)
        self.guard: object = None
        """What keeps erased rows out: an ``erasure.Guard``, set by who opens the store."""
        self.name = self._root if self._local else f"{_protocol(self._fs)}://{self._root}"

    def __repr__(self) -> str:
        return f"Store({self.name!r})"

    def put_chunk(self, data: bytes) -> str:
        """Keep ``data`` and return its SHA-256. Writing the same content again changes nothing.

        Raises :class:`Damaged` if the object exists and is not what its name says (locally by its checksum, elsewhere
        by its size): a new point must not lean on a rotten chunk.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._chunk(sha256)
        with self._reaching(path):
            if self._create(path, data):
                return sha256
            sound = self._read(path) == data if self._local else int(self._fs.size(self._at(path))) == len(data)
        if not sound:
            raise Damaged(f"{path} in {self.name} is damaged; move it away, capture again, and audit the points.")
        return sha256

    def read_chunk(self, sha256: str) -> bytes:
        """The chunk's bytes. Raises :class:`Damaged` when it is missing or its content does not match its name."""
        path = self._chunk(sha256)
        data = self._read(path)
        if data is None:
            raise Damaged(f"{path} is missing in {self.name}; use another point, or restore the store from its copy.")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Damaged(f"{path} in {self.name} fails its checksum; use another point, or restore its copy.")
        return data

    def publish(self, app: str, point_id: str, point: Mapping[str, Any]) -> None:
        """Make a point exist: the last write of a capture. Raises :class:`Damaged` if another point has the id."""
        path = self._manifest(app, point_id)
        text = json.dumps({"checksum": _checksum(point), "format": FORMAT, "point": point}, sort_keys=True, indent=1)
        with self._reaching(path):
            created = self._create(path, text.encode())
        if not created and self.read_manifest(app, point_id) != point:
            raise Damaged(f"{path} in {self.name} already holds another point; capture again to get a new id.")

    def read_manifest(self, app: str, point_id: str) -> dict[str, Any]:
        """The point as published. Raises :class:`PointMissing`, :class:`Damaged` or :class:`UnknownFormat`."""
        path = self._manifest(app, point_id)
        data = self._read(path)
        if data is None:
            raise PointMissing(
                f"No recovery point {point_id} of {app} in {self.name}; list them with `reinstate points`."
            )
        try:
            manifest = json.loads(data)
            version, point, checksum = manifest["format"], manifest.get("point"), manifest.get("checksum")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(
                f"{path} in {self.name} is not a manifest; use another point, or restore its copy."
            ) from error
        if version not in READABLE:
            raise UnknownFormat(f"{path} in {self.name} has format {version!r}; upgrade reinstate to read it.")
        if not isinstance(point, dict) or _checksum(point) != checksum:
            raise Damaged(f"{path} in {self.name} fails its checksum; use another point, or restore its copy.")
        return point

    def point_ids(self, app: str) -> list[str]:
        """Ids of the app's points, in the order of their names (which is that of time); empty for an unknown app."""
        folder = f"points/{_named(app)}"
        with self._reaching(folder):
            self._fs.invalidate_cache()
            try:
                names = [str(n).rsplit("/", 1)[-1] for n in self._fs.ls(self._at(folder), detail=False)]
            except FileNotFoundError:
                return []
        return sorted(n.removesuffix(".json") for n in names if n.endswith(".json"))

    def read_object(self, path: str) -> bytes | None:
        """A small object that changes, as it is now (no chunk, no manifest); ``None`` when it is not there."""
        with self._reaching(path):
            self._fs.invalidate_cache()
        return self._read(path)

    def replace_object(self, path: str, data: bytes) -> None:
        """Put a whole object in the place of another, or of none: readers see the old one or the new one."""
        with self._reaching(path):
            if self._local:
                _create_local(Path(self._root), path, data, replace=True)
                return
            self._fs.makedirs(self._at(path).rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(self._at(path), data)

    def clean(self) -> int:
        """Remove what crashed writers left in ``tmp/`` and return the count. Files of writers that may live stay."""
        removed = 0
        folder = Path(self._root) / "tmp"
        if self._local and folder.is_dir():
            for path in folder.iterdir():
                with self._reaching("tmp"), contextlib.suppress(FileNotFoundError):
                    if _orphaned(path):
                        path.unlink()
                        removed += 1
        return removed

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    def _chunk(self, sha256: str) -> str:
        if not _SHA.fullmatch(sha256):
            raise BadName(f"{sha256!r} is not a chunk name; it must be 64 hex digits.")
        return f"chunks/{sha256[:2]}/{sha256}.parquet"

    def _manifest(self, app: str, point_id: str) -> str:
        return f"points/{_named(app)}/{_named(point_id)}.json"

    def _read(self, path: str) -> bytes | None:
        with self._reaching(path):
            try:
                return bytes(self._fs.cat_file(self._at(path)))
            except (FileNotFoundError, KeyError):
                return None

    def _create(self, path: str, data: bytes) -> bool:
        """Write a whole object unless it exists; true when it was written."""
        if self._local:
            return _create_local(Path(self._root), path, data)
        self._fs.invalidate_cache()
        if self._fs.exists(self._at(path)):
            return False
        self._fs.makedirs(self._at(path).rsplit("/", 1)[0], exist_ok=True)
        self._fs.pipe_file(self._at(path), data)
        return True

    @contextlib.contextmanager
    def _reaching(self, path: str) -> Iterator[None]:
        """Turn whatever a backend raises on the way into one error that names the store and never its options."""
        try:
            yield
        except SnapshotError:
            raise
        except Exception as error:
            cause = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise StoreUnreachable(
                f"Cannot reach {path} in the store {self.name} ({cause}); check the address, rights and free space.",
                retryable=not isinstance(error, _PERMANENT),
            ) from error


def _create_local(root: Path, path: str, data: bytes, *, replace: bool = False) -> bool:
    target = root / path
    if target.exists() and not replace:
        return False
    for folder in (root, root / "tmp", *reversed(target.relative_to(root).parents[:-1])):
        _make_private(root / folder)
    temporary = root / "tmp" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
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


def _checksum(point: Mapping[str, Any]) -> str:
    canonical = json.dumps(point, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _named(part: str) -> str:
    if not _NAME.fullmatch(part):
        raise BadName(f"{part!r} cannot name an app or point; use letters, digits, dot, dash and underscore.")
    return part


def _protocol(filesystem: Any) -> str:
    return filesystem.protocol if isinstance(filesystem.protocol, str) else str(filesystem.protocol[0])
