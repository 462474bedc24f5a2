"""A canary is flown again when the app was paused again: what came in between is the customers', and stays."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ledger import steps
from recovery import containment, taking_back, windows
from recovery.plan import Plan
from recovery.steps import canary
from tests.recovery.kiosk import Kiosk, expected, order

pytestmark = pytest.mark.postgres


class Killed(BaseException):
    """As ``kill -9``."""


def killed(*_: Any, **__: Any) -> Any:
    raise Killed


def with_order_5() -> dict[str, list[tuple[Any, ...]]]:
    """What must be there once one more order for tea came in."""
    wanted = expected()
    wanted["orders"] = sorted([*wanted["orders"], ("o-5", Decimal(20), "new", None, "small")])
    wanted["stock"] = [("jam", 99), ("tea", dict(wanted["stock"])["tea"] - 1)]
    return wanted


def half_resumed(kiosk: Kiosk, plan: Plan) -> None:
    """Intake is at work again and took an order; then an operator paused everything."""
    kiosk.run(plan, until="resume:2")
    kiosk.call("intake", order("5"))
    containment.contain(kiosk.open(), ["intake"], incident=plan.incident_id)


@pytest.mark.parametrize("tagged", [True, False])
def test_orders_of_a_half_resumed_app_are_not_the_canarys(kiosk: Kiosk, planned: Plan, tagged: bool) -> None:
    kiosk.run(planned, until="resume:2")
    kiosk.tagged = tagged
    kiosk.call("intake", order("5"))
    containment.contain(kiosk.open(), ["intake"], incident=planned.incident_id)
    assert kiosk.go_on(planned.incident_id)["state"] == "resumed"
    assert kiosk.rows() == with_order_5()


def test_of_a_second_canary_that_was_killed_all_is_undone_and_no_order(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_resumed(kiosk, planned)
    kiosk.tagged = False
    with monkeypatch.context() as patch:
        real = canary.clean_up

        def first_only(*given: Any, **more: Any) -> Any:
            return real(*given, **more) if more else killed()

        patch.setattr(canary, "clean_up", first_only)
        with pytest.raises(Killed):
            kiosk.go_on(planned.incident_id)
    assert any(row[0] == "canary" for row in kiosk.rows()["orders"])
    assert kiosk.go_on(planned.incident_id)["state"] == "resumed"
    assert kiosk.rows() == with_order_5()
    begun = kiosk.open().ledger.entries(recovery=planned.recovery_id, kinds=[canary.KIND])
    assert len(begun) == 2


def test_taking_back_a_killed_canary_leaves_the_fence_down_for_the_next_one(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inverse may be done by the very workflow that the canary is sent through."""
    with monkeypatch.context() as patch:
        patch.setattr(canary, "clean_up", killed)
        with pytest.raises(Killed):
            kiosk.run(planned)
    ctx = kiosk.open()

    def by_intake(*_: Any, may_write: Any = ()) -> None:
        if fenced := sorted({"intake"} - set(may_write)):
            with (
                ctx.connect("recoverer", "test") as connection,
                windows.fence_lowered(ctx, connection, planned, fenced),
            ):
                pass

    with monkeypatch.context() as patch:
        patch.setattr(taking_back, "of_own_run", by_intake)
        assert kiosk.go_on(planned.incident_id)["state"] == "resumed"
    assert kiosk.rows() == expected()


def test_canaries_of_workflows_that_share_a_role_are_told_apart(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both were flown and undone when the process died."""
    workflows = [w.model_dump(mode="json", exclude_defaults=True) for w in kiosk.app.workflows]
    workflows[1] |= {"role": "wf_intake", "canary": {"event": "paid.json", "expect": "SELECT 1 WHERE false"}}
    workflows[1]["writes"] = ["kiosk.stock"]
    kiosk.configure(workflows=workflows)
    (kiosk.home / "paid.json").write_text('{"event": "canary", "order": "none"}')

    def payment(_content: Any, _event: Any, run: str) -> dict[str, Any]:
        with kiosk.transaction("wf_intake", run) as db:
            db.execute("UPDATE kiosk.stock SET level = level - 7 WHERE sku = 'tea'")
        return {"Work": [{}]}

    kiosk.protect()
    kiosk.publish("intake", "bad")
    kiosk.call("intake", order("2"))
    kiosk.fake.handlers = {"Intake": kiosk.intake, "Payment": payment}
    plan = kiosk.plan(kiosk.caught())
    with monkeypatch.context() as patch:
        outcome = steps.outcome

        def dying(ledger: Any, recovery: str, step: str, **more: Any) -> Any:
            return killed() if step == "canary" else outcome(ledger, recovery, step, **more)

        patch.setattr(steps, "outcome", dying)
        with pytest.raises(Killed):
            kiosk.run(plan)
    assert kiosk.go_on(plan.incident_id)["state"] == "resumed"
    assert kiosk.rows()["stock"] == [("jam", 100), ("tea", 99)]
    assert [r for r in kiosk.rows()["orders"] if r[0] == "canary"] == []
