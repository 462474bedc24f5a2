"""History and publishing on live n8n: versions published without being saved, a workflow deleted and made again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drills.n8n_api import N8nApi
from ledger import Ledger
from platforms.base import CredentialState, Version
from platforms.n8n import N8n
from platforms.retrying import Retrying
from recovery import credentials, definitions, history, publishing
from recovery.context import AppContext
from recovery.errors import Outcome
from snapshots.store.store import Store
from tests.conftest import RunningEstate
from tests.recovery.kiosk import PEOPLE, app_model

pytestmark = [pytest.mark.live, pytest.mark.n8n]
NAMES = {"front": "History front", "back": "History back"}


def back(how: str, **settings: Any) -> dict[str, Any]:
    """What is called."""
    start = node("Start", "executeWorkflowTrigger", 0, inputSource="passthrough")
    return {
        "name": NAMES["back"],
        "nodes": [start, node("Work", "set", 1, mode="raw", jsonOutput=f'{{"how": "{how}"}}')],
        "connections": chain("Start", "Work"),
        "settings": {"executionOrder": "v1", **settings},
    }


def front(calls: str) -> dict[str, Any]:
    """What calls it, and runs by the clock."""
    every = {"interval": [{"field": "hours", "hoursInterval": 12}]}
    reference = {"__rl": True, "value": calls, "mode": "id"}
    return {
        "name": NAMES["front"],
        "nodes": [
            node("Clock", "scheduleTrigger", 0, rule=every),
            node("Call", "executeWorkflow", 1, workflowId=reference, options={}),
        ],
        "connections": chain("Clock", "Call"),
        "settings": {"executionOrder": "v1"},
    }


def node(name: str, kind: str, at: int, **parameters: Any) -> dict[str, Any]:
    version = {"executeWorkflowTrigger": 1.1, "set": 3.4, "scheduleTrigger": 1.2, "executeWorkflow": 1.2}[kind]
    return {
        "id": f"{name.lower()}-1",
        "name": name,
        "type": f"n8n-nodes-base.{kind}",
        "typeVersion": version,
        "position": [at * 200, 0],
        "parameters": parameters,
    }


def chain(first: str, second: str) -> dict[str, Any]:
    return {first: {"main": [[{"node": second, "type": "main", "index": 0}]]}}


@pytest.fixture
def api(estate: RunningEstate) -> Iterator[N8nApi]:
    with N8nApi(estate.addresses.n8n_url, estate.addresses.n8n_api_key) as api:
        clear(api)
        yield api
        clear(api)


def clear(api: N8nApi) -> None:
    for workflow in api.workflows():
        if workflow["name"] in NAMES.values():
            api.delete_workflow(workflow["id"])


@pytest.fixture
def ctx(estate: RunningEstate, api: N8nApi, tmp_path: Path) -> Iterator[AppContext]:
    common = {"trigger": {"kind": "schedule"}, "role": "nobody", **PEOPLE}
    app = app_model(
        workflows=[{"key": k, "name": n, **common} for k, n in NAMES.items()],
        tables=[],
        detectors=[],
        resume_order=[],
    )
    platform = Retrying(N8n(estate.addresses.n8n_url, estate.addresses.n8n_api_key))
    yield AppContext(
        home=tmp_path,
        catalog_path=tmp_path,
        app=app,
        platform=platform,
        ledger=Ledger(tmp_path / "ledger.sqlite"),
        store=Store(str(tmp_path / "store")),
    )
    platform.close()


def wanted(ctx: AppContext, definition: dict[str, Any]) -> Version:
    content, settings = ctx.platform.hashes(definition)
    return Version(workflow_id="", hash=content, settings_hash=settings, definition=definition)


def test_versions_are_seen_published_and_followed(ctx: AppContext, api: N8nApi) -> None:
    back_id = api.create_workflow(back("good"))
    api.activate(back_id)
    front_id = api.create_workflow(front(back_id))
    api.activate(front_id)
    assert {s.workflow: s.live for s in history.observe(ctx)} == {
        "front": wanted(ctx, front(back_id)).hash,
        "back": wanted(ctx, back("good")).hash,
    }
    good = next(v for v in ctx.platform.versions(back_id))

    # Two versions between two looks, the first of them replaced at once; then the first version again, not saved.
    api.publish(back_id, back("first"))
    api.publish(back_id, back("bad"))
    seen = history.observe(ctx)
    assert [(s.passed, s.version) for s in seen] == [
        (True, wanted(ctx, back("first")).hash),
        (False, wanted(ctx, back("bad")).hash),
    ]
    assert all(s.author for s in seen)
    ctx.platform.activate(back_id, good.platform_version)
    assert [(s.version == wanted(ctx, back("bad")).hash, s.live) for s in history.observe(ctx)] == [(True, good.hash)]

    # Settings are no part of a version; what is published has them all the same.
    version = wanted(ctx, back("second", executionTimeout=77))
    done = publishing.publish(ctx, "back", version, by="ada", reason="test", activate=True)
    live = ctx.platform.live_version(back_id)
    assert live is not None
    assert (done.outcome, live.hash, live.definition["settings"]["executionTimeout"]) == (
        Outcome.LIVE,
        version.hash,
        77,
    )
    assert not publishing.publish(ctx, "back", version, by="ada", reason="test", activate=True).changed

    # Deleted with all that n8n knew of it.
    api.delete_workflow(front_id)
    api.delete_workflow(back_id)
    assert {s.workflow for s in history.observe(ctx) if s.gone} == {"front", "back"}
    kept = definitions.find(ctx, "back", wanted(ctx, back("first")).hash, None)
    again = publishing.publish(ctx, "back", kept, by="ada", reason="deleted", activate=True)
    assert (again.recreated, again.previous_id, again.outcome) == (True, back_id, Outcome.LIVE)
    assert again.platform_id != back_id
    caller = definitions.find(ctx, "front", wanted(ctx, front(back_id)).hash, None)
    assert publishing.publish(ctx, "front", caller, by="ada", reason="deleted", activate=True).outcome is Outcome.LIVE
    live = ctx.platform.live_version(ctx.infos()["front"].id)
    assert live is not None
    assert [c for n in ctx.platform.outline(live.definition).nodes for c in n.calls] == [again.platform_id]

    # And once more with a caller that is live: it follows by itself.
    api.deactivate(ctx.infos()["back"].id)
    ctx.platform.deactivate(ctx.infos()["front"].id)
    api.delete_workflow(ctx.infos()["back"].id)
    last = publishing.publish(ctx, "back", kept, by="ada", reason="deleted", activate=True)
    assert last.references == ("front",)
    saved = ctx.platform.draft_version(ctx.infos()["front"].id)
    assert [c for n in ctx.platform.outline(saved.definition).nodes for c in n.calls] == [last.platform_id]


def test_credentials_are_told_apart(ctx: AppContext, api: N8nApi) -> None:
    data = {"host": "127.0.0.1", "port": 9, "database": "none", "user": "none", "password": "none", "ssl": "disable"}
    plain = {"allowUnauthorizedCerts": False, "sshTunnel": False, "maxConnections": 1}
    credential = api.create_credential("history", {**data, **plain})
    definition = back("good")
    query = node("Read", "set", 2) | {"type": "n8n-nodes-base.postgres", "typeVersion": 2.6}
    query["parameters"] = {"operation": "executeQuery", "query": "SELECT 1", "options": {}}
    query["credentials"] = {"postgres": {"id": credential, "name": "history"}}
    definition["nodes"].append(query)
    made = api.create_workflow(definition)
    history.observe(ctx)
    states = {c.state for c in ctx.platform.credentials(made)}
    assert states == {CredentialState.INVALID}
    found = credentials.troubles(ctx, "back", made, wanted(ctx, definition).hash)
    assert [t.problem for t in found] == [credentials.Problem.INVALID]
    api.delete_credential(credential)
    found = credentials.troubles(ctx, "back", made, wanted(ctx, definition).hash)
    assert [(t.problem, t.name) for t in found] == [(credentials.Problem.MISSING, "history")]
