"""What only a live Node-RED can show: revisions, secrets in the clear, subflows, runs of private copies, restarts."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from estate import Estate, node
from estate.node_red import HOST
from platforms.base import CredentialState, EntryKind, Permanent, Retryable, RunState
from platforms.node_red import NodeRed
from platforms.node_red_secrets import KEPT
from tests.conftest import temporary_estate
from tests.contract.bench import ECHO, Scene, eventually, fresh
from tests.contract.node_red_bench import NodeRedBench, id_of
from tests.contract.node_red_tabs import QUIET, described, generated, shuffled

pytestmark = [pytest.mark.contract, pytest.mark.live, pytest.mark.node_red]

AT = {"x": 1, "y": 1}
OTHER_SETTINGS = """
const ours = require(OURS);
delete ours.contextStorage;
module.exports = { ...ours, httpNodeCors: { origin: "*" }, httpNodeRoot: "/hooks" };
"""


@pytest.fixture
def scene(node_red_bench: NodeRedBench) -> Iterator[Scene]:
    stage = Scene(node_red_bench)
    yield stage
    stage.clean()


@pytest.fixture
def bench(node_red_bench: NodeRedBench) -> NodeRedBench:
    return node_red_bench


def tab(name: str, *nodes: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A definition of ``nodes``; where they lie does not matter."""
    placed = [{**n, **AT} for n in nodes]
    content = {"settings": {"info": ""}, "env": [], "configs": [], "subflows": [], **parts}
    return {"name": name, "nodes": placed, **content}


def raw(bench: NodeRedBench, node_id: str) -> dict[str, Any]:
    return next(n for n in bench.flows()["flows"] if n["id"] == node_id)


# Revisions


def test_edits_of_other_tabs_at_the_same_time_are_never_lost(scene: Scene, bench: NodeRedBench) -> None:
    ours, others = scene.workflow("v0", active=False), [scene.workflow("v0", active=False) for _ in range(3)]
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
        {"keyType": "Authorization", "keyValue": "", "valueType": "other", "valueValue": f"Bearer {bench.secret}"}
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


# Runs of private copies


def opened(scene: Scene, definition: dict[str, Any]) -> Any:
    made = scene.put(definition, definition["name"])
    return scene.platform.open_private_entry(scene.platform.draft_version(made.id))


def test_a_replay_ends_when_everything_in_it_has_and_not_when_it_was_answered(
    scene: Scene, bench: NodeRedBench
) -> None:
    entry = opened(scene, dict(bench.definition(fresh(), "v1", wait_s=1.2)))
    started, mark = time.monotonic(), fresh("mark")
    run = scene.platform.send(entry, {"body": {"mark": mark}, "headers": {}}, idempotency_key="k")
    assert (run.state, bench.effects(mark)) == (RunState.SUCCESS, ["v1"])
    assert 1.0 < time.monotonic() - started < 8
    assert scene.platform.run_detail(run.id).outputs[ECHO][0]["tag"] == "v1"
    scene.platform.close_private_entry(entry)


def test_a_replay_longer_than_the_patience_comes_back_in_flight(scene: Scene, bench: NodeRedBench) -> None:
    hasty = NodeRed(bench.url, bench.token, send_timeout_s=0.5)
    entry = opened(scene, dict(bench.definition(fresh(), "v1", wait_s=30)))
    run = hasty.send(entry, {"body": {}, "headers": {}}, idempotency_key="k")
    assert run.state is RunState.RUNNING
    assert [r.id for r in hasty.sent(entry)["k"]] == [run.id]
    hasty.close_private_entry(entry)
    hasty.close()


def test_a_timer_is_replayed_and_errors_and_dropped_messages_end_a_run(scene: Scene, bench: NodeRedBench) -> None:
    name = fresh()
    code = (
        "if (msg.payload === 'bad') throw new Error('no'); return msg.payload === 'drop' ? null : {payload: msg.topic};"
    )
    timer = {
        "id": id_of(name, "t"),
        "type": "inject",
        "name": "Nightly",
        "crontab": "0 3 * * *",
        "wires": [[id_of(name, "f")]],
    }
    work = {
        "id": id_of(name, "f"),
        "type": "function",
        "name": "Work",
        "func": code,
        "outputs": 1,
        "libs": [],
        "wires": [[id_of(name, "s")]],
    }
    split = {
        "id": id_of(name, "s"),
        "type": "split",
        "name": "Split",
        "splt": "-",
        "spltType": "str",
        "wires": [[id_of(name, "o")]],
    }
    out = {"id": id_of(name, "o"), "type": "debug", "name": "Out", "wires": []}
    made = scene.put(tab(name, timer, work, split, out), name)
    version = scene.platform.draft_version(made.id)
    assert [(e.kind, e.schedule) for e in scene.platform.outline(version.definition).entries] == [
        (EntryKind.SCHEDULE, "0 3 * * *")
    ]
    assert scene.platform.ingress_paused(made.id)
    entry = scene.platform.open_private_entry(version)
    ends = {}
    for payload in ("good", "bad", "drop"):
        event = {"payload": payload, "topic": "a-b-c", "trigger": "Nightly"}
        run = scene.platform.send(entry, event, idempotency_key=payload)
        ends[payload] = (run.state, scene.platform.run_detail(run.id).outputs.get("Split"))
    parts = [{"payload": part} for part in "abc"]
    assert ends == {"good": (RunState.SUCCESS, parts), "bad": (RunState.ERROR, None), "drop": (RunState.SUCCESS, None)}
    with pytest.raises(Permanent, match="no trigger Hourly"):
        scene.platform.send(entry, {"payload": "x", "trigger": "Hourly"}, idempotency_key="x")
    scene.platform.close_private_entry(entry)


