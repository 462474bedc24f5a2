"""A browser per test, and the camera for the pictures of the documentation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser import chromium
from tests.browser.pages import Camera


@pytest.fixture
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """The one tab of a fresh browser. What it showed when a test failed is kept in ``tmp_path``."""
    with chromium.browser() as context:
        tab = context.pages[0]
        before = request.session.testsfailed
        yield tab
        if request.session.testsfailed > before:
            tab.screenshot(path=tmp_path / "last.png")


@pytest.fixture
def camera() -> Camera:
    """Takes pictures when $REINSTATE_PICTURES names a folder (`make pictures`)."""
    folder = os.environ.get("REINSTATE_PICTURES")
    return Camera(folder=Path(folder) if folder else None)
