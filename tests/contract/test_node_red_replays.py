"""Runs of Node-RED's private copies: when they end, what is known of them, and what a restart leaves of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from estate import Estate, node
from estate.node_red import HOST
from platforms.base import EntryKind, Permanent, Retryable, RunState
from platforms.node_red import NodeRed
from tests.conftest import temporary_estate
from tests.contract.bench import ECHO, Scene, eventually, fresh
from tests.contract.node_red_bench import NodeRedBench, id_of, tab

pytestmark = [pytest.mark.contract, pytest.mark.live, pytest.mark.node_red]

OTHER_SETTINGS = """
const ours = require(OURS);
delete ours.contextStorage;
module.exports = { ...ours, httpNodeCors: { origin: "*" }, httpNodeRoot: "/hooks" };
"""


@pytest.fixture
def scene(node_red_scene: Scene) -> Scene:
    return node_red_scene


@pytest.fixture
def bench(node_red_bench: NodeRedBench) -> NodeRedBench:
    return node_red_bench


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
    assert time.monotonic() - started > 1.0
    assert scene.platform.run_detail(run.id).outputs[ECHO][0]["tag"] == "v1"
    scene.platform.close_private_entry(entry)


def test_a_replay_tells_what_it_answered(scene: Scene, bench: NodeRedBench) -> None:
    """By it a refusal is known as that of the first run, of which the ingress knows the status only."""
    entry = opened(scene, dict(bench.definition(fresh(), "v1")))
    runs = [scene.platform.send(entry, {"body": b, "headers": {}}, idempotency_key="k") for b in ({}, {"fail": "v1"})]
    told = [(r.state, scene.platform.run_detail(r.id).status) for r in runs]
    assert told == [(RunState.SUCCESS, 200), (RunState.ERROR, 500)]
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
        with pytest.raises(Retryable, match=r"nothing was sent|unreachable"):
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
        event: dict[str, Any] = {"body": {}, "headers": {}}
        assert platform.send(entry, event, idempotency_key="k").state is RunState.SUCCESS
        assert platform.sent(entry) == {}, "it would not be known after a restart, so nobody may rely on it"
        platform.close()
