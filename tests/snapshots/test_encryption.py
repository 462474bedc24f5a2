"""Encryption at rest: names that tell nothing, keys that turn, and errors that name a key and never show it."""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_desk import KEY, KINDS, NEW_KEY, Place, place, s3_server

from snapshots.points.errors import BadKey, Damaged, KeyMissing, NotEncrypted
from snapshots.store import encryption, rotation
from snapshots.store.store import Store, chunk_path, manifest_path

CONTENT = b"secret rows " * 50


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    with s3_server() as options:
        yield options


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest, tmp_path: Path, s3: dict[str, Any]) -> Place:
    return place(request.param, tmp_path, s3, keys=(KEY,))


def _fill(store: Store, point_id: str = "p1", content: bytes = CONTENT) -> dict[str, Any]:
    piece = {"sha256": store.put_chunk(content), "rows": 1, "bytes": len(content)}
    delta = {"sha256": store.put_chunk(content + b"delta"), "rows": 1, "bytes": 1}
    segment = {"sha256": store.put_chunk(content + b"segment"), "rows": 1, "bytes": 1, "table": "t"}
    tables = [{"name": "t", "chunks": [piece], "deltas": [delta]}]
    point = {"id": point_id, "tables": tables, "segments": [segment]}
    store.publish("desk", point_id, point)
    return point


def _contents(store: Store, point_id: str = "p1") -> list[bytes]:
    point = store.read_manifest("desk", point_id)
    table = point["tables"][0]
    return [store.read_chunk(p["sha256"]) for p in (*table["chunks"], *table["deltas"], *point["segments"])]


EXPECTED = [CONTENT, CONTENT + b"delta", CONTENT + b"segment"]


def _raw(store: Store) -> dict[str, bytes]:
    return {s.path: store.backend.read(s.path) or b"" for s in store.walk()}


def test_nothing_can_be_read_or_guessed_without_the_key(where: Place) -> None:
    store = where.open()
    _fill(store)
    store.replace_object("holds/desk/p1.json", b"secret reason")
    raw = _raw(store)
    assert len(raw) == 6
    text = b"".join(raw.values()) + "".join(raw).encode()
    for word in (b"secret", b"tables", b"sha256", hashlib.sha256(CONTENT).hexdigest().encode(), base64.b64decode(KEY)):
        assert word not in text
    for path, data in raw.items():
        assert encryption.is_sealed(data) is not path.startswith("keys/")
    elsewhere = Store(f"memory://{os.urandom(4).hex()}", keys=[KEY])
    assert elsewhere.put_chunk(CONTENT) != store.put_chunk(CONTENT), "names differ from store to store"


def test_sealing_twice_gives_another_nonce_and_the_same_name(where: Place) -> None:
    sealer = where.open().sealer(create=True)
    assert sealer is not None
    one, other = sealer.seal("a", CONTENT), sealer.seal("a", CONTENT)
    assert one != other
    assert sealer.open("a", one) == sealer.open("a", other) == CONTENT
    assert sealer.name(CONTENT) == sealer.name(CONTENT)
    with pytest.raises(ValueError, match="seal is broken"):
        sealer.open("b", one)


def test_a_missing_or_wrong_key_is_named_by_its_id(where: Place) -> None:
    _fill(where.open())
    right, wrong = (encryption.master_keys([k])[0].id for k in (KEY, NEW_KEY))
    for keys, said in (((NEW_KEY,), f"needs key {right}.*given ones are {wrong}"), ((), f"needs key {right}.*none is")):
        store = Store(where.url, options=where.options, keys=keys)
        for act in (lambda s: s.read_manifest("desk", "p1"), lambda s: s.put_chunk(b"x"), lambda s: _fill(s, "p2")):
            with pytest.raises(KeyMissing, match=said) as error:
                act(store)
            shown = f"{error.value}{store!r}{store.masters!r}{error.value.__cause__!r}"
            assert not any(k in shown for k in (KEY, NEW_KEY, repr(base64.b64decode(KEY))))
    assert where.open().point_ids("desk") == ["p1"]


@pytest.mark.parametrize("text", ["", "short", "é" * 44, base64.b64encode(b"x" * 31).decode(), "hunter2hunter2hunter2"])
def test_what_is_no_key_is_refused_unseen(text: str) -> None:
    with pytest.raises(BadKey, match="Key 2 of the store") as error:
        Store("memory://x", keys=[KEY, text])
    assert not text or text not in str(error.value)


def test_the_keyring_is_sealed_too(where: Place) -> None:
    _fill(where.open())
    path = encryption.keyring_path(1)
    good = where.open().backend.read(path) or b""
    values = json.loads(good)
    for change in ({"generation": 2}, {"sealed": values["sealed"][:-8] + "AAAAAAA="}, {"sealed": 7}, {"format": None}):
        where.open().backend.replace(path, json.dumps({**values, **change}).encode())
        with pytest.raises((Damaged, encryption.UnknownFormat), match=path):
            _contents(where.open())
    where.open().backend.replace(path, good)
    assert _contents(where.open()) == EXPECTED


