"""Encryption of a store: what an object looks like sealed, and the keyring that a master key opens.

A sealed object is ``RJSEAL1\\n``, the 8 bytes that name its data key, a random nonce of 12 bytes, then AES-256-GCM over
the content with its tag. Head and name of the object are authenticated with it: an object under another name, or cut,
or altered by one bit, is refused.

Data keys live in the *keyring*, ``keys/<generation>.json``, sealed in its turn under a key derived from the
operator's master key. A new master key therefore means one new small object, not a new store: see
:mod:`snapshots.store.rotation`. The keyring also holds the naming secret: pieces of tables are named by HMAC-SHA256
under a key derived from it, so that equal content still meets under one name and nobody without the key can test a
guess.

Keys never appear in messages or reprs; they are named by their ids, which are derived and tell nothing.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from snapshots.points.errors import BadKey, Damaged, KeyMissing, UnknownFormat

MAGIC = b"RJSEAL1\n"
FORMAT = 1
KEY_BYTES = 32
ID_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16
HEAD_BYTES = len(MAGIC) + ID_BYTES
OVERHEAD_BYTES = HEAD_BYTES + NONCE_BYTES + TAG_BYTES
FOLDER = "keys"


@dataclass(frozen=True, kw_only=True, slots=True)
class MasterKey:
    """A key of the operator. ``id`` may be shown; the secret never is."""

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Keyring:
    """The data keys of a store by id, and the secret its names come from."""

    generation: int
    current: str
    """The data key of new objects."""
    data: dict[str, bytes] = field(repr=False)
    naming: bytes = field(repr=False)
    plain: bool
    """Whether objects that are not encrypted are still believed: only while a plain store is being encrypted."""


def master_keys(texts: Sequence[str]) -> tuple[MasterKey, ...]:
    """Master keys from base64 of 32 bytes each, as the catalogue's secrets hold them. Raises :class:`BadKey`, which
    counts the key and never shows it."""
    keys = []
    for number, text in enumerate(texts, 1):
        try:
            secret = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) != KEY_BYTES:
            raise BadKey(
                f"Key {number} of the store is not {KEY_BYTES} bytes in base64; make one: `openssl rand -base64 32`."
            )
        keys.append(MasterKey(id=_derived(secret, b"id of a master key")[:ID_BYTES].hex(), secret=secret))
    return tuple(keys)


def new_keyring(*, plain: bool = False) -> Keyring:
    """A first keyring with random keys."""
    current = os.urandom(ID_BYTES).hex()
    return Keyring(
        generation=1,
        current=current,
        data={current: os.urandom(KEY_BYTES)},
        naming=os.urandom(KEY_BYTES),
        plain=plain,
    )


def next_keyring(ring: Keyring, *, plain: bool | None = None, fresh: bool = True) -> Keyring:
    """The following generation: with a ``fresh`` data key for new objects, all old ones, and the same names."""
    current = os.urandom(ID_BYTES).hex() if fresh else ring.current
    data = {**ring.data, current: os.urandom(KEY_BYTES)} if fresh else ring.data
    return replace(
        ring,
        generation=ring.generation + 1,
        current=current,
        data=data,
        plain=ring.plain if plain is None else plain,
    )


def keyring_path(generation: int) -> str:
    return f"{FOLDER}/{generation:06d}.json"


def encode_keyring(ring: Keyring, master: MasterKey) -> bytes:
    """The keyring as its object: JSON whose ``sealed`` only ``master`` opens."""
    body = {
        "current": ring.current,
        "data": {name: _text(key) for name, key in ring.data.items()},
        "naming": _text(ring.naming),
        "plain": ring.plain,
    }
    nonce = os.urandom(NONCE_BYTES)
    sealed = _aead(_wrapping(master)).encrypt(nonce, json.dumps(body).encode(), _about(ring.generation, master.id))
    values = {"format": FORMAT, "generation": ring.generation, "key": master.id, "sealed": _text(nonce + sealed)}
    return json.dumps(values, sort_keys=True, indent=1).encode()


def decode_keyring(data: bytes, masters: Sequence[MasterKey], where: str) -> Keyring:
    """The keyring in ``data``. Raises :class:`KeyMissing` naming the key that opens it when it is not among
    ``masters``, :class:`Damaged` and :class:`UnknownFormat`."""
    from cryptography.exceptions import InvalidTag

    try:
        values = json.loads(data)
        version, generation, wanted = values["format"], values["generation"], values["key"]
        if version != FORMAT:
            raise UnknownFormat(f"{where} has format {version!r}; upgrade reinstate to read it.")
        master = next((m for m in masters if m.id == wanted), None)
        if master is None:
            given = f"the given ones are {', '.join(m.id for m in masters)}" if masters else "none is given"
            raise KeyMissing(f"{where} needs key {wanted}, and {given}; add it to the store's keys in the catalogue.")
        sealed = base64.b64decode(values["sealed"], validate=True)
        text = _aead(_wrapping(master)).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _about(generation, wanted))
        body: dict[str, Any] = json.loads(text)
        return Keyring(
            generation=generation,
            current=body["current"],
            data={name: base64.b64decode(key) for name, key in body["data"].items()},
            naming=base64.b64decode(body["naming"]),
            plain=body["plain"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, InvalidTag) as error:
        raise Damaged(f"{where} is not a sound keyring; put back its copy: without it nothing can be read.") from error


def is_sealed(data: bytes) -> bool:
    return data.startswith(MAGIC)


def key_of(data: bytes) -> str:
    """Id of the data key of a sealed object."""
    return data[len(MAGIC) : HEAD_BYTES].hex()


class Sealer:
    """Seals and opens the objects of a store with an opened keyring. Safe to share between threads."""

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring
        self._names = _derived(ring.naming, b"names of pieces")
        self._ciphers = {name: _aead(key) for name, key in ring.data.items()}

    def __repr__(self) -> str:
        return f"Sealer({self.ring!r})"

    def name(self, data: bytes) -> str:
        """The name of a piece with this content: 64 hex digits, equal for equal content in this store only."""
        return hmac.digest(self._names, data, "sha256").hex()

    def seal(self, path: str, data: bytes) -> bytes:
        head = MAGIC + bytes.fromhex(self.ring.current)
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self.ring.current].encrypt(nonce, data, head + path.encode())
        return b"".join((head, nonce, sealed))

    def knows(self, data: bytes) -> bool:
        """Whether the data key of a sealed object is in the keyring."""
        return key_of(data) in self._ciphers

    def open(self, path: str, data: bytes) -> bytes:
        """The content of a sealed object. Raises :class:`ValueError` when it is cut, altered or not this object."""
        from cryptography.exceptions import InvalidTag

        if len(data) < OVERHEAD_BYTES or not self.knows(data):
            raise ValueError("it is cut, or sealed with a key of another store")
        nonce = data[HEAD_BYTES : HEAD_BYTES + NONCE_BYTES]
        view = memoryview(data)
        try:
            content: bytes = self._ciphers[key_of(data)].decrypt(
                nonce, view[HEAD_BYTES + NONCE_BYTES :], data[:HEAD_BYTES] + path.encode()
            )
            return content
        except InvalidTag:
            raise ValueError("its seal is broken") from None


def _derived(secret: bytes, purpose: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"reinstate store: " + purpose).derive(secret)


def _wrapping(master: MasterKey) -> bytes:
    return _derived(master.secret, b"sealing of keyrings")


def _about(generation: int, master: str) -> bytes:
    return f"{keyring_path(generation)} {master}".encode()


def _aead(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
