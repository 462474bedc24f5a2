"""The desk of the command line's tests, with or without a database behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from estate import ports
from tests.conftest import AppDb
from tests.console.desk import KEY, Desk
from tests.snapshots import point_desk


@pytest.fixture
def nobody() -> str:
    """``host:port`` on the loopback where nothing listens."""
    return f"127.0.0.1:{ports.choose()}"


@pytest.fixture
def desk(tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Everything in place but the servers: neither platform nor database answers."""
    for name in ("REINSTATE_CATALOG", "REINSTATE_APP", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    made = Desk(folder=tmp_path)
    dsn = f"postgresql://{{}}:test-{{}}@{nobody}/desk"
    made.write(
        DESK_URL=f"http://{nobody}",
        DESK_KEY=KEY,
        DESK_INSTALLER=dsn.format("installer", "installer"),
        DESK_CAPTURER=dsn.format("capturer", "capturer"),
        DESK_RECOVERER=dsn.format("recoverer", "recoverer"),
    )
    monkeypatch.setenv("REINSTATE_HOME", str(made.home))
    return made


@pytest.fixture
def live_desk(desk: Desk, app_db: AppDb) -> Desk:
    """The same over a real database with the journal installed."""
    for role in ("wf_intake", "wf_stock"):
        app_db.role(role)
    point_desk.build(app_db)
    desk.write(DESK_INSTALLER=app_db.installer, DESK_CAPTURER=app_db.capturer, DESK_RECOVERER=app_db.recoverer)
    return desk
