"""`reinstate notify`: shows, sends once, tests a channel, and says in its exit code what failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from console import exits
from console.main import run
from ledger import Ledger
from tests.console import desk as console_desk
from tests.incidents.notice_desk import OPENED, PROVEN
from tests.incidents.notice_receivers import Hook, running_hook


@pytest.fixture
def hook() -> Iterator[Hook]:
    with running_hook() as server:
        yield server


@pytest.fixture
def catalog(tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A desk with one channel in a home of its own, nothing of it running."""
    for name in ("REINSTATE_CATALOG", "REINSTATE_APP", "PREFECT_API_URL", "PREFECT_UI_URL"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("REINSTATE_HOME", str(home))
    secrets = {"DESK_URL": "http://127.0.0.1:9", "DESK_KEY": console_desk.KEY, "HOOK": hook.url}
    (home / "secrets.env").write_text("".join(f"{k}={v}\n" for k, v in secrets.items()))
    channels = [{"key": "desk-hook", "audience": "responders", "to": "env:HOOK"}]
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump({"apps": [{**console_desk.APP, "channels": channels}]}, sort_keys=False))
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "orders.json").write_text(json.dumps(console_desk.SUITE))
    return path


@pytest.fixture
def ledger(catalog: Path) -> Iterator[Ledger]:
    with Ledger(catalog.parent / "home" / "ledger.sqlite") as opened:
        yield opened


def tell(ledger: Ledger, *told: tuple[str, dict[str, Any]]) -> None:
    for kind, body in told:
        ledger.append(kind, app="desk", incident="INC-20261121-0001", body=body)


def notify(catalog: Path, *options: str) -> int:
    return run(["notify", "--catalog", str(catalog), *options])


def test_a_dry_run_shows_and_a_run_sends_once(
    catalog: Path, ledger: Ledger, hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(ledger, OPENED, PROVEN)
    assert notify(catalog, "--dry-run") == exits.OK
    shown = capsys.readouterr().out
    assert "Subject: [sev1] Desk: contained - INC-20261121-0001" in shown
    assert "2 would be sent" in shown
    assert hook.got == []
    assert notify(catalog) == exits.OK
    assert len(hook.got) == 2
    assert f"Subject: {hook.got[1]['title']}" in shown
    assert hook.got[1]["message"].splitlines()[0] in shown
    capsys.readouterr()
    assert notify(catalog, "--json") == exits.OK
    assert json.loads(capsys.readouterr().out) == []
    assert notify(catalog) == exits.OK
    assert "nothing is due" in capsys.readouterr().out
    assert len(hook.got) == 2


def test_what_failed_is_said_without_the_address(
    catalog: Path, ledger: Ledger, hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(ledger, OPENED)
    hook.status = 500
    assert notify(catalog, "--json") == exits.UNREACHABLE
    said = capsys.readouterr()
    [failed] = json.loads(said.out)
    assert (failed["ok"], failed["channel"], failed["gave_up"]) == (False, "desk-hook", False)
    assert notify(catalog, "--test", "desk-hook") == exits.UNREACHABLE
    said = capsys.readouterr()
    assert "channel desk-hook" in said.err
    assert "q7x9z" not in said.out + said.err


def test_a_channel_is_tested(catalog: Path, hook: Hook, capsys: pytest.CaptureFixture[str]) -> None:
    assert notify(catalog, "--test", "desk-hook", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["channel"] == "desk-hook"
    assert hook.got[0]["title"].startswith("TEST, nothing happened")
    assert notify(catalog, "--test", "nobody") == exits.USAGE
    assert "its channels are: desk-hook" in capsys.readouterr().err
    assert notify(catalog, "--test", "desk-hook", "--dry-run") == exits.USAGE


def test_an_app_without_channels_is_told_where_to_add_them(catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog.write_text(yaml.safe_dump({"apps": [console_desk.APP]}, sort_keys=False))
    assert notify(catalog) == exits.OK
    assert "add `channels:`" in capsys.readouterr().out


def test_responders_are_shown_the_ui_without_its_password(
    catalog: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(ledger, OPENED)
    monkeypatch.setenv("PREFECT_API_URL", "http://ann:hidden@127.0.0.1:4200/api")
    assert notify(catalog, "--dry-run") == exits.OK
    shown = capsys.readouterr().out
    assert "Prefect: http://127.0.0.1:4200" in shown
    assert "hidden" not in shown
