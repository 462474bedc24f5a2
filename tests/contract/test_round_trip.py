"""What was published and exported again is what was published, whatever it holds: generated workflows over the kinds of
steps that the platform has, from a handful to hundreds, in memory and live."""

import json
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platforms.base import Definition, Platform
from platforms.fake import EVERYTHING, FLOW_ENGINE, FORGETFUL, FakePlatform
from tests.contract import generated, n8n_graphs
from tests.contract.bench import fresh

pytestmark = pytest.mark.contract


class Maker(Protocol):
    """Makes a definition by chance, in the platform's own form."""

    def __call__(self, chance: Random, size: int) -> Definition: ...


def same(platform: Platform, told: Definition, definition: Definition) -> None:
    """What was exported hashes like what was written, and reads like it."""
    exported = json.loads(json.dumps(told))
    assert platform.hashes(exported) == platform.hashes(definition)
    assert platform.outline(exported) == platform.outline(definition)


def holds(platform: Platform, definition: Definition, publishable: Definition | None = None) -> str:
    """Make, save, publish and export, and save the export: hashes and outline stay, and nothing is written twice.
    ``publishable`` is what may go live of a definition that the platform would not let. Returns the workflow's id."""
    own = platform.create(definition).workflow_id
    same(platform, platform.draft_version(own).definition, definition)
    wanted = publishable or definition
    saved = platform.save(own, wanted)
    platform.activate(own, saved.platform_version)
    live = platform.live_version(own)
    assert live is not None
    assert (live.hash, live.settings_hash) == platform.hashes(wanted)
    same(platform, live.definition, wanted)
    before = platform.versions(own)
    platform.save(own, json.loads(json.dumps(live.definition)))
    assert platform.versions(own) == before
    platform.deactivate(own)
    return own


def n8n_maker(kinds: list[generated.Kind], credentials: Mapping[str, Mapping[str, str]], calls: list[str]) -> Maker:
    def make(chance: Random, size: int) -> Definition:
        name = f"{fresh('round')} {generated.text(chance)}"
        drawn = generated.graph(chance, kinds, name=name, size=size, start=n8n_graphs.WEBHOOK)
        return n8n_graphs.assembled(drawn, credentials=credentials, calls=calls)

    return make


IN_MEMORY = n8n_maker(list(n8n_graphs.IN_MEMORY), {"postgres": {"id": "c-1", "name": "shop"}}, ["workflow-1"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from((EVERYTHING, FORGETFUL, FLOW_ENGINE)))
def test_any_workflow_survives_the_platform_in_memory(seed: int, size: int, capabilities: Any) -> None:
    holds(FakePlatform(capabilities=capabilities), IN_MEMORY(generated.chance_of(seed), size))


def test_a_workflow_of_hundreds_of_steps_survives_the_platform_in_memory() -> None:
    definition = IN_MEMORY(generated.chance_of(5), 260)
    assert len(definition["nodes"]) >= 260
    holds(FakePlatform(), definition)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_a_workflow_without_one_of_its_nodes_is_another_one(seed: int) -> None:
    chance = generated.chance_of(seed)
    definition = IN_MEMORY(chance, 12)
    lost = chance.choice([n for n in definition["nodes"] if not n["type"].endswith("stickyNote")])
    fake = FakePlatform()
    assert fake.hashes({**definition, "nodes": [n for n in definition["nodes"] if n != lost]}) != fake.hashes(
        definition
    )


@pytest.fixture(scope="session")
def n8n_live(n8n_bench: Any, estate: Any) -> Iterator[tuple[Any, Maker, int]]:
    """The live n8n, a maker over the kinds that it describes, and how many these are."""
    kinds = n8n_graphs.described(n8n_bench.url, estate.home)
    credential = {"id": n8n_bench.credential(name := fresh("round")), "name": name}
    called = n8n_bench.create(n8n_bench.definition(fresh("called"), "v1"))
    n8n_bench.platform.activate(called)  # n8n publishes no caller of what is not published
    often = [*kinds, *n8n_graphs.IN_MEMORY * 12]
    yield n8n_bench, n8n_maker(often, {"postgres": credential}, [called]), len(kinds)
    n8n_bench.delete(called)


@pytest.mark.live
@pytest.mark.n8n
@pytest.mark.parametrize(("seed", "size"), [(1, 5), (2, 40), (3, 120), (4, 240), (5, 60), (6, 60), (7, 60), (8, 60)])
def test_any_workflow_survives_live_n8n(n8n_live: tuple[Any, Maker, int], seed: int, size: int) -> None:
    bench, make, kinds = n8n_live
    assert kinds > 300
    definition = make(generated.chance_of(seed), size)
    workflow_id = holds(bench.platform, definition, publishable=n8n_graphs.publishable(bench, definition))
    same(
        bench.platform,
        bench.api.get(f"/workflows/{workflow_id}").json(),
        bench.platform.draft_version(workflow_id).definition,
    )
    bench.delete(workflow_id)
