"""What only a live Directus can show: secrets in operations, ids that come back, licence, triggers, its death."""

from __future__ import annotations

import json
import os
import random
import signal
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from estate import node
from estate.directus import APP_SCHEMA, DATABASE, HOST, ROLE
from estate.estate import default_cache
from platforms.base import CredentialState, Permanent, Retryable, RunState
from platforms.directus import Directus
from platforms.directus_client import Full
from platforms.directus_secrets import MASK
from tests.conftest import RunningEstate
from tests.contract.bench import ECHO, Scene, eventually, fresh
from tests.contract.directus_bench import DirectusBench, chained, flow, flow_id, operation

pytestmark = [pytest.mark.contract, pytest.mark.live, pytest.mark.directus]
HUSH = "hush-4711"


@pytest.fixture
def scene(directus_bench: DirectusBench) -> Iterator[Scene]:
    stage = Scene(directus_bench)
    yield stage
    stage.clean()


@pytest.fixture
def bench(scene: Scene, directus_bench: DirectusBench) -> DirectusBench:
    return directus_bench


def raw(bench: DirectusBench, workflow_id: str) -> dict[str, Any]:
    """The flow as Directus has it, operations by key."""
    params = {"fields": "*,operations.*", "deep[operations][_limit]": "-1"}
    found = bench.api.get(f"/flows/{workflow_id}", params=params).json()["data"]
    return {**found, "operations": {o["key"]: o for o in found["operations"]}}


def test_a_wrong_token_is_permanent_and_an_absent_server_retryable(bench: DirectusBench) -> None:
    for platform, kind, why in (
        (Directus(bench.url, "wrong"), Permanent, "refused the token"),
        (Directus("http://127.0.0.1:9", bench.token), Retryable, "unreachable"),
    ):
        for call in (platform.health, platform.workflows, lambda p=platform: p.activate(flow_id("x"))):
            with pytest.raises(kind, match=why):
                call()
        platform.close()


# Round trip


def kinds() -> list[str]:
    """The operations that the installed Directus has."""
    modules, _ = node.modules(default_cache(), lambda *_: None, host=HOST, part="directus")
    installed = modules / "node_modules" / "@directus" / "api" / "dist" / "operations"
    return sorted(folder.name for folder in installed.iterdir() if (folder / "index.js").exists())


OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "condition": {"filter": {"$trigger": {"body": {"cena": {"_gt": 3}}}}},
    "exec": {"code": "module.exports = async (data) => ({č: data.$last});"},
    "item-create": {"collection": "směny", "payload": {"název": "{{ $trigger.body.název }}"}, "permissions": "$full"},
    "item-read": {"collection": "směny", "query": {"filter": {"název": {"_eq": "x"}}, "limit": 5}},
    "item-update": {"collection": "směny", "key": ["{{ $last.id }}"], "payload": {"n": 1.5, "ok": True, "z": None}},
    "item-delete": {"collection": "směny", "key": [1, 2]},
    "json-web-token": {"operation": "sign", "payload": {"a": 1}, "secret": "{{ $env.KEY }}"},
    "request": {"method": "POST", "url": "https://x.example/ž?a=1", "headers": [{"header": "Accept", "value": "*/*"}]},
    "sleep": {"milliseconds": "10"},
    "transform": {"json": '{"a": "{{ $last }}", "emoji": "🧾"}'},
    "trigger": {"flow": str(uuid.UUID(int=7)), "payload": "{{ $last }}", "iterationMode": "serial"},
}


def generated(seed: int, size: int) -> dict[str, Any]:
    """A flow of ``size`` operations of all kinds there are: any forest of resolves and rejects, unicode names."""
    chance, name = random.Random(seed), fresh("round-trip")  # noqa: S311 - no secret
    every = kinds()
    made = [
        operation(name, f"krok_{n}", every[n % len(every)], OPTIONS.get(every[n % len(every)], {"text": f"ž{n}"}))
        for n in range(size)
    ]
    for way in ("resolve", "reject"):
        free = set(range(size))
        for n in range(size):
            later = [i for i in (n + 1, chance.randrange(size)) if i > n and i in free]
            if later and chance.random() < (0.9 if way == "resolve" else 0.2):
                made[n][way] = made[later[0]]["id"]
                free.discard(later[0])
    chance.shuffle(made)
    first = next(o for o in made if o["key"] == "krok_0")
    return {**flow(name, made), "name": f"Zpětně {name} 🧾", "operation": first["id"]}


