"""What only a live Node-RED can show: revisions, secrets in the clear, subflows, runs of private copies, restarts."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import httpx
import pytest

from platforms.base import CredentialState, Permanent, Retryable, RunState
from platforms.node_red import NodeRed
from platforms.node_red_secrets import KEPT
from tests.contract.bench import Scene, eventually, fresh
from tests.contract.node_red_bench import AT, NodeRedBench, id_of, tab
from tests.contract.node_red_tabs import QUIET, described, generated, shuffled

pytestmark = [pytest.mark.contract, pytest.mark.live, pytest.mark.node_red]


@pytest.fixture
def scene(node_red_scene: Scene) -> Scene:
    return node_red_scene


@pytest.fixture
def bench(node_red_bench: NodeRedBench) -> NodeRedBench:
    return node_red_bench


def raw(bench: NodeRedBench, node_id: str) -> dict[str, Any]:
    return next(n for n in bench.flows()["flows"] if n["id"] == node_id)


# Revisions


def test_edits_of_other_tabs_at_the_same_time_are_never_lost(scene: Scene, bench: NodeRedBench) -> None:
    ours, others = (
        scene.workflow("v0", active=False),
        [scene.workflow("v0", active=False) for _ in range(3)],
    )
    over = threading.Event()
    wrote: dict[str, int] = {}

    def edit(workflow_id: str) -> None:
        """Somebody in the editor: reads, edits the tab, deploys, and tries again when told that others were faster."""
        with httpx.Client(base_url=bench.url, headers=bench.api.headers, timeout=30) as api:
            while not over.is_set():
                present = api.get("/flows").json()
                number = wrote.get(workflow_id, 0) + 1
                flows = [{**n, "info": str(number)} if n["id"] == workflow_id else n for n in present["flows"]]
                if api.post("/flows", json={"flows": flows, "rev": present["rev"]}).status_code == 200:
                    wrote[workflow_id] = number
                time.sleep(0.02)

    editors = [threading.Thread(target=edit, args=(made.id,)) for made in others]
    for editor in editors:
        editor.start()
    content = scene.content(ours.id)
    try:
        for number in itertools.count(1):
            scene.platform.save(ours.id, bench.edited(content, f"v{number}"))
            (scene.platform.deactivate if number % 2 else scene.platform.activate)(ours.id)
            if number >= 8 and all(wrote.get(made.id, 0) > 1 for made in others):
                break
    finally:
        over.set()
        for editor in editors:
            editor.join()
    assert {made.id: int(raw(bench, made.id)["info"]) for made in others} == wrote
    assert scene.platform.draft_version(ours.id).hash == scene.platform.hashes(bench.edited(content, f"v{number}"))[0]


def test_a_write_whose_answer_was_lost_is_read_back(
    scene: Scene, bench: NodeRedBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene.workflow("v1", active=False)
    platform = NodeRed(bench.url, bench.token)
    real = httpx.Client.request
    lost: list[str] = []

    def losing(client: httpx.Client, method: str, url: Any, **options: Any) -> httpx.Response:
        answer = real(client, method, url, **options)
        if method == "POST":
            lost.append(str(url))
            raise httpx.ReadTimeout("lost")
        return answer

    monkeypatch.setattr(httpx.Client, "request", losing)
    saved = platform.save(made.id, bench.edited(scene.content(made.id), "v2"))
    platform.activate(made.id)
    entry = platform.open_private_entry(saved)
    mark = fresh("mark")
    run = platform.send(entry, {"body": {"mark": mark}, "headers": {}}, idempotency_key="k")
    platform.close_private_entry(entry)
    monkeypatch.undo()
    platform.close()
    assert lost.count("/flows") == 4
    assert scene.platform.live_version(made.id) is not None
    assert scene.platform.draft_version(made.id).hash == saved.hash
    assert (run.state, bench.effects(mark)) == (RunState.SUCCESS, ["v2"])
    assert entry.workflow_id not in {n["id"] for n in bench.flows()["flows"]}


def test_a_wrong_token_is_permanent_and_an_absent_server_retryable(bench: NodeRedBench) -> None:
    wrong = NodeRed(bench.url, "wrong")
    for call in (wrong.health, wrong.workflows, lambda: wrong.activate("x")):
        with pytest.raises(Permanent, match="refused the token"):
            call()
    wrong.close()
    absent = NodeRed("http://127.0.0.1:9", bench.token)
    for call in (absent.health, absent.workflows, lambda: absent.activate("x")):
        with pytest.raises(Retryable, match="unreachable"):
            call()
    assert not absent.capabilities.reads_back_events
    absent.close()


# Content


@pytest.mark.parametrize("seed", range(3))
def test_any_tab_comes_back_as_it_was_published(scene: Scene, bench: NodeRedBench, seed: int) -> None:
    types = described(bench.api.get("/nodes", headers={"Accept": "text/html"}).text)
    assert len(types) > 40
    assert types.keys() >= QUIET
    wanted = generated(seed, types, 220)
    made = scene.platform.create(wanted)
    scene.made.append(made.workflow_id)
    scene.platform.activate(made.workflow_id)
    live = bench.another_process().live_version(made.workflow_id)
    assert live is not None
    assert (live.hash, live.settings_hash) == scene.platform.hashes(wanted)
    assert {n["type"] for n in live.definition["nodes"]} >= {k for k, (config, _) in types.items() if not config}
    before = bench.flows()
    assert scene.platform.save(made.workflow_id, live.definition) == live
    assert scene.platform.save(made.workflow_id, shuffled(seed, live.definition)) == live
    assert bench.flows() == before, "equal content is not written"
    scene.platform.outline(live.definition)
    scene.platform.deactivate(made.workflow_id)
    bench.delete(made.workflow_id)
    again = scene.platform.create(live.definition, workflow_id=made.workflow_id)
    assert (again.hash, again.definition["nodes"]) == (live.hash, live.definition["nodes"])
    bench.delete(made.workflow_id)


def test_a_password_in_the_clear_is_never_read_and_never_overwritten(scene: Scene, bench: NodeRedBench) -> None:
    config = bench.credential("shop database")
    assert config is not None
    header = [
        {
            "keyType": "Authorization",
            "keyValue": "",
            "valueType": "other",
            "valueValue": f"Bearer {bench.secret}",
        }
    ]
    name = fresh()
    call = {
        "id": id_of(name, "call"),
        "type": "http request",
        "name": "Call",
        "url": f"https://u:{bench.secret}@shop.test/",
    }
    write = {"id": id_of(name, "write"), "type": "postgrestor", "name": "Write", "postgresDB": config, "wires": [[]]}
    made = scene.put(tab(name, {**call, "headers": header, "wires": [[]]}, {**write, "query": "SELECT 1"}), name)
    version = scene.platform.draft_version(made.id)
    assert bench.secret not in str(version.definition)
    assert str(version.definition).count(KEPT) == 3
    bench.change_credential(config)
    changed = {**version.definition, "name": f"{name} renamed"}
    changed["nodes"] = [{**n, "query": "SELECT 2"} if n["name"] == "Write" else n for n in changed["nodes"]]
    scene.platform.save(made.id, changed)
    assert raw(bench, config)["password"] == f"{bench.secret}-2", "the one that Node-RED has now"
    kept = raw(bench, call["id"])
    assert (kept["url"], kept["headers"]) == (call["url"], header)
    assert scene.platform.outline(version.definition).nodes[0].hosts == ("shop.test",)
    bench.remove_credential(config)
    scene.platform.save(made.id, version.definition)
    (credential,) = [c for c in scene.platform.credentials(made.id) if c.id == config]
    assert (credential.state, raw(bench, config)["password"]) == (CredentialState.MISSING, "")
    assert scene.platform.draft_version(made.id).hash == version.hash


def test_credentials_of_a_node_are_told_and_no_copy_is_made_without_them(scene: Scene, bench: NodeRedBench) -> None:
    name = fresh()
    hook = {
        "id": id_of(name, "hook"),
        "type": "http in",
        "url": f"/{name}",
        "method": "get",
        "wires": [[id_of(name, "c")]],
    }
    call = {"id": id_of(name, "c"), "type": "http request", "name": "Call", "authType": "basic", "wires": [[]]}
    made = scene.put(tab(name, hook, call), name)
    secret = [{"name": "KEY", "type": "cred"}]
    scene.platform.save(made.id, {**scene.content(made.id), "env": secret})
    assert scene.content(made.id)["env"] == secret
    assert scene.platform.credentials(made.id)[0].detail == "not set: KEY"
    scene.platform.save(made.id, {**scene.content(made.id), "env": []})
    assert [c.state for c in scene.platform.credentials(made.id)] == [CredentialState.MISSING]
    with_own = {"user": "shop", "password": bench.secret}
    bench.put(
        [{**n, "credentials": with_own} if n["id"] == call["id"] else n for n in bench.flows()["flows"]],
        bench.flows()["rev"],
    )
    (credential,) = scene.platform.credentials(made.id)
    assert (credential.name, credential.state, credential.kind) == ("Call", CredentialState.PRESENT, "http request")
    with pytest.raises(Permanent, match="credentials of its own"):
        scene.platform.open_private_entry(scene.platform.draft_version(made.id))
    scene.platform.save(made.id, {**scene.content(made.id), "name": f"{name} renamed"})
    assert scene.platform.credentials(made.id)[0].state is CredentialState.PRESENT


def subflow_tab(name: str, factor: int) -> dict[str, Any]:
    """POST doubles (or so) the number in the body, in a subflow, and answers it."""
    ids = {what: id_of(name, what) for what in ("hook", "use", "answer", "subflow", "inner")}
    code = {"func": f"msg.payload = {{ n: msg.payload.n * {factor} }}; return msg;", "outputs": 1, "libs": []}
    return tab(
        name,
        {
            "id": ids["hook"],
            "type": "http in",
            "name": "Hook",
            "url": f"/{name}",
            "method": "post",
            "wires": [[ids["use"]]],
        },
        {"id": ids["use"], "type": f"subflow:{ids['subflow']}", "name": "Use", "wires": [[ids["answer"]]]},
        {"id": ids["answer"], "type": "http response", "name": "Answer", "wires": []},
        subflows=[
            {
                "id": ids["subflow"],
                "type": "subflow",
                "name": "times",
                "in": [{**AT, "wires": [{"id": ids["inner"]}]}],
                "out": [{**AT, "wires": [{"id": ids["inner"], "port": 0}]}],
            },
            {"id": ids["inner"], "type": "function", "name": "Times", "z": ids["subflow"], **code, "wires": [[]], **AT},
        ],
    )


def test_a_subflow_belongs_to_the_version_and_a_copy_uses_its_own(scene: Scene, bench: NodeRedBench) -> None:
    name = fresh()
    made = scene.platform.create(subflow_tab(name, 2))
    scene.made.append(made.workflow_id)
    bad = scene.platform.save(made.workflow_id, subflow_tab(name, 200))
    assert bad.hash != made.hash
    before = bench.flows()["flows"]
    entry = scene.platform.open_private_entry(made)
    run = scene.platform.send(entry, {"body": {"n": 21}, "headers": {}}, idempotency_key="k")
    detail = scene.platform.run_detail(run.id)
    assert (detail.run.version_hash, detail.outputs["Use"]) == (made.hash, [{"n": 42}])
    assert scene.platform.draft_version(made.workflow_id).hash == bad.hash
    scene.platform.close_private_entry(entry)
    assert bench.flows()["flows"] == before, "nothing is left of the copy"
    scene.platform.save(made.workflow_id, made.definition)
    scene.platform.activate(made.workflow_id)
    eventually(lambda: bench.world.post(f"/{name}", json={"n": 21}).status_code == 200)
    assert bench.world.post(f"/{name}", json={"n": 21}).json() == {"n": 42}
    outline = scene.platform.outline(made.definition)
    assert {"Use", "times / Times"} <= {n.name for n in outline.nodes}
    assert ("Use", "times / Times") in outline.links


def test_flows_that_are_stopped_are_no_health(bench: NodeRedBench, scene: Scene) -> None:
    bench.api.post("/flows/state", json={"state": "stop"})
    try:
        health = scene.platform.health()
        assert not health.ok
        assert "stopped" in health.detail
    finally:
        bench.api.post("/flows/state", json={"state": "start"})
    eventually(lambda: scene.platform.health().ok)
