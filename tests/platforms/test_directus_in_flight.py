"""What a pause asks Directus first: what is in flight."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from platforms.base import RunState
from platforms.directus import Directus

IN_FLIGHT = [s for s in RunState if s.in_flight]


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def directus(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Directus]:
    real = httpx.Client

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"data": []})

    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(httpx, "Client", lambda **options: real(**{**options, "transport": transport}))
    platform = Directus("http://directus.test", "hush")
    yield platform
    platform.close()


def test_what_never_shows_is_not_looked_for(directus: Directus, asked: list[str]) -> None:
    assert directus.runs(states=IN_FLIGHT) == []
    assert directus.runs("flow", states=[RunState.RUNNING]) == []
    assert asked == []


@pytest.mark.parametrize("states", [[], [RunState.ERROR], [RunState.RUNNING, RunState.ERROR]], ids=len)
def test_what_ended_is(directus: Directus, asked: list[str], states: list[RunState]) -> None:
    assert directus.runs(states=states) == []
    assert asked == ["/revisions"]
