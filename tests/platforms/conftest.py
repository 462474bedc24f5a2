"""What tests of one adapter share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from platforms.n8n import N8n


@pytest.fixture
def n8n(host: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[N8n]:
    """n8n's adapter before the ``host`` of the test module, which answers for n8n."""
    real = httpx.Client
    transport = httpx.MockTransport(host.answer)
    monkeypatch.setattr(httpx, "Client", lambda **options: real(**{**options, "transport": transport}))
    platform = N8n("http://n8n.test", "key")
    yield platform
    platform.close()