@pytest.mark.parametrize(("seed", "size"), [(1, 2), (2, 24), (3, 205)])
def test_what_is_published_comes_back_as_it_was(scene: Scene, bench: DirectusBench, seed: int, size: int) -> None:
    platform, before, after = bench.platform, generated(seed, size), generated(seed + 100, size // 4 + 1)
    made = platform.create(before)
    scene.made.append(made.workflow_id)
    try:
        assert (made.hash, made.settings_hash) == platform.hashes(before)
        exported = platform.draft_version(made.workflow_id).definition
        assert platform.save(made.workflow_id, after).hash == platform.hashes(after)[0] != made.hash
        back = platform.save(made.workflow_id, json.loads(json.dumps(exported)))
        assert (back.hash, back.settings_hash) == (made.hash, made.settings_hash)
        bench.delete(made.workflow_id)
        again = platform.create(exported, workflow_id=made.workflow_id)
        assert (again.workflow_id, again.hash) == (made.workflow_id, made.hash)
        ids = {o["key"]: o["id"] for o in again.definition["operations"]}
        assert ids == {o["key"]: o["id"] for o in exported["operations"]}
        assert raw(bench, made.workflow_id)["status"] == "inactive"
    finally:
        bench.delete(made.workflow_id)


# Secrets


def calling(name: str, header: str) -> dict[str, Any]:
    call = operation(
        name, "call", "request", {"url": "http://127.0.0.1:9/", "headers": [{"header": "X-Key", "value": header}]}
    )
    return flow(name, chained([call, operation(name, "log", "log", {"message": "called"})]))


def test_a_secret_is_never_shown_kept_on_saving_and_comes_back_with_a_deleted_flow(
    scene: Scene, bench: DirectusBench
) -> None:
    made = scene.put(calling(fresh(), HUSH), "calling")
    shown = bench.platform.draft_version(made.id)
    assert HUSH not in json.dumps(shown.definition)
    edited = json.loads(json.dumps(shown.definition))
    edited["operations"] = [o for o in edited["operations"] if o["key"] == "call"]
    edited["operations"][0] |= {"resolve": None, "name": "Volání"}
    saved = bench.platform.save(made.id, edited)
    header = raw(bench, made.id)["operations"]["call"]["options"]["headers"][0]
    assert header == {"header": "X-Key", "value": HUSH}
    (credential,) = bench.platform.credentials(made.id)
    assert (credential.state, credential.kind) == (CredentialState.PRESENT, "header")
    bench.delete(made.id)
    bench.platform.create(saved.definition, workflow_id=made.id)
    assert raw(bench, made.id)["operations"]["call"]["options"]["headers"][0] == header


def test_a_secret_that_directus_never_had_is_missing_and_a_changed_one_has_its_time(
    scene: Scene, bench: DirectusBench
) -> None:
    made = scene.put(calling(fresh(), MASK), "calling")
    (lost,) = bench.platform.credentials(made.id)
    assert lost.state is CredentialState.MISSING
    call = raw(bench, made.id)["operations"]["call"]
    for options in (
        {**call["options"], "headers": [{"header": "X-Key", "value": HUSH}]},
        {**call["options"], "headers": [{"header": "X-Key", "value": HUSH}], "method": "PUT"},
    ):
        assert bench.api.patch(f"/operations/{call['id']}", json={"options": options}).is_success
    (entered,) = bench.platform.credentials(made.id)
    assert entered.state is CredentialState.PRESENT
    assert lost.changed_at is not None
    assert entered.changed_at is not None
    assert entered.changed_at > lost.changed_at
    assert bench.api.patch(f"/operations/{call['id']}", json={"name": "Again"}).is_success
    assert bench.platform.credentials(made.id)[0].changed_at == entered.changed_at


# Runs


def test_the_content_of_a_run_is_found_right_after_a_publish_and_by_another_process(
    scene: Scene, bench: DirectusBench
) -> None:
    made = scene.workflow("v1")
    first = bench.platform.live_version(made.id)
    assert first is not None
    second = bench.platform.save(made.id, bench.edited(first.definition, "v2"))
    scene.answered(made.id)
    bench.platform.save(made.id, first.definition)
    scene.answered(made.id)
    for platform in (bench.platform, bench.another_process()):
        told = [run.version_hash for run in platform.runs(made.id)]
        assert told[-2:] == [second.hash, first.hash]
        assert set(told[:-2]) == {first.hash}
        assert platform.run_detail(platform.runs(made.id)[-1].id).run.version_hash == first.hash


def test_a_flow_that_another_starts_has_runs_of_its_own(scene: Scene, bench: DirectusBench) -> None:
    name = fresh()
    echo = operation(name, ECHO, "transform", {"json": {"got": "{{ $trigger.n }}"}})
    target = scene.put({**flow(name, [echo]), "trigger": "operation"}, name)
    payload = {"n": "{{ $trigger.body.n }}"}
    start = operation(f"{name}-start", "start", "trigger", {"flow": target.id, "payload": payload})
    caller = scene.put(flow(f"{name}-start", [start]), name)
    for made in (target, caller):
        bench.platform.activate(made.id)
    assert bench.platform.outline(scene.content(caller.id)).nodes[1].calls == (target.id,)
    assert bench.call(caller.id, {"n": 5})
    detail = eventually(lambda: [bench.platform.run_detail(r.id) for r in bench.platform.runs(target.id)])[0]
    assert detail.outputs == {ECHO: [{"got": 5}]}
    assert bench.platform.ingress_paused(target.id) is False
    bench.platform.deactivate(target.id)
    assert bench.platform.ingress_paused(target.id) is True


@pytest.mark.parametrize(
    ("trigger", "options", "event"),
    [
        ("schedule", {"cron": "0 0 1 1 *"}, {"caller": "system"}),
        (
            "event",
            {"type": "action", "scope": ["items.create"], "collections": ["nothing"]},
            {"event": "items.create", "payload": {"n": 1}, "key": 3, "collection": "nothing", "caller": "system"},
        ),
    ],
)
def test_events_of_any_trigger_are_replayed_as_they_were(
    scene: Scene, bench: DirectusBench, trigger: str, options: dict[str, Any], event: dict[str, Any]
) -> None:
    name = fresh()
    echo = operation(name, ECHO, "exec", {"code": "module.exports = (data) => ({seen: data.$trigger});"})
    made = scene.put({**flow(name, [echo]), "trigger": trigger, "options": options}, name)
    entry = bench.platform.open_private_entry(bench.platform.draft_version(made.id))
    try:
        run = bench.platform.send(entry, {**event, "trigger": "$trigger"}, idempotency_key="k")
        (seen,) = bench.platform.run_detail(run.id).outputs[ECHO]
        given = {k: v for k, v in event.items() if k != "caller"}
        assert seen["seen"] == {**given, "headers": {"x-reinstate-event": "k"}}
    finally:
        bench.platform.close_private_entry(entry)


def test_the_licence_limits_active_flows_and_the_refusal_says_so(scene: Scene, bench: DirectusBench) -> None:
    made = [scene.workflow(active=False) for _ in range(6)]
    for one in made[:5]:
        bench.platform.activate(one.id)
    with pytest.raises(Full, match="licence"):
        bench.platform.activate(made[5].id)
    assert sum(w.active for w in bench.platform.workflows()) == 5


# Death


def test_a_killed_directus_comes_back_with_runs_entries_and_keys(
    scene: Scene, bench: DirectusBench, directus_estate: RunningEstate
) -> None:
    made, lasting = scene.workflow("v1"), scene.workflow("v1", wait_s=30)
    version = bench.platform.draft_version(made.id)
    entry = bench.platform.open_private_entry(version)
    run = bench.platform.send(entry, {"body": {"n": 1}}, idempotency_key="before")
    before = bench.platform.runs(made.id)
    in_flight = bench.platform.runs(lasting.id)
    process = directus_estate.estate.directus().process()
    assert process is not None
    try:
        os.kill(process.pid, signal.SIGKILL)
        eventually(lambda: directus_estate.estate.directus().process() is None)
        with pytest.raises(Retryable):
            bench.platform.runs(made.id)
        with pytest.raises(Retryable, match=r"nothing was sent|is unreachable"):
            bench.platform.send(entry, {"body": {}}, idempotency_key="down")
    finally:
        addresses = directus_estate.estate.up(("postgres", "directus"))
    assert (addresses.directus_url, addresses.directus_token) == (bench.url, bench.token)
    for platform in (bench.platform, bench.another_process()):
        assert platform.sent(entry) == {"before": [run]}
        assert platform.open_private_entry(version) == entry
        assert platform.runs(made.id) == before
    assert bench.platform.send(entry, {"body": {}}, idempotency_key="after").state is RunState.SUCCESS
    assert bench.platform.runs(lasting.id) == in_flight, "what was in flight is gone without a trace"
    assert abs(bench.platform.health().now - datetime.now(UTC)) < timedelta(seconds=5)
    bench.platform.close_private_entry(entry)


def test_its_role_owns_its_own_database_and_nothing_else(directus_estate: RunningEstate) -> None:
    with psycopg.connect(directus_estate.addresses.superuser_dsn(DATABASE)) as database:
        flags = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
        may = database.execute(f"SELECT {flags} FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone()
        owned = database.execute("SELECT datname FROM pg_database WHERE datdba = %s::regrole", [ROLE]).fetchall()
        makes = database.execute("SELECT has_schema_privilege(%s, %s, 'CREATE')", [ROLE, APP_SCHEMA]).fetchone()
    assert may == (False,) * 5
    assert owned == [(DATABASE,)]
    assert makes == (False,)
