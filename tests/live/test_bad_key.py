"""A wrong key for a real n8n: one line, exit code 4, nothing changed, and the key is not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from console import exits
from tests.conftest import AppDb, RunningEstate
from tests.console.desk import Desk
from tests.snapshots import point_desk

WRONG = "not-the-key-of-this-n8n"


@pytest.fixture
def desk(tmp_path: Path, estate: RunningEstate, app_db: AppDb, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name in ("REINSTATE_CATALOG", "REINSTATE_APP"):
        monkeypatch.delenv(name, raising=False)
    for role in ("wf_intake", "wf_stock"):
        app_db.role(role)
    point_desk.build(app_db)
    made = Desk(folder=tmp_path)
    made.write(
        DESK_URL=estate.addresses.n8n_url,
        DESK_KEY=WRONG,
        DESK_INSTALLER=app_db.installer,
        DESK_CAPTURER=app_db.capturer,
        DESK_RECOVERER=app_db.recoverer,
    )
    monkeypatch.setenv("REINSTATE_HOME", str(made.home))
    return made


@pytest.mark.live
@pytest.mark.parametrize("command", [["status"], ["protect"], ["contain", "order-intake"]], ids=str)
def test_a_wrong_key_is_named_and_changes_nothing(
    desk: Desk, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert desk.run(*command) == exits.UNREACHABLE
    said = capsys.readouterr()
    [line] = [text for text in said.err.splitlines() if text.startswith("reinstate: ")]
    assert said.err.endswith(line + "\n")
    assert "key" in line
    assert "Traceback" not in said.err
    assert WRONG not in said.err
    assert said.out == ""
    assert desk.entries() == []
    assert desk.points() == []
