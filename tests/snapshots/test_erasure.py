"""Somebody is erased: nothing of them is found any more, and nothing brings them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.snapshots import erasure_desk as desk


@pytest.mark.postgres
def test_a_person_is_gone_from_store_and_journal(app_db: Any, tmp_path: Path) -> None:
    desk.build(app_db)
    store = desk.store_at(tmp_path / "store", tmp_path)
    desk.take(app_db, store)
    desk.touch(app_db)
    desk.take(app_db, store)
    desk.write(app_db, *desk.DELETE)
    assert desk.PERSON.encode() in desk.everything(app_db, tmp_path)
    made = desk.plan(app_db, store, desk.person())
    assert made.problems == ()
    print(made)
    done = desk.erase(app_db, store)
    print(done)
    left = desk.everything(app_db, tmp_path)
    for trace in (desk.PERSON, "Ann Marsh", "A. Marsh", "gift for ann", "lamp"):
        assert trace.encode() not in left, trace
