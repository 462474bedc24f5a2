"""A replayed event may call a workflow that is paused with its caller: private copies call private copies, what they
write belongs to the event, and no paused workflow is let in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

from platforms.base import RunState
from recovery import private
from recovery.definitions import known_good
from recovery.errors import Refused
from recovery.steps import replay
from snapshots import roles as product_roles
from tests.recovery.kiosk import ROLES, TABLES, Kiosk, definition, expected
from tests.recovery.test_replay_once import Killed

pytestmark = pytest.mark.postgres
ROLE = "wf_kiosk_count"
CALLED = {"name": "Called", "type": "n8n-nodes-base.executeWorkflowTrigger", "typeVersion": 1, "parameters": {}}


def call(workflow_id: str) -> dict[str, Any]:
    target = {"workflowId": {"__rl": True, "mode": "list", "value": workflow_id}}
    return {"name": "Call", "type": "n8n-nodes-base.executeWorkflow", "typeVersion": 1.2, "parameters": target}


def with_nodes(content: Mapping[str, Any], *nodes: Mapping[str, Any]) -> dict[str, Any]:
    return {**content, "nodes": [*content["nodes"], *nodes]}


class Counting:
    """The kiosk whose intake, as it should be, has every order counted by another workflow; the bad one forgets to.
    ``failing`` is how many orders fail from now on, after they were counted."""

    def __init__(self, kiosk: Kiosk) -> None:
        self.kiosk = kiosk
        self.failing = 0
        self.fake = kiosk.fake
        self._configure()
        kiosk.db.role(ROLE)
        with psycopg.connect(kiosk.db.superuser) as connection:
            connection.execute(f"GRANT USAGE ON SCHEMA kiosk TO {ROLE}".encode())
            connection.execute(f"GRANT SELECT, UPDATE ON kiosk.stock TO {ROLE}".encode())
            connection.execute("INSERT INTO kiosk.stock VALUES ('counted', 0)")
            workflow_roles = (*ROLES.values(), ROLE)
            granted = product_roles.sql(database=kiosk.db.name, tables=TABLES, workflow_roles=workflow_roles)
            connection.execute(granted.encode())
        self.fake.handlers = {"Intake": self.intake, "Payment": kiosk.payment, "Count": self.count}
        kiosk.ids["count"] = self.fake.add(with_nodes(definition("Count", "good"), CALLED), active=True)
        calling = with_nodes(definition("Intake", "good"), call(kiosk.ids["count"]))
        self.fake.save(kiosk.ids["intake"], calling)
        self.fake.activate(kiosk.ids["intake"])

    def _configure(self) -> None:
        app = self.kiosk.app.model_dump(mode="json", exclude_none=True)
        intake, payment = app["workflows"]
        count = {
            "key": "count",
            "name": "Count",
            "role": ROLE,
            "trigger": {"kind": "manual"},
            "writes": ["kiosk.stock.level"],
            "owner": "ada",
            "deputy": "grace",
        }
        intake["downstream"] = ["payment", "count"]
        self.kiosk.configure(workflows=[intake, payment, count])

    def intake(self, content: Mapping[str, Any], event: Mapping[str, Any], run: str) -> dict[str, Any]:
        outputs = self.kiosk.intake(content, event, run)
        for node in content["nodes"]:
            if node["name"] == "Call":
                called = self.fake.call(node["parameters"]["workflowId"]["value"], event)
                if called.state is not RunState.SUCCESS:
                    raise ValueError("it could not be counted")
                if self.failing:
                    self.failing -= 1
                    raise ValueError("the last step failed")
        return outputs

    def count(self, _content: Mapping[str, Any], _event: Mapping[str, Any], run: str) -> dict[str, Any]:
        with self.kiosk.transaction(ROLE, run) as db:
            db.execute("UPDATE kiosk.stock SET level = level + 1 WHERE sku = 'counted'")
        return {"Work": [{}]}

    def right(self) -> bool:
        """Whether everything is as it must be after the recovery: three orders, each counted once."""
        wanted = expected()
        wanted["stock"] = sorted([*wanted["stock"], ("counted", 3)])
        return self.kiosk.rows() == wanted and not self.kiosk.copies


@pytest.fixture
def counting(kiosk: Kiosk) -> Iterator[Counting]:
    made = Counting(kiosk)
    yield made
    with psycopg.connect(kiosk.db.superuser) as connection:
        connection.execute(f"DROP OWNED BY {ROLE}".encode())


def test_a_replayed_event_calls_a_copy_of_the_paused_workflow_once(counting: Counting) -> None:
    kiosk = counting.kiosk
    incident = kiosk.wreck()
    assert not {w.name for w in counting.fake.workflows() if w.active}
    before = {r.id for r in counting.fake.runs(kiosk.ids["count"])}
    kiosk.recover(incident)
    assert counting.right()
    assert {w.name for w in counting.fake.workflows() if w.active} == {"Intake", "Payment", "Count"}
    assert {r.id for r in counting.fake.runs(kiosk.ids["count"])} == before, "the paused one itself was let in"


def test_what_a_failed_attempt_had_another_workflow_write_is_undone_with_it(counting: Counting) -> None:
    incident = counting.kiosk.wreck()
    counting.failing = 2
    counting.kiosk.recover(incident)
    assert counting.right()


@pytest.mark.parametrize("tagged", [True, False])
def test_it_is_undone_too_where_the_process_died_before_it_could(counting: Counting, tagged: bool) -> None:
    kiosk = counting.kiosk
    incident = kiosk.wreck()
    counting.failing = 1
    kiosk.tagged = tagged

    def dying(*_: Any) -> None:
        raise Killed

    plan = kiosk.plan(incident)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "revert", dying)
        with pytest.raises(Killed):
            kiosk.run(plan)
    counted = dict(kiosk.rows()["stock"])["counted"]
    assert counted == 2, "the attempt that failed was not counted"
    kiosk.go_on(incident)
    assert counting.right()


def test_copies_are_found_again_by_another_process(counting: Counting) -> None:
    kiosk = counting.kiosk
    plan = kiosk.plan(kiosk.wreck())
    kiosk.run(plan, until="replay")
    first, again = (private.of_plan(kiosk.open(), plan, "intake") for _ in range(2))
    assert first == again
    assert first.reach == ("intake", "count")
    ctx = kiosk.open()
    assert private.reach(ctx, ["intake"], lambda key: known_good(ctx, plan, key), plan.contained) == ["count", "intake"]
    assert private.reach(ctx, ["intake"], lambda key: known_good(ctx, plan, key), ["intake"]) == ["intake"]
    private.closed(ctx, first)
    assert not kiosk.copies


def test_workflows_that_call_one_another_in_a_circle_are_refused_by_name(counting: Counting) -> None:
    kiosk = counting.kiosk
    circle = with_nodes(definition("Count", "good"), CALLED, call(kiosk.ids["intake"]))
    counting.fake.save(kiosk.ids["count"], circle)
    ctx = kiosk.open()

    def saved(key: str) -> Any:
        return ctx.platform.draft_version(kiosk.ids[key])

    with pytest.raises(Refused, match=r"workflow intake: it calls itself \(intake -> count -> intake\)"):
        private.opened(ctx, "intake", saved, ["intake", "count"])
    with pytest.raises(Refused, match="intake"):
        private.reach(ctx, ["intake"], saved, ["intake", "count"])
