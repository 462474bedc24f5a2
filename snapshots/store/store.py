"""Where recovery points live: a folder or any fsspec address, content-addressed, readable after a crash at any instant.

Layout under the store's root (docs/format.md says it to other programs)::

    chunks/ab/<name>.parquet       an immutable piece: of a table, of its changes, or of the journal
    points/<app>/<id>.json         a manifest, with its own checksum and format version
    proofs/<app>/<id>.json         that a point was restored and checked
    holds/<app>/<id>.json          that a point must not be pruned, and why
    versions/<app>/<...>.json      a version of a workflow
    erased/<app>.json              keyed hashes of rows that must not come back
    keys/<generation>.json         the keyring of an encrypted store
    locks/<kind>-<random>.json     who is at work
    tmp/<host>-<pid>-<random>      an object being written (local stores only)

A piece is named by the SHA-256 of its content, in an encrypted store by an HMAC of it. Pieces are written before the
manifest that names them, and every object appears under its name only when it is complete. Adding an object that exists
leaves it as it is. Reads verify: the checksum, and in an encrypted store the seal too.

Errors: :class:`StoreUnreachable` (worth trying again), :class:`StoreFull`, :class:`StoreBusy`, :class:`PointMissing`,
:class:`Damaged`, :class:`UnknownFormat`, :class:`KeyMissing`, :class:`NotEncrypted`, :class:`BadName`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from snapshots.points.errors import (
    BadName,
    Damaged,
    KeyMissing,
    NotEncrypted,
    PointMissing,
    StoreUnreachable,
    UnknownFormat,
)
from snapshots.store import encryption, lock
from snapshots.store.backend import Backend, Stat, open_backend
from snapshots.store.encryption import MasterKey, Sealer

FORMAT = 2
READABLE = frozenset({1, 2})
"""Manifest formats this version reads; old ones stay readable."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA = re.compile(r"[0-9a-f]{64}")


