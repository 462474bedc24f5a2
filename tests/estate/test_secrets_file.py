"""The secrets file: merged, private, and what goes in comes out."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from estate import EstateError, secrets


def test_writing_merges_with_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "home" / "secrets.env"
    secrets.write(file, {"ONE": "1", "TWO": "2"})
    secrets.write(file, {"TWO": "two=2#", "THREE": "3"})
    assert secrets.read(file) == {"ONE": "1", "TWO": "two=2#", "THREE": "3"}


def test_the_file_is_private(tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    secrets.write(file, {"ONE": "1"})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda number: secrets.write(file, {f"NAME_{number}": str(number)}), range(24)))
    assert len(secrets.read(file)) == 24


def test_ensured_secrets_are_made_once(tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    first = secrets.ensure(file, "ONE", "TWO")
    assert secrets.ensure(file, "TWO", "ONE") == first
    assert len(set(first.values())) == 2
    assert min(map(len, first.values())) >= 24


@pytest.mark.parametrize(
    ("name", "value"), [("lower", "x"), ("A B", "x"), ("ONE", ""), ("ONE", "a\nb"), ("ONE", " x"), ("ONE\n", "x")]
)
def test_what_would_not_come_back_is_refused_without_showing_it(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(EstateError, match="secret") as caught:
        secrets.write(tmp_path / "secrets.env", {name: value})
    assert value.strip() == "" or value not in str(caught.value).removeprefix(f"secret {name}")
    assert secrets.read(tmp_path / "secrets.env") == {}


def test_comments_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    file.write_text("# A=1\n\nB=2\nno equals\n", encoding="utf-8")
    assert secrets.read(file) == {"B": "2"}
