"""References become values at the last moment, and no error ever shows one."""

from pathlib import Path

import pytest

from catalog.errors import SecretMissing
from catalog.secrets import resolve

VALUE = "correct horse battery staple"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    env = tmp_path / "secrets.env"
    env.write_text(f"# comment\n\nSHOP_KEY = {VALUE}\nOTHER=a=b=c\n")
    assert resolve("env:SHOP_KEY", env, environ={}) == VALUE
    assert resolve("env:SHOP_KEY", env, environ={"SHOP_KEY": "other"}) == "other"
    assert resolve("env:OTHER", env, environ={}) == "a=b=c"


def test_the_processs_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", VALUE)
    assert resolve("env:SHOP_KEY") == VALUE


def test_files_lose_only_their_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{VALUE} \n")
    assert resolve(f"file:{tmp_path / 'key'}", None) == f"{VALUE} "
    assert resolve("file:key", tmp_path / "secrets.env") == f"{VALUE} "


@pytest.mark.parametrize("ref", ["env:SHOP_KEY", "env:EMPTY", "file:nowhere", "file:folder"])
def test_a_missing_secret_names_reference_app_and_next_step(tmp_path: Path, ref: str) -> None:
    env = tmp_path / "secrets.env"
    env.write_text(f"EMPTY=\nOTHER={VALUE}\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SecretMissing) as caught:
        resolve(ref, env, app="shop", environ={"ANOTHER": VALUE})
    text = str(caught.value)
    assert text.startswith(f"app 'shop': secret {ref} is missing or empty. Next: ")
    assert VALUE not in text
    assert "\n" not in text


@pytest.mark.parametrize("value", [VALUE, "", "env:", "vault:x"])
def test_a_value_in_place_of_a_reference_is_not_repeated(value: str) -> None:
    with pytest.raises(SecretMissing, match="not given as a reference") as caught:
        resolve(value)
    assert VALUE not in str(caught.value)
