"""The story of the logic path on live Directus."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.directus_story import DirectusStage
from tests.live.logic_story import tell

pytestmark = [pytest.mark.live, pytest.mark.directus]


def test_a_bad_version_is_contained_rolled_back_replayed_and_resumed_under_traffic(
    directus_stage: DirectusStage, tmp_path: Path
) -> None:
    tell(directus_stage, tmp_path)
