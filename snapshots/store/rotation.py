"""New keys for a store, and encryption of one that was plain.

The master key only seals the keyring, so a new master key costs one small object: the next generation of the keyring,
sealed with the new key and with a fresh data key for what is written from then on. Data keys of old objects stay in the
keyring. ``everything`` seals every object anew, so that a data key that leaked opens nothing any more.

Encrypting a plain store gives its pieces keyed names, rewrites the manifests, then removes what was plain. While that
goes on, plain objects are still believed (``plain`` in the keyring); it can be killed at any instant and started again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snapshots.points.errors import KeyMissing, NotEncrypted
from snapshots.store import encryption
from snapshots.store.encryption import Keyring, Sealer
from snapshots.store.lock import Presence
from snapshots.store.store import Store, chunk_path

_OWN = (f"{encryption.FOLDER}/", "locks/", "tmp/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotated:
    """What was done: ``key`` opens the store now, ``sealed`` objects were sealed (anew), ``removed`` plain ones are
    gone."""

    generation: int
    key: str
    encrypted: bool
    """Whether the store was plain before."""
    sealed: int
    removed: int


def state(store: Store) -> str:
    """``plain``, ``encrypted``, or ``being encrypted`` (a rotation did not finish). Raises as :meth:`Store.sealer`."""
    try:
        sealer = store.sealer()
    except NotEncrypted:
        return "plain"
    return "plain" if sealer is None else "being encrypted" if sealer.ring.plain else "encrypted"


def rotate(store: Store, *, everything: bool = False, seen: Callable[[str], None] = lambda _: None) -> Rotated:
    """Seal the keyring with the first of the store's keys, from now on the only one needed, and give new objects a
    fresh data key. ``everything``: seal all old objects anew too. A plain store is encrypted.

    The key that opens the store now must be among its keys. ``seen`` hears the path of each object. Raises
    :class:`KeyMissing`, :class:`StoreBusy` and what reading gives; started again, it goes on.
    """
    if not store.masters:
        raise KeyMissing(f"No key is given for the store {store.name}; add one to the store's keys in the catalogue.")
    with store.exclusively("rotation of keys") as presence:
        was_plain = state(store) != "encrypted"
        if was_plain and not store.object_names(encryption.FOLDER):
            ring = encryption.new_keyring(plain=True)
        else:
            ring = encryption.next_keyring(_opened(store).ring)
        _write(store, ring)
        sealed = removed = 0
        if was_plain:
            sealed, removed = _encrypt(store, presence, seen)
            ring = encryption.next_keyring(ring, plain=False, fresh=False)
            _write(store, ring)
        elif everything:
            sealed = _seal_all(store, presence, seen)
    return Rotated(
        generation=ring.generation, key=store.masters[0].id, encrypted=was_plain, sealed=sealed, removed=removed
    )


def _opened(store: Store) -> Sealer:
    sealer = store.reopened()
    if sealer is None:
        raise KeyMissing(f"The store {store.name} has no keyring any more; put its copy back.")
    return sealer


def _write(store: Store, ring: Keyring) -> None:
    """The next generation first, then away with the earlier ones: at any instant the highest one is whole."""
    store.backend.create(encryption.keyring_path(ring.generation), encryption.encode_keyring(ring, store.masters[0]))
    for name in store.object_names(encryption.FOLDER):
        if name < encryption.keyring_path(ring.generation).rsplit("/", 1)[-1]:
            store.remove_object(f"{encryption.FOLDER}/{name}")
    store.reopened()


def _encrypt(store: Store, presence: Presence, seen: Callable[[str], None]) -> tuple[int, int]:
    names: dict[str, str] = {}
    sealed = removed = 0

    def moved(piece: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal sealed
        old = piece["sha256"]
        if old not in names:
            presence.renew()
            if _plain(store, chunk_path(old)):
                names[old] = store.put_chunk(store.read_chunk(old))
                sealed += 1
                seen(chunk_path(old))
            else:
                names[old] = old
        return {**piece, "sha256": names[old]}

    for app in store.apps():
        for point_id in store.point_ids(app):
            point = store.read_manifest(app, point_id)
            tables = [
                {**table, **{part: [moved(p) for p in table[part]] for part in ("chunks", "deltas") if part in table}}
                for table in point.get("tables", [])
            ]
            segments = {"segments": [moved(s) for s in point["segments"]]} if "segments" in point else {}
            store.republish(app, point_id, {**point, "tables": tables, **segments})
            sealed += 1
    for found in list(store.walk()):
        presence.renew()
        if found.path.startswith(_OWN) or not _plain(store, found.path):
            continue
        if found.path.startswith("chunks/"):
            store.remove_object(found.path)
            removed += 1
        else:
            store.replace_object(found.path, store.read_object(found.path) or b"")
            sealed += 1
    return sealed, removed


def _seal_all(store: Store, presence: Presence, seen: Callable[[str], None]) -> int:
    sealed = 0
    for found in list(store.walk()):
        if found.path.startswith(_OWN):
            continue
        presence.renew()
        raw = store.backend.read(found.path)
        if raw is None or encryption.key_of(raw) == _opened_key(store):
            continue
        content = store.opened(found.path, raw)
        store.replace_object(found.path, content or b"")
        seen(found.path)
        sealed += 1
    return sealed


def _opened_key(store: Store) -> str:
    sealer = store.sealer()
    return sealer.ring.current if sealer else ""


def _plain(store: Store, path: str) -> bool:
    data = store.backend.read(path)
    return data is not None and not encryption.is_sealed(data)
