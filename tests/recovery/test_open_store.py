"""The store of the catalogue: its address, its options and its keys come from secrets and show up nowhere."""

from pathlib import Path

import pytest

from catalog.errors import SecretMissing
from catalog.models import StorePolicy
from recovery.context import open_store
from snapshots.points.errors import BadKey
from snapshots.store import encryption
from snapshots.store.store import chunk_path
from tests.recovery.kiosk import app_model
from tests.snapshots.store_desk import KEY, NEW_KEY, s3_server


def test_a_bucket_with_options_and_keys(tmp_path: Path) -> None:
    env = tmp_path / "secrets.env"
    with s3_server() as options:
        env.write_text(
            f"URL=s3://points/shop\nS3_KEY={options['key']}\nS3_SECRET={options['secret']}\n"
            f"ENDPOINT={options['endpoint_url']}\nK1={NEW_KEY}\nK2={KEY}\n"
        )
        policy = StorePolicy(
            url="env:URL",
            options={"key": "env:S3_KEY", "secret": "env:S3_SECRET", "endpoint_url": "env:ENDPOINT"},
            keys=("env:K1", "env:K2"),
        )
        store = open_store(app_model(store=policy), tmp_path, env)
        name = store.put_chunk(b"rows")
        assert encryption.is_sealed(store.backend.read(chunk_path(name)) or b"")
        assert open_store(app_model(store=policy), tmp_path, env).read_chunk(name) == b"rows"
        assert store.name == "s3://points/shop"
    shown = f"{store!r}{store.masters!r}{store.sealer()!r}{vars(store)!r}"
    assert not any(secret in shown for secret in (options["secret"], KEY, NEW_KEY))


def test_without_a_word_it_lies_beside_the_ledger_and_is_plain(tmp_path: Path) -> None:
    store = open_store(app_model(), tmp_path, tmp_path / "secrets.env")
    assert store.name == str(tmp_path / "store")
    assert store.masters == ()
    assert store.read_chunk(store.put_chunk(b"rows")) == b"rows"


def test_keys_that_are_missing_or_no_keys_are_named(tmp_path: Path) -> None:
    env = tmp_path / "secrets.env"
    env.write_text("K1=no key at all\n")
    with pytest.raises(BadKey, match="Key 1 of the store") as error:
        open_store(app_model(store={"keys": ["env:K1"]}), tmp_path, env)
    assert "no key at all" not in str(error.value)
    with pytest.raises(SecretMissing, match="K2"):
        open_store(app_model(store={"keys": ["env:K2"]}), tmp_path, env)