def test_a_copy_that_somebody_changed_is_made_anew(scene: Scene, bench: NodeRedBench) -> None:
    made = scene.workflow("v1", active=False)
    version = scene.platform.draft_version(made.id)
    entry = scene.platform.open_private_entry(version)
    present = bench.flows()
    bench.put(
        [
            {**n, "func": "return null;"} if n.get("z") == entry.workflow_id and n["name"] == ECHO else n
            for n in present["flows"]
        ],
        present["rev"],
    )
    assert scene.platform.open_private_entry(version) == entry
    mark = fresh("mark")
    scene.platform.send(entry, {"body": {"mark": mark}, "headers": {}}, idempotency_key="k")
    assert bench.effects(mark) == ["v1"]
    scene.platform.close_private_entry(entry)


# Restarts


def kill(estate: Estate) -> None:
    process = estate.node_red().process()
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(process.pid) or process.status() == psutil.STATUS_ZOMBIE)


def test_what_was_sent_is_known_after_node_red_was_killed_and_runs_it_cut_off_count_as_crashed() -> None:
    with temporary_estate(("node-red",)) as running:
        bench = NodeRedBench(running.addresses.node_red_url, running.addresses.node_red_token)
        scene = Scene(bench)
        entry = opened(scene, dict(bench.definition(fresh(), "v1", wait_s=30)))
        quick = opened(scene, dict(bench.definition(fresh(), "v1")))
        assert scene.can.reads_back_events
        done = scene.platform.send(quick, {"body": {}, "headers": {}}, idempotency_key="done")
        hasty = NodeRed(bench.url, bench.token, send_timeout_s=0.3)
        cut = hasty.send(entry, {"body": {}, "headers": {}}, idempotency_key="cut")
        kill(running.estate)
        with pytest.raises(Retryable, match="nothing was sent"):
            hasty.send(quick, {"body": {}, "headers": {}}, idempotency_key="never")
        running.estate.up(("node-red",))
        eventually(lambda: hasty.sent(quick))
        assert [(r.id, r.state) for r in hasty.sent(quick)["done"]] == [(done.id, RunState.SUCCESS)]
        assert [(r.id, r.state) for r in hasty.sent(entry)["cut"]] == [(cut.id, RunState.CRASHED)]
        assert "never" not in hasty.sent(quick)
        hasty.close()
        bench.close()


def test_without_the_store_and_behind_cors_it_says_what_it_cannot_tell(tmp_path: Path) -> None:
    with temporary_estate(()) as running:
        estate = running.estate
        settings = tmp_path / "settings.js"
        settings.write_text(OTHER_SETTINGS.replace("OURS", repr(str(HOST / "settings.js"))), "utf-8")
        modules, _ = node.modules(estate.cache, lambda *_: None, host=HOST, part="node-red")
        estate.node_red().start(modules, estate.cache, settings=settings)
        at = estate.addresses()
        platform = NodeRed(at.node_red_url, at.node_red_token)
        assert not platform.capabilities.reads_back_events
        assert platform.capabilities.replays_privately
        form, name = NodeRedBench, fresh()
        made = platform.create(form.definition(form.__new__(form), name, "v1"))
        assert [e.path for e in platform.outline(made.definition).entries if e.path] == [f"/hooks/{name}"]
        platform.activate(made.workflow_id)
        address = f"{at.node_red_url}/hooks/{name}"
        eventually(lambda: httpx.post(address, json={}).status_code == 200)
        assert not platform.ingress_paused(made.workflow_id)
        platform.deactivate(made.workflow_id)
        eventually(lambda: platform.ingress_paused(made.workflow_id))
        entry = platform.open_private_entry(made)
        event = {"body": {}, "headers": {}}
        assert platform.send(entry, event, idempotency_key="k").state is RunState.SUCCESS
        assert platform.sent(entry) == {}, "it would not be known after a restart, so nobody may rely on it"
        platform.close()


def test_flows_that_are_stopped_are_no_health(bench: NodeRedBench, scene: Scene) -> None:
    bench.api.post("/flows/state", json={"state": "stop"})
    try:
        health = scene.platform.health()
        assert not health.ok
        assert "stopped" in health.detail
    finally:
        bench.api.post("/flows/state", json={"state": "start"})
    eventually(lambda: scene.platform.health().ok)
