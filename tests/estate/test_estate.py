"""The estate without its slow parts: homes, status, the lock, the command, and the cache of modules."""

import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from estate import Estate, EstateError, Progress, __main__, default_cache, default_home, node
from estate.errors import EstateBusy, InstallFailed
from estate.files import locked


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path / "a home with spaces", cache=tmp_path / "cache")
    yield made
    made.down()


@pytest.mark.postgres
def test_only_what_is_asked_for_is_started(home: Estate) -> None:
    heard: list[Progress] = []
    addresses = home.up(("postgres",), progress=heard.append)
    assert [status.state for status in home.status()] == ["up", "down", "down"]
    assert (addresses.n8n_url, addresses.prefect_url, addresses.prefect_api_url) == ("", "", "")
    assert [news.stage for news in heard] == ["start", "ready"]
    assert stat.S_IMODE(home.home.stat().st_mode) & 0o007 == 0


@pytest.mark.postgres
def test_no_secret_is_shown(home: Estate) -> None:
    addresses = home.up(("postgres",))
    assert addresses.superuser_password
    assert addresses.superuser_password not in repr(addresses) + repr(home) + repr(home.cluster())


@pytest.mark.postgres
def test_a_second_up_is_quick(home: Estate) -> None:
    home.up(("postgres",))
    heard: list[Progress] = []
    home.up(("postgres",), progress=heard.append)
    assert {news.detail for news in heard} == {"was running"}


@pytest.mark.postgres
def test_the_command_starts_looks_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REINSTATE_HOME", str(tmp_path / "home"))
    assert __main__.main(["status"]) == 3
    assert __main__.main(["down"]) == 0
    Estate().up(("postgres",))
    try:
        capsys.readouterr()
        assert __main__.main(["status"]) == 3
        assert "postgres up" in capsys.readouterr().out
    finally:
        assert __main__.main(["down"]) == 0


def test_looking_at_an_estate_that_never_was_makes_nothing(tmp_path: Path) -> None:
    missing = Estate(tmp_path / "home")
    assert [status.state for status in missing.status()] == ["down", "down", "down"]
    missing.down()
    assert not missing.home.exists()


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EstateError, match="unknown part redis; choose from postgres, n8n, prefect"):
        Estate(tmp_path / "home").up(("redis",))
    assert not (tmp_path / "home").exists()


def test_homes_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REINSTATE_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("REINSTATE_CACHE", str(tmp_path / "c"))
    assert (default_home(), default_cache()) == (tmp_path / "h", tmp_path / "c")
    monkeypatch.delenv("REINSTATE_HOME")
    assert default_home().name == "reinstate"


def test_a_lock_names_its_holder_and_lets_the_next_one_in(tmp_path: Path) -> None:
    path, heard = tmp_path / "lock", []
    with locked(path, patience_s=1.0):
        with pytest.raises(EstateBusy, match=f"held by process {os.getpid()}"), locked(path, patience_s=0.1):
            raise AssertionError("two hold one lock")
        waiter = threading.Thread(target=lambda: _hold(path, heard))
        waiter.start()
        while not heard:
            time.sleep(0.01)
    waiter.join()
    assert heard[-1] == "held"


def _hold(path: Path, heard: list[str]) -> None:
    with locked(path, patience_s=5.0, waiting=heard.append):
        heard.append("held")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A lockfile that asks for nothing, so that the real npm needs no network."""
    folder = tmp_path / "host"
    folder.mkdir()
    package = {"name": "nothing", "version": "1.0.0"}
    lock = {**package, "lockfileVersion": 3, "requires": True, "packages": {"": package}}
    (folder / "package.json").write_text(json.dumps(package), encoding="utf-8")
    (folder / "package-lock.json").write_text(json.dumps(lock), encoding="utf-8")
    return folder


def test_modules_are_published_once_as_a_whole(tmp_path: Path, host: Path) -> None:
    cache = tmp_path / "cache"
    wreck = cache / "n8n" / f"{node.lockfile_key(host)}.unfinished"
    wreck.mkdir(parents=True)
    (wreck / "half").touch()
    place, seconds = node.modules(cache, lambda *_: None, host=host)
    assert seconds > 0
    assert (place / "package.json").exists()
    assert not (place / "half").exists()
    assert not wreck.exists()
    assert node.modules(cache, lambda *_: None, host=host) == (place, 0.0)


def test_another_lockfile_gets_another_place(host: Path) -> None:
    before = node.lockfile_key(host)
    (host / "package.json").write_text("{}", encoding="utf-8")
    assert node.lockfile_key(host) != before
    assert node.lockfile_key() != before


def test_a_failed_installation_is_one_line_and_publishes_nothing(tmp_path: Path, host: Path) -> None:
    package = {"name": "nothing", "version": "1.0.0", "dependencies": {"left-out": "1.0.0"}}
    (host / "package.json").write_text(json.dumps(package), encoding="utf-8")
    with pytest.raises(InstallFailed, match=r"npm ci failed; check the network and start again; .*ends: ") as caught:
        node.modules(tmp_path / "cache", lambda *_: None, host=host)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "cache" / "n8n" / node.lockfile_key(host)).exists()
