"""The story of the logic path on live Node-RED, behind the ingress."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.logic_story import tell
from tests.live.node_red_story import NodeRedStage

pytestmark = [pytest.mark.live, pytest.mark.node_red]


def test_a_bad_version_is_contained_rolled_back_replayed_and_resumed_under_traffic(
    node_red_stage: NodeRedStage, tmp_path: Path
) -> None:
    tell(node_red_stage, tmp_path)
