"""What the scenarios name exists and fits together: modes, files, workflows, roles, playbooks, thresholds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from catalog.load import load
from drills.errors import DrillError
from drills.modes import MODES
from drills.needed import NEEDED, NEEDED_BY, shortfalls
from drills.order_desk import EXAMPLE, WORKFLOW_ROLES, definition
from drills.scenarios import SCENARIOS, Scenario, scenario

APP = load(EXAMPLE).apps[0]
EACH = pytest.mark.parametrize("chosen", SCENARIOS.values(), ids=lambda s: s.key)
CREDENTIALS = {f"order-desk {role}": f"id of {role}" for role in WORKFLOW_ROLES.values()}


def postgres_nodes(content: dict[str, Any]) -> dict[str, str]:
    return {n["name"]: n["parameters"]["query"] for n in content["nodes"] if n["type"] == "n8n-nodes-base.postgres"}


@EACH
def test_a_scenario_publishes_a_new_version_of_its_own_workflow(chosen: Scenario) -> None:
    good = definition(f"workflows/{chosen.workflow}.json", CREDENTIALS)
    for name, harmful in ((chosen.mode, True), (chosen.negative_mode, False)):
        mode = MODES[name]
        assert mode.harmful is harmful
        assert mode.workflow == good["name"] == APP.workflow(chosen.workflow).name
        assert mode.file is not None
        new = definition(mode.file, CREDENTIALS)
        assert new["name"] == good["name"]
        assert new["settings"] == good["settings"]
        assert (new["nodes"], new["connections"]) != (good["nodes"], good["connections"])
        role = f"id of {WORKFLOW_ROLES[chosen.workflow]}"
        used = {c["id"] for n in new["nodes"] for c in n.get("credentials", {}).values()}
        assert used == {role}
        assert all(n["name"] in json.dumps(new["connections"]) for n in new["nodes"])


@EACH
def test_a_scenario_has_a_playbook_that_a_detector_names(chosen: Scenario) -> None:
    keys = {p.key for p in APP.playbooks}
    named = {d.playbook for d in APP.detectors}
    assert ("bad-workflow-version" if chosen.key == "bad-version" else chosen.key) in keys & named
    assert named <= keys


def test_every_workflow_of_the_catalogue_has_its_role_and_file() -> None:
    assert {w.key: w.role for w in APP.workflows} == WORKFLOW_ROLES
    for workflow in APP.workflows:
        assert definition(f"workflows/{workflow.key}.json", CREDENTIALS)["name"] == workflow.name


def test_all_writes_but_those_of_status_change_carry_their_run() -> None:
    for key in set(WORKFLOW_ROLES) - {"status-change"}:
        for name, query in postgres_nodes(definition(f"workflows/{key}.json", CREDENTIALS)).items():
            assert "set_config('reinstate.run', $1, true)" in query, name


def test_a_person_approves_by_default_and_nobody_is_written_to() -> None:
    assert APP.autonomy.recover is False
    assert APP.channels == ()


def test_an_unknown_scenario_names_those_there_are() -> None:
    with pytest.raises(DrillError, match="bad-version, schedule-ran-twice, bulk-delete"):
        scenario("flood")
    assert scenario("bulk-delete") is SCENARIOS["bulk-delete"]


def test_thresholds_are_per_scenario_and_those_of_the_bad_version_are_all() -> None:
    assert set(NEEDED_BY) == set(SCENARIOS)
    assert NEEDED_BY["bad-version"] is NEEDED
    good = {"fields_compared": 1_500_000, "legit_events_lost": 0, "legit_edits_lost": 0, "wrong_fields_after": 0}
    assert shortfalls({**good, "resumed": True, "rows_missing_before": 900}, scenario="bulk-delete") == []
    assert shortfalls({**good, "resumed": True, "rows_missing_before": 5}, scenario="bulk-delete") == [
        "rows_missing_before is 5, needed at least 300"
    ]
