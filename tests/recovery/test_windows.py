"""What the recovery itself lets write counts as its own, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from recovery import private, taking_back, windows
from recovery.plan import Plan
from recovery.verification import verify
from tests.recovery.kiosk import ROLES, Kiosk

pytestmark = pytest.mark.postgres


@contextmanager
def lowered(kiosk: Kiosk, plan: Plan, *workflows: str) -> Iterator[None]:
    ctx = kiosk.open()
    with ctx.connect("recoverer", "test") as connection, windows.fence_lowered(ctx, connection, plan, workflows):
        yield


def note(kiosk: Kiosk, plan: Plan, kind: str, *workflows: str) -> None:
    ctx = kiosk.open()
    with ctx.connect("recoverer", "test") as connection:
        windows.note(ctx, connection, plan, kind, workflows)


def write(kiosk: Kiosk, workflow: str) -> None:
    with kiosk.transaction(ROLES[workflow], None) as db:
        db.execute("UPDATE kiosk.orders SET note = coalesce(note, '') || '.' WHERE id = 'h9'")


def behind_the_fence(kiosk: Kiosk, workflow: str) -> None:
    with psycopg.connect(kiosk.db.superuser) as db:
        db.execute(f"GRANT UPDATE ON kiosk.orders TO {ROLES[workflow]}".encode())
    write(kiosk, workflow)


def clean(kiosk: Kiosk, plan: Plan) -> bool:
    """Whether no write counts as late."""
    clauses = verify(kiosk.open(), incident=plan.incident_id, plan=plan).clauses
    return next(c.holds for c in clauses if c.name == "no-late-writes")


def test_a_window_inside_another_leaves_the_outer_one_open(kiosk: Kiosk, undone: Plan) -> None:
    with lowered(kiosk, undone, "intake"):
        write(kiosk, "intake")
        with lowered(kiosk, undone, "payment"):
            write(kiosk, "payment")
        write(kiosk, "intake")
    assert clean(kiosk, undone)


@pytest.mark.parametrize("workflow", ["intake", "payment"])
def test_what_is_written_after_both_windows_is_late(kiosk: Kiosk, undone: Plan, workflow: str) -> None:
    with lowered(kiosk, undone, "intake"), lowered(kiosk, undone, "payment"):
        pass
    behind_the_fence(kiosk, workflow)
    assert not clean(kiosk, undone)


def test_an_inner_window_lets_nobody_else_in(kiosk: Kiosk, undone: Plan) -> None:
    with lowered(kiosk, undone, "intake"):
        with lowered(kiosk, undone, "payment"):
            pass
        behind_the_fence(kiosk, "payment")
    assert not clean(kiosk, undone)


def test_a_window_that_a_kill_left_open_closes_when_the_same_workflows_are_fenced(kiosk: Kiosk, undone: Plan) -> None:
    note(kiosk, undone, windows.LOWERED, "intake")
    behind_the_fence(kiosk, "intake")
    with lowered(kiosk, undone, "payment"):
        pass
    behind_the_fence(kiosk, "intake")
    assert clean(kiosk, undone)
    with lowered(kiosk, undone, "intake"):
        pass
    assert clean(kiosk, undone)
    behind_the_fence(kiosk, "intake")
    assert not clean(kiosk, undone)


def test_an_inverse_by_a_workflow_of_the_same_role_leaves_the_outer_window_open(
    kiosk: Kiosk, undone: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflows = [w.model_dump(mode="json", exclude_defaults=True) for w in kiosk.app.workflows]
    kiosk.configure(workflows=[workflows[0], {**workflows[1], "role": ROLES["intake"]}])
    monkeypatch.setattr(private, "reach", lambda *_: ["payment"])
    inverse: Any = SimpleNamespace(action="do", through="payment")
    with lowered(kiosk, undone, "intake"):
        with taking_back.let_in(kiosk.open(), undone, [inverse], ["intake"]):
            write(kiosk, "intake")
        write(kiosk, "intake")
