"""The platforms of the contract suite. Each test runs on all of them; a live one is a marker of its own.

The in-memory platform also plays two that can do less, with the habits of Node-RED and of Directus, so that what the
suite asks of a platform without a capability is tested on every machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from platforms.fake import EVERYTHING, FLOW_ENGINE, FORGETFUL
from tests.contract import fake_bench
from tests.contract.bench import SHORT_S, Bench, Scene

IN_MEMORY = {"fake": EVERYTHING, "fake-forgetful": FORGETFUL, "fake-flow-engine": FLOW_ENGINE}
LIVE = {"n8n": "n8n_bench", "node-red": "node_red_bench", "directus": "directus_bench"}
"""Where the bench of each live platform is: a module with ``opened(request)``, a context manager."""


def live(kind: str) -> Any:
    return pytest.param(kind, marks=[pytest.mark.live, getattr(pytest.mark, kind.replace("-", "_"))])


def _opened(kind: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    with importlib.import_module(f"tests.contract.{LIVE[kind]}").opened(request) as bench:
        yield bench


@pytest.fixture(scope="session")
def n8n_bench(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield from _opened("n8n", request)


@pytest.fixture(scope="session")
def node_red_bench(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield from _opened("node-red", request)


@pytest.fixture(scope="session")
def directus_bench(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield from _opened("directus", request)


@pytest.fixture(params=[*IN_MEMORY, *(live(kind) for kind in LIVE)])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The suite's stage, once per platform."""
    if request.param in IN_MEMORY:
        with fake_bench.opened(IN_MEMORY[request.param]) as bench:
            yield from _staged(bench, short_s=0.2)
    else:
        yield from _staged(request.getfixturevalue(LIVE[request.param]))


@pytest.fixture
def n8n_scene(n8n_bench: Any) -> Iterator[Scene]:
    """For what only n8n has."""
    yield from _staged(n8n_bench)


@pytest.fixture
def node_red_scene(node_red_bench: Any) -> Iterator[Scene]:
    """For what only Node-RED has."""
    yield from _staged(node_red_bench)


def _staged(bench: Bench, *, short_s: float = SHORT_S) -> Iterator[Scene]:
    stage = Scene(bench, short_s=short_s)
    yield stage
    stage.clean()