class Store:
    """A store of recovery points at ``url`` (a path, ``file://``, ``memory://``, ``s3://`` ...).

    ``options`` go to fsspec (credentials, endpoints) and never appear in errors or reprs, nor do ``keys``: base64 of 32
    bytes each, of which one opens the store's keyring. With keys a store is encrypted from its first object on, and
    nothing that is not encrypted is believed. Nothing is created before the first write. Safe to use from several
    threads and processes at once.
    """

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, keys: Sequence[str] = ()) -> None:
        self.masters: tuple[MasterKey, ...] = encryption.master_keys(keys)
        self.backend: Backend = open_backend(url, options or {})
        self.name = self.backend.name
        self.guard: object = None
        """What keeps erased rows out: an ``erasure.Guard``, set by who opens the store."""
        self._opened: Sealer | None = None
        self._known_plain = False
        self._opening = threading.Lock()
        self._alone: lock.Presence | None = None
        self._present: lock.Presence | None = None
        self._writers = 0
        self._coming = threading.Lock()

    def __repr__(self) -> str:
        return f"Store({self.name!r})"

    # Pieces

    def put_chunk(self, data: bytes) -> str:
        """Keep ``data`` and return its name (64 hex digits). Writing the same content again changes nothing.

        Raises :class:`Damaged` if the object exists and is not what its name says (locally by its checksum, elsewhere
        by its size): a new point must not lean on a rotten piece.
        """
        present = self._present
        if present is not None:
            present.keep()
        sealer = self.sealer(create=True)
        name = sealer.name(data) if sealer else hashlib.sha256(data).hexdigest()
        path = chunk_path(name)
        sealed = sealer.seal(path, data) if sealer else data
        if self.backend.create(path, sealed):
            return name
        if self.backend.local:
            with contextlib.suppress(Damaged):
                if self._get(path) == data:
                    return name
        elif self.backend.size(path) == len(sealed):
            return name
        raise Damaged(f"{path} in {self.name} is damaged; move it away, capture again, and audit the points.")

    def read_chunk(self, name: str) -> bytes:
        """The piece's bytes. Raises :class:`Damaged` when it is missing or its content does not match its name."""
        path = chunk_path(name)
        raw = self.backend.read(path)
        data = self.opened(path, raw)
        if raw is None or data is None:
            raise Damaged(f"{path} is missing in {self.name}; use another point, or restore the store from its copy.")
        # The seal vouches for content and name; without one the name must be the content's checksum.
        if not encryption.is_sealed(raw) and hashlib.sha256(data).hexdigest() != name:
            raise Damaged(f"{path} in {self.name} fails its checksum; use another point, or restore its copy.")
        return data

    def missing(self, names: Iterable[str]) -> set[str]:
        """Which of these pieces the store does not hold (their content is not looked at)."""
        paths = {chunk_path(name): name for name in names}
        return {paths[path] for path in self.backend.missing(paths)}

    # Points

    def publish(self, app: str, point_id: str, point: Mapping[str, Any]) -> None:
        """Make a point exist: the last write of a capture.

        Raises :class:`Damaged` if another point has the id, or if an object that the point names is not there (any
        more): pruning is kept out meanwhile, so what is there now stays.
        """
        path = manifest_path(app, point_id)
        text = _manifest_text(point)
        with self.writing("publishing of a point"):
            if missing := self.missing(pieces(point)):
                raise Damaged(
                    f"Point {point_id} of {app} names {len(missing)} objects that {self.name} does not hold "
                    f"({min(missing)}); capture again."
                )
            created = self.backend.create(path, self._sealed(path, text))
        if not created and self.read_manifest(app, point_id) != point:
            raise Damaged(f"{path} in {self.name} already holds another point; capture again to get a new id.")

    def republish(self, app: str, point_id: str, point: Mapping[str, Any]) -> None:
        """Put another manifest in the place of a point's: only for what rewrites its objects, inside
        :meth:`exclusively`."""
        path = manifest_path(app, point_id)
        self.backend.replace(path, self._sealed(path, _manifest_text(point)))

    def read_manifest(self, app: str, point_id: str) -> dict[str, Any]:
        """The point as published. Raises :class:`PointMissing`, :class:`Damaged` or :class:`UnknownFormat`."""
        path = manifest_path(app, point_id)
        return self._manifest(app, point_id, self.backend.read(path))

    def read_manifests(self, app: str, point_ids: Iterable[str]) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
        """Many manifests, as fast as the store allows: each as published, or the error that reading it gave."""
        paths = {manifest_path(app, point_id): point_id for point_id in point_ids}
        for path, data in self.backend.read_all(paths).items():
            point_id = paths[path]
            try:
                yield point_id, self._manifest(app, point_id, data)
            except (Damaged, UnknownFormat, PointMissing) as error:
                yield point_id, error

    def point_ids(self, app: str) -> list[str]:
        """Ids of the app's points, in the order of their names (which is that of time); empty for an unknown app."""
        names = self.backend.names(f"points/{_named(app)}")
        return sorted(n.removesuffix(".json") for n in names if n.endswith(".json"))

    def apps(self) -> list[str]:
        """Every app with points in the store."""
        return sorted(n for n in self.backend.names("points") if _NAME.fullmatch(n))

    # Other objects

    def read_object(self, path: str) -> bytes | None:
        """A small object that changes, as it is now (no piece, no manifest); ``None`` when it is not there."""
        return self._get(path)

    def replace_object(self, path: str, data: bytes) -> None:
        """Put a whole object in the place of another, or of none: readers see the old one or the new one."""
        self.backend.replace(path, self._sealed(path, data))

    def remove_object(self, path: str) -> None:
        """Remove an object, if it is there. Pieces and manifests: only inside :meth:`exclusively`."""
        self.backend.remove(path)

    def object_names(self, folder: str) -> list[str]:
        """Names of what lies directly in ``folder``."""
        return sorted(self.backend.names(folder))

    def walk(self, folder: str = "") -> Iterator[Stat]:
        """All objects below ``folder`` with their sizes."""
        return self.backend.walk(folder)

    # At work

    @contextlib.contextmanager
    def writing(self, purpose: str = "capture") -> Iterator[None]:
        """Keep whoever would remove objects out, for :data:`store_lock.LEASE_S` seconds after a piece. May be nested.
        Raises :class:`StoreBusy` when such a one does not finish. Inside :meth:`exclusively` it is nothing."""
        if self._alone is not None:
            yield
            return
        with self._coming:
            if self._present is None:
                coming = lock.Presence(self.backend, "writer", purpose)
                coming.enter()
                self._present = coming
            else:
                self._present.keep()
            self._writers += 1
        try:
            if self._known_plain:
                self.reopened()  # it may have been encrypted meanwhile: then this is refused, as every later one
            self.sealer(create=True)
            yield
        finally:
            with self._coming:
                self._writers -= 1
                if not self._writers:
                    leaving, self._present = self._present, None
                    leaving.leave()

    @contextlib.contextmanager
    def exclusively(self, purpose: str) -> Iterator[lock.Presence]:
        """Be the only one who writes or removes. Call ``renew`` of what this gives while at work. Raises
        :class:`StoreBusy` naming who else is there."""
        presence = lock.Presence(self.backend, "alone", purpose)
        presence.enter()
        self._alone = presence
        try:
            yield presence
        finally:
            self._alone = None
            presence.leave()

    def clean(self) -> int:
        """Remove what crashed writers left in ``tmp/`` and return the count. Files of writers that may live stay."""
        return self.backend.clean()

    # Encryption

    def sealer(self, *, create: bool = False) -> Sealer | None:
        """What seals and opens the objects; ``None`` when the store is not encrypted. ``create``: something is about to
        be written, so a new store with keys gets its keyring now. Raises :class:`KeyMissing` when it is encrypted and
        not with one of our keys, and :class:`NotEncrypted` when we have keys and it is not encrypted."""
        with self._opening:
            if self._opened is None and not self._known_plain:
                self._opened = self._open_keyring(create=create)
                self._known_plain = self._opened is None and not self.masters
            return self._opened

    def reopened(self) -> Sealer | None:
        """The same, with the keyring read again: it may have a new generation."""
        with self._opening:
            self._opened, self._known_plain = None, False
        return self.sealer()

    def _open_keyring(self, *, create: bool) -> Sealer | None:
        rings = sorted(n for n in self.backend.names(encryption.FOLDER) if n.endswith(".json"))
        if not rings and not self.masters:
            return None
        if not rings:
            if self.apps() or self.backend.names("chunks") or self.backend.names("versions"):
                raise NotEncrypted(
                    f"The store {self.name} is not encrypted although a key is given; run `reinstate store rotate` to "
                    "encrypt it, or take the key out of the catalogue to read it as it is."
                )
            if not create:
                return None
            ring = encryption.new_keyring()
            path = encryption.keyring_path(ring.generation)
            self.backend.create(path, encryption.encode_keyring(ring, self.masters[0]))
            rings = [path.rsplit("/", 1)[-1]]  # ours, or that of who was first
        path = f"{encryption.FOLDER}/{rings[-1]}"
        data = self.backend.read(path)
        if data is None:
            raise StoreUnreachable(f"{path} in {self.name} has just been replaced; try again.")
        return Sealer(encryption.decode_keyring(data, self.masters, f"{path} in {self.name}"))

    def _sealed(self, path: str, data: bytes) -> bytes:
        sealer = self.sealer(create=True)
        return sealer.seal(path, data) if sealer else data

    def _get(self, path: str) -> bytes | None:
        return self.opened(path, self.backend.read(path))

    def opened(self, path: str, data: bytes | None) -> bytes | None:
        """The content of an object as it lies in the store. Raises :class:`Damaged` when it is not sound."""
        if data is None:
            return None
        sealer = self.sealer()
        if not encryption.is_sealed(data):
            if _plain(sealer):
                return data
            raise Damaged(f"{path} in {self.name} is not encrypted although the store is; restore its copy.")
        if sealer is None or not sealer.knows(data):
            sealer = self.reopened()
        if sealer is None:
            raise KeyMissing(f"{path} in {self.name} is encrypted, and the store has no keyring; restore its copy.")
        try:
            return sealer.open(path, data)
        except ValueError as error:
            raise Damaged(f"{path} in {self.name} is damaged ({error}); use another point, or its copy.") from error

    def _manifest(self, app: str, point_id: str, data: bytes | None) -> dict[str, Any]:
        path = manifest_path(app, point_id)
        content = self.opened(path, data)
        if content is None:
            raise PointMissing(
                f"No recovery point {point_id} of {app} in {self.name}; list them with `reinstate points`."
            )
        try:
            manifest = json.loads(content)
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


