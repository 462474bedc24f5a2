"""The story of the logic path on live n8n."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.logic_story import tell
from tests.live.n8n_story import N8nStage

pytestmark = [pytest.mark.live, pytest.mark.n8n]


def test_a_bad_version_is_contained_rolled_back_replayed_and_resumed_under_traffic(
    n8n_stage: N8nStage, tmp_path: Path
) -> None:
    tell(n8n_stage, tmp_path)
