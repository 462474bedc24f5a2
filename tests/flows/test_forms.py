"""Forms a stranger understands: what is known is a choice, what is dangerous is not the default, each field is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from catalog.errors import CatalogError
from flows import contain, forms, protect, recover, resume, watch

POINTS = ["20261121T131500.250000Z-0a1b2c3d", "20261121T120000.000000Z-aaaabbbb"]
FLOWS = [recover.recover, protect.protect, contain.contain, watch.watch, resume.resume]


def schema_of(flow: Any, **known: Any) -> dict[str, Any]:
    given = {"apps": ["desk"], "points": POINTS, "workflows": ["intake", "payment"], **known}
    return forms.schema(flow.parameters.model_dump(), **given)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda f: str(f.name))
def test_every_field_has_a_title_and_a_help_text(flow: Any) -> None:
    for name, found in schema_of(flow)["properties"].items():
        assert found["title"] == forms.TITLES[name]
        assert found["description"].endswith(".")


@pytest.mark.parametrize("flow", FLOWS, ids=lambda f: str(f.name))
def test_one_who_leaves_everything_as_it_is_may_submit(flow: Any) -> None:
    schema = schema_of(flow)
    given = {k: v["default"] for k, v in schema["properties"].items() if "default" in v}
    jsonschema.validate({**given, **({"workflows": ["intake"]} if flow is contain.contain else {})}, schema)


def test_what_a_person_decides_comes_first_and_what_a_machine_fills_in_last() -> None:
    by_position = sorted(schema_of(recover.recover)["properties"].items(), key=lambda p: p[1]["position"])
    assert [name for name, _ in by_position] == [
        "app", "mode", "policy", "point", "incident", "recovery", "trigger", "catalog",
    ]  # fmt: skip


def test_the_choices_of_a_recovery_are_known_and_safe_by_default() -> None:
    fields = schema_of(recover.recover)["properties"]
    assert fields["app"]["enum"] == ["desk"]
    assert fields["mode"]["enum"] == ["both", "logic", "data"]
    assert (fields["policy"]["enum"][0], fields["policy"]["default"]) == ("refuse", "refuse")
    assert fields["point"]["enum"] == ["automatic", *POINTS]
    assert fields["point"]["default"] == "automatic"
    assert f"2026-11-21 13:15:00 UTC is {POINTS[0]}" in fields["point"]["description"]
    assert fields["trigger"]["default"] == "operator"


def test_with_several_apps_nobody_recovers_the_first_one_by_accident() -> None:
    assert "default" not in schema_of(recover.recover, apps=["desk", "shop"])["properties"]["app"]


def test_without_points_the_form_says_what_to_do() -> None:
    point = schema_of(recover.recover, points=[])["properties"]["point"]
    assert point["enum"] == ["automatic"]
    assert "run protect" in point["description"]


def test_workflows_are_chosen_not_typed() -> None:
    schema = schema_of(contain.contain)
    jsonschema.validate({"app": "desk", "workflows": ["payment"]}, schema)
    for wrong in ([], ["elsewhere"], ["intake", "intake"]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"app": "desk", "workflows": wrong}, schema)
    free = schema_of(contain.contain, workflows=())["properties"]["workflows"]
    assert "enum" not in free.get("items", {})


def test_the_flows_own_schema_is_left_alone() -> None:
    before = recover.recover.parameters.model_dump()
    schema_of(recover.recover)
    assert recover.recover.parameters.model_dump() == before


def test_the_catalogue_is_the_servers_unless_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REINSTATE_CATALOG", str(tmp_path))
    assert forms.where("") == tmp_path
    assert forms.where("/elsewhere") == Path("/elsewhere")
    monkeypatch.delenv("REINSTATE_CATALOG")
    with pytest.raises(CatalogError, match="REINSTATE_CATALOG"):
        forms.where("")


@pytest.mark.parametrize(
    ("parameters", "known", "name"),
    [
        ({"app": "desk", "mode": "data"}, "clever-otter", "recover desk data"),
        ({"app": "desk"}, None, "recover desk both"),
        ({"app": "desk", "mode": "both"}, "recover desk both #12", "recover desk both #12"),
        ({"app": "desk", "mode": "both"}, "recover desk data #12", "recover desk both"),
        (None, None, "recover both"),
    ],
)
def test_runs_have_names_that_read(
    parameters: Any, known: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "flow_run", SimpleNamespace(parameters=parameters, name=known))
    assert forms.run_name() == name


def test_a_containment_is_named_by_what_it_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"app": "desk", "workflows": ["intake", "payment"]}
    monkeypatch.setattr(forms, "flow_run", SimpleNamespace(parameters=parameters))
    assert forms.contain_name() == "contain desk intake, payment"
