"""Directories for servers that run as another user."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Like pytest's own, but outside its private root: another pytest that starts would take the right to pass away."""
    folder = Path(tempfile.mkdtemp(prefix="reinstate-test-"))
    yield folder
    shutil.rmtree(folder)
