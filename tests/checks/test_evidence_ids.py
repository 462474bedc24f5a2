"""Which workflow of the platform a diagnosis reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from checks.errors import Undiagnosed
from checks.evidence import workflow_ids
from platforms.base import WorkflowInfo
from tests.checks.conftest import app_of
from tests.checks.shop_platform import IDS, NAMES, ShopPlatform

APP = app_of()


class Renamed(ShopPlatform):
    """Somebody gave the intake another name."""

    def workflows(self) -> list[WorkflowInfo]:
        return [replace(w, name="Intake v2") if w.id == IDS["intake"] else w for w in super().workflows()]


def test_by_name_where_nothing_else_is_known() -> None:
    assert workflow_ids(APP, ShopPlatform().port()) == IDS
    with pytest.raises(Undiagnosed, match=f"workflow intake: 0 workflows named {NAMES['intake']!r}"):
        workflow_ids(APP, Renamed().port())


def test_a_renamed_one_is_read_by_its_id() -> None:
    assert workflow_ids(APP, Renamed().port(), IDS) == IDS


def test_one_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(Undiagnosed, match="workflow intake: 0 workflows named"):
        workflow_ids(APP, Renamed().port(), {"payment": IDS["payment"]})
