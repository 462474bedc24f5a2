"""One wreck for all controls, each test starting from it afresh; the stages of the logic path's story."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drills.order_desk import OrderDesk
from platforms.faulty import Fault, Faulty
from recovery import context
from tests.conftest import RunningEstate, temporary_estate
from tests.live.directus_story import DirectusStage
from tests.live.n8n_story import N8nStage
from tests.live.node_red_story import NodeRedStage
from tests.live.wreck import Injector, Wreck


@pytest.fixture(scope="session")
def made() -> Iterator[Wreck]:
    """The wreck, made once in an estate of its own and kept aside. Before it, the same app lives through a harmless
    new version and a burst: the control that must stay quiet, under a watcher that does not and under one that does."""
    work = Path(tempfile.mkdtemp(prefix="reinstate-wreck-"))
    environment = pytest.MonkeyPatch()
    try:
        with temporary_estate() as estate:
            at = estate.addresses
            environment.setenv("REINSTATE_HOME", str(estate.home))
            environment.setenv("PREFECT_API_URL", at.prefect_api_url)
            environment.setenv("PREFECT_API_AUTH_STRING", at.prefect_auth)
            desk = OrderDesk(
                superuser_dsn=at.superuser_dsn, n8n_url=at.n8n_url, n8n_key=at.n8n_api_key, home=estate.home
            )
            wreck = Wreck(estate=estate, desk=desk, work=work)
            wreck.prepare()
            wreck.cry_wolf()
            wreck.prepare()
            wreck.stay_quiet()
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


@pytest.fixture(scope="session")
def n8n_stage(estate: RunningEstate) -> N8nStage:
    """The stage of the logic path's story on n8n."""
    return N8nStage(estate.addresses)


@pytest.fixture(scope="session")
def node_red_stage() -> Iterator[NodeRedStage]:
    """The stage of the logic path's story on Node-RED, in an estate of Node-RED and PostgreSQL alone."""
    with temporary_estate(("postgres", "node-red")) as running:
        yield NodeRedStage(running.addresses)


@pytest.fixture(scope="session")
def directus_stage(directus_estate: RunningEstate) -> DirectusStage:
    """The stage of the logic path's story on Directus."""
    return DirectusStage(directus_estate.addresses)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Injector]:
    """From now on the product meets one platform with these faults, whichever part of it asks."""
    real = context.open_platform
    close = Faulty.close
    shared: list[Faulty] = []

    def inject(*faults: Fault) -> Callable[[], Faulty]:
        def opened(kind: str, url: str, key: str) -> Faulty:
            if not shared:
                shared.append(Faulty(real(kind, url, key), faults))
            return shared[0]

        monkeypatch.setattr(context, "open_platform", opened)
        monkeypatch.setattr(Faulty, "close", lambda _: None)
        return lambda: shared[0]

    yield inject
    for platform in shared:
        close(platform)