def test_plain_objects_in_an_encrypted_store_are_not_believed(where: Place) -> None:
    store = where.open()
    _fill(store)
    forged = Store(f"memory://{os.urandom(4).hex()}")
    _fill(forged, "p9", b"forged")
    for path, data in _raw(forged).items():
        store.backend.create(path, data)
    assert _contents(where.open()) == EXPECTED
    with pytest.raises(Damaged, match="not encrypted although the store is"):
        where.open().read_manifest("desk", "p9")
    with pytest.raises(Damaged, match="not encrypted although the store is"):
        where.open().read_chunk(hashlib.sha256(b"forged").hexdigest())


@pytest.mark.parametrize("everything", [False, True])
def test_a_new_key_opens_what_the_old_one_sealed(where: Place, everything: bool) -> None:
    store = where.open()
    point = _fill(store)
    before = _raw(store)
    done = rotation.rotate(where.open(NEW_KEY, KEY), everything=everything)
    assert (done.generation, done.encrypted, done.sealed) == (2, False, 4 if everything else 0)
    assert done.key == encryption.master_keys([NEW_KEY])[0].id
    new = where.open(NEW_KEY)
    assert _contents(new) == EXPECTED
    assert new.read_manifest("desk", "p1") == point
    assert new.put_chunk(CONTENT) == point["tables"][0]["chunks"][0]["sha256"], "what is there is not written again"
    after = _raw(new)
    kept = {p for p, data in after.items() if before.get(p) == data}
    assert len(kept) == (0 if everything else 4)
    with pytest.raises(KeyMissing, match=done.key):
        where.open(KEY).read_manifest("desk", "p1")
    _fill(store, "p2", b"by one who still has the earlier keyring in memory")
    assert len(_contents(where.open(NEW_KEY), "p2")) == 3
    old_keys = {encryption.key_of(d) for p, d in before.items() if not p.startswith("keys/")}
    fresh = where.open(NEW_KEY)
    written = fresh.backend.read(chunk_path(fresh.put_chunk(b"written after the rotation"))) or b""
    assert encryption.key_of(written) not in old_keys
    assert where.open(NEW_KEY).sealer() is not None


def test_one_who_reads_with_an_earlier_keyring_looks_again(where: Place) -> None:
    reader = where.open(NEW_KEY, KEY)
    _fill(reader)
    rotation.rotate(where.open(NEW_KEY, KEY), everything=True)
    assert _contents(reader) == EXPECTED


def test_a_plain_store_is_encrypted_by_a_rotation(where: Place) -> None:
    plain = Store(where.url, options=where.options)
    _fill(plain)
    _fill(plain, "p2", b"other ")
    plain.replace_object("holds/desk/p1.json", b"why")
    for act in (lambda s: s.read_manifest("desk", "p1"), lambda s: s.put_chunk(b"x")):
        with pytest.raises(NotEncrypted, match="reinstate store rotate"):
            act(where.open())
    done = rotation.rotate(where.open())
    assert (done.encrypted, done.sealed, done.removed) == (True, 9, 6)
    store = where.open()
    assert _contents(store) == EXPECTED
    assert store.read_object("holds/desk/p1.json") == b"why"
    assert all(encryption.is_sealed(d) is not p.startswith("keys/") for p, d in _raw(store).items())
    assert hashlib.sha256(CONTENT).hexdigest() not in "".join(_raw(store))
    with pytest.raises(KeyMissing, match="none is given"):
        _fill(plain, "p3")
    assert rotation.state(where.open()) == "encrypted"


def test_a_rotation_that_dies_anywhere_is_run_again(tmp_path: Path) -> None:
    """Dies before its nth change of the store, for every n: always readable, and the second run finishes."""
    died = 0
    for plain in (False, True):
        for deadly in range(1, 80):
            where = place("local", tmp_path, {}, keys=(KEY,))
            _fill(Store(where.url) if plain else where.open())
            store = where.open(NEW_KEY, KEY)
            if not _dying(store, deadly):
                break
            died += 1
            if not plain:
                assert _contents(where.open(NEW_KEY, KEY)) == EXPECTED
            for lock in (Path(where.url) / "locks").glob("*"):
                lock.unlink()  # the process lives on; a dead one's announcement would not count
            rotation.rotate(where.open(NEW_KEY, KEY), everything=True)
            done = where.open(NEW_KEY)
            assert _contents(done) == EXPECTED
            assert rotation.state(done) == "encrypted"
            raw = _raw(done)
            assert all(encryption.is_sealed(d) is not p.startswith("keys/") for p, d in raw.items())
            assert len([p for p in raw if p.startswith("keys/")]) == 1
    assert died > 15


def _dying(store: Store, deadly: int) -> bool:
    calls = 0

    def counted(real: Any) -> Any:
        def call(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= deadly:
                raise MemoryError("power is gone")
            return real(*args)

        return call

    backend: Any = store.backend
    for name in ("create", "replace", "remove"):
        setattr(backend, name, counted(getattr(backend, name)))
    try:
        rotation.rotate(store, everything=True)
    except MemoryError:
        return True
    return False


def test_a_path_of_a_point_is_part_of_its_seal(where: Place) -> None:
    """A manifest that somebody copied to another name is no second point."""
    store = where.open()
    _fill(store)
    store.backend.create(manifest_path("desk", "p2"), store.backend.read(manifest_path("desk", "p1")) or b"")
    with pytest.raises(Damaged, match=r"p2\.json.*seal"):
        where.open().read_manifest("desk", "p2")
