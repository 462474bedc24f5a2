"""The plan's page: everything an operator decides by is on it, in words, and nothing on it can be forged."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from markdown_it import MarkdownIt

from catalog.models import App
from recovery import outline, plan_page
from recovery.plan import Compensation, Event, Mode, Plan, Publication, RunSelection, TableEffect
from tests.console.desk import APP

HOSTILE = "<b>x</b> | **all safe** `y`\n# Approved"


def app(**fields: Any) -> App:
    return App.model_validate({**APP, "objectives": {"rto_s": 300, "rpo_s": 0}, "caps": {"drift_rows": 7}, **fields})


def plan(mode: Mode = Mode.BOTH, **fields: Any) -> Plan:
    logic_only = mode is Mode.LOGIC
    run = {"workflow": "order-intake", "role": "wf_intake", "xids": (1,), "attribution": "exact"}
    made = {
        "recovery_id": "R1-INC-20261121-0001",
        "incident_id": "INC-20261121-0001",
        "app": "desk",
        "mode": mode,
        "policy": "non-conflicting-only",
        "made_at": "2026-11-21T03:00:00.123456+00:00",
        "point_id": "20261121T010000.000000Z-abcd",
        "publications": ()
        if mode is Mode.DATA
        else (
            Publication(
                workflow="order-intake", platform_id="9", from_version="b" * 64, to_version="a" * 64, source="point"
            ),
        ),
        "good_versions": {"order-intake": "a" * 64},
        "selection": ()
        if logic_only
        else (
            RunSelection(**run, run_id="7", why="bad-version"),
            RunSelection(**run, run_id="8", why="bad-version"),
            RunSelection(**run, run_id="9", why="interrupted"),
        ),
        "carried_xids": () if logic_only else (5, 6),
        "tables": ("shop.customers", "shop.orders"),
        "effects": ()
        if logic_only
        else (
            TableEffect(table="shop.orders", delete=2, update=600, insert=1, merged=50, table_rows=10_000),
            TableEffect(table="shop.customers", delete=0, update=0, insert=0, merged=0, table_rows=400),
        ),
        "conflicts": {} if logic_only else {"later-same-column": 4, "referenced": 1},
        "suspects": 0 if logic_only else 3,
        "events": ()
        if logic_only
        else tuple(Event(workflow="order-intake", key=str(n), run_id="7", order=n) for n in range(12)),
        "contained": ("order-intake",),
        "active_before": ("order-intake", "stock-sync"),
        "steps": outline.steps(
            mode,
            published=() if mode is Mode.DATA else ("order-intake",),
            contained=("order-intake",),
            resume_order=(),
            replayed=("order-intake",),
            canaries=("order-intake",),
            events=0 if logic_only else 12,
            carried=0 if logic_only else 2,
        ),
        "notes": ("run 4 of order-intake has no event key; a person must look at its input",),
    }
    return Plan.model_validate({**made, **fields})


def words(page: str) -> str:
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    return " ".join(" ".join(c.content for t in tokens for c in t.children or ()).split())


def holds(page: str, part: str) -> bool:
    return re.sub(r"\s+", "", part) in re.sub(r"\s+", "", words(page))


def test_everything_that_decides_is_on_the_page() -> None:
    made = plan()
    page = plan_page.markdown(made, app())
    for part in (
        "Plan to bring back Desk: workflows and data",
        "Nothing has been changed yet.",
        "Paused and cut off from the database: order-intake.",
        "At the end the app works again.",
        "603 12 5 3",
        f"Publish version {'a' * 12} of order-intake",
        "Take back what 3 runs wrote (2 ran the bad version, 1 were interrupted by the pause): 603 rows.",
        "Send 12 events from outside through the good version again, once each.",
        "Put 2 edits of people back",
        "Run the suites in checks",
        "If they do not, stop here, paused.",
        "Resume order-intake. If a detector fires, pause again.",
        f"order-intake {'b' * 12} {'a' * 12} recovery point 20261121T010000.000000Z-abcd",
        "shop.orders 10,000 2 600 1 50",
        f"order-intake 12 {'a' * 12}",
        "A later legitimate edit of the same field was kept: 4 rows",
        "Other rows refer to a row that was to go: 1 row",
        "Rows in conflict are left as they are, and listed (policy non-conflicting-only).",
        "3 later writes may have used a damaged value.",
        "It does not touch stock-sync.",
        "It does not write to shop.customers",
        "what left the database",
        "run 4 of order-intake has no event key",
        "Rows removed 2 5,000",
        "Largest share of a table removed 0.02% 20%",
        "Rows changed in all 603 100,000",
        "counted again under lock 7",
        "Made 2026-11-21 03:00:00 UTC",
        "an approval counts only for 60 min after the plan was shown",
        "within 5 min of the first wrong write",
        made.hash,
        "Rejecting changes nothing: the app stays paused",
    ):
        assert holds(page, part), part
    assert "shop.customers`" in page
    assert not re.search(r"shop.customers\W+400", page), "tables without an effect only fill the page"


@pytest.mark.parametrize(
    ("mode", "said", "unsaid"),
    [
        (Mode.LOGIC, ["workflows only", "still paused", "It does not change a row"], ["Rows removed", "suspect"]),
        (Mode.DATA, ["data only", "still paused", "It does not change a workflow"], ["Known good from", "canary"]),
    ],
)
def test_half_a_recovery_says_that_the_app_stays_paused(mode: Mode, said: list[str], unsaid: list[str]) -> None:
    page = plan_page.markdown(plan(mode), app())
    assert all(holds(page, part) for part in said)
    assert not any(holds(page, part) for part in unsaid)


def test_nothing_to_worry_about_is_said_too() -> None:
    page = plan_page.markdown(plan(conflicts={}, suspects=0, effects=(), events=(), selection=()), app())
    assert holds(page, "No conflict: no later work disagrees")
    assert holds(page, "No suspect")
    assert holds(page, "No row is changed.")
    assert holds(page, "Take back nothing: 0 rows")


def outside(**changes: Any) -> Compensation:
    given = {"workflow": HOSTILE, "run_id": "1", "step": HOSTILE, "inverse": "compensable", "action": "do", "key": "k"}
    return Compensation.model_validate({**given, **changes})


def test_what_a_person_must_do_is_read_before_the_decision() -> None:
    ours = {"workflow": "order-intake", "step": "charge"}
    made = plan(
        notes=(
            "run 4 of order-intake has no event key; a person must look at its input",
            "The platform lists no runs; events that the ingress passed on stand in for them.",
        ),
        compensations=(
            outside(**ours, kind="http", critical=False),
            outside(**ours, run_id="2", action="manual", why="the run was cut off", manual="refund it", again=True),
            outside(**ours, run_id="3", action="settled", why="taken back by R1"),
        ),
    )
    page = plan_page.markdown(made, app())
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings.index("## A person must look") < headings.index("## Rows")
    assert headings.index("## What this platform cannot do, and what stands in for it") > headings.index("## Rows")
    for part in (
        "order-intake charge 1 a call to another system go on; it is left to a person",
        "order-intake charge 2 the run was cut off refund it",
        "Taken back before, and not taken back twice: 1 step.",
        "The events of 1 of these are sent again",
        "It takes back nothing else that left the database",
    ):
        assert holds(page, part), part


def test_no_name_in_a_plan_breaks_the_page() -> None:
    step = {"id": "canary", "kind": "canary", "title": HOSTILE}
    resume = {"id": "resume:1", "kind": "resume", "title": "x", "params": {"workflows": [HOSTILE]}}
    publish = {"id": "publish:x", "kind": "publish", "title": HOSTILE, "params": {"workflow": HOSTILE}}
    made = plan(
        incident_id=HOSTILE,
        contained=(HOSTILE,),
        notes=(HOSTILE,),
        conflicts={HOSTILE: 1},
        tables=(HOSTILE,),
        made_at=HOSTILE,
        point_id=HOSTILE,
        events=(Event(workflow=HOSTILE, key="k", run_id="1", order=1),),
        steps=(step, resume, publish),
        compensations=(
            outside(action="do", kind="http", through=HOSTILE),
            outside(action="manual", why=HOSTILE, manual=HOSTILE, run_id=HOSTILE, again=True),
        ),
    )
    page = plan_page.markdown(made, app(title=HOSTILE))
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    assert not {t.type for t in tokens} & {"html_block", "fence", "code_block", "hr"}
    assert "html_inline" not in {c.type for t in tokens for c in t.children or ()}
    strong = [t.content for t in tokens if t.type == "inline" and "**all safe**" in t.content]
    assert strong == []
    headings = [after.content for t, after in pairwise(tokens) if t.type == "heading_open"]
    assert "Approved" not in headings


@pytest.mark.parametrize("mode", list(Mode))
def test_the_short_form_fits_above_the_decision(mode: Mode) -> None:
    made = plan(mode)
    said = plan_page.brief(made, app(), whole="http://127.0.0.1/plan")
    assert len(said.splitlines()) <= 16
    assert "Nothing has been changed yet" in said
    assert made.hash[:12] in said
    assert "[The whole plan](http://127.0.0.1/plan)" in said
    assert not re.search(r"^#", said, re.MULTILINE)
    assert all(e.table in said for e in made.effects if e.delete or e.update or e.insert)