def chunk_path(name: str) -> str:
    """Where a piece lies in its store."""
    if not _SHA.fullmatch(name):
        raise BadName(f"{name!r} is not a chunk name; it must be 64 hex digits.")
    return f"chunks/{name[:2]}/{name}.parquet"


def piece_name(path: str) -> str:
    """The name of the piece that lies there: the inverse of :func:`chunk_path`."""
    return path.rsplit("/", 1)[-1].removesuffix(".parquet")


def manifest_path(app: str, point_id: str) -> str:
    """Where the manifest of a point lies in its store."""
    return f"points/{_named(app)}/{_named(point_id)}.json"


def side_path(folder: str, app: str, point_id: str) -> str:
    """Where something about a point lies: ``proofs`` or ``holds``."""
    return f"{folder}/{_named(app)}/{_named(point_id)}.json"


def pieces(point: Mapping[str, Any]) -> set[str]:
    """Names of all objects that a point (as published) needs."""
    tables = point.get("tables") or ()
    lists = [t.get(part) or () for t in tables for part in ("chunks", "deltas")]
    return {piece["sha256"] for found in (*lists, point.get("segments") or ()) for piece in found}


def _plain(sealer: Sealer | None) -> bool:
    return sealer is None or sealer.ring.plain


def _manifest_text(point: Mapping[str, Any]) -> bytes:
    values = {"checksum": _checksum(point), "format": FORMAT, "point": point}
    return json.dumps(values, sort_keys=True, indent=1).encode()


def _checksum(point: Mapping[str, Any]) -> str:
    canonical = json.dumps(point, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _named(part: str) -> str:
    if not _NAME.fullmatch(part):
        raise BadName(f"{part!r} cannot name an app or point; use letters, digits, dot, dash and underscore.")
    return part
