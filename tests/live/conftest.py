"""One wreck for all controls; each test starts from it afresh."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drills.order_desk import OrderDesk
from tests.conftest import RunningEstate
from tests.live.wreck import Wreck


@pytest.fixture(scope="session")
def made(estate: RunningEstate) -> Iterator[Wreck]:
    """The wreck, made once and kept aside."""
    at = estate.addresses
    desk = OrderDesk(superuser_dsn=at.superuser_dsn, n8n_url=at.n8n_url, n8n_key=at.n8n_api_key, home=estate.home)
    work = Path(tempfile.mkdtemp(prefix="reinstate-wreck-"))
    environment = pytest.MonkeyPatch()
    environment.setenv("REINSTATE_HOME", str(estate.home))
    environment.setenv("PREFECT_API_URL", at.prefect_api_url)
    wreck = Wreck(estate=estate, desk=desk, work=work)
    try:
        wreck.prepare()
        wreck.wreck()
        wreck.keep()
        yield wreck
    finally:
        environment.undo()
        shutil.rmtree(work)


@pytest.fixture
def wreck(made: Wreck) -> Wreck:
    """The wreck as it was right after the containment."""
    made.restore()
    return made
