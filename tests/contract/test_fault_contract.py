"""Both wrappers around every platform: what may be repeated ends right whatever goes wrong on the way, what may happen
only once never happens twice, and after an answer that tells nothing the state is read back."""

from collections.abc import Callable
from typing import Any

import pytest

from platforms.base import Permanent, Platform, Retryable, RunState
from platforms.faulty import Fault, FaultKind, Faulty
from platforms.retrying import Retrying
from tests.contract.bench import QUERY, Scene, eventually, fresh

pytestmark = pytest.mark.contract

NOT_DONE = (FaultKind.TIMEOUT, FaultKind.SERVER_ERROR)
DONE_BUT_UNKNOWN = (FaultKind.LOST_REPLY, FaultKind.CUT_ANSWER)
PASSING = (*NOT_DONE, *DONE_BUT_UNKNOWN, FaultKind.SLOW)
READS = ("health", "workflows", "draft_version", "live_version", "versions", "runs", "latest_run", "credentials")
WRITES = ("save", "activate", "deactivate", "ingress_paused")

every_fault = pytest.mark.parametrize("kind", PASSING)


def wrapped(scene: Scene, kind: FaultKind, *methods: str) -> tuple[Retrying, Faulty]:
    """The platform, whose ``methods`` each go wrong once."""
    faulty = Faulty(scene.platform, [Fault(kind=kind, method=method, seconds=0.02) for method in methods])
    return Retrying(faulty, first_wait_s=0.001, longest_wait_s=0.002), faulty


def attempt(kind: FaultKind, call: Callable[[], Any]) -> None:
    """What may happen only once is tried once: it answers slowly, or fails and leaves open what happened."""
    if kind is FaultKind.SLOW:
        call()
    else:
        with pytest.raises(Retryable):
            call()


@every_fault
def test_what_may_be_repeated_ends_right(scene: Scene, kind: FaultKind) -> None:
    made = scene.workflow("v1", active=False)
    platform, faulty = wrapped(scene, kind, *READS, *WRITES)
    first = platform.draft_version(made.id)
    second = platform.save(made.id, scene.bench.edited(first.definition, "v2"))
    platform.activate(made.id, second.platform_version)
    live = platform.live_version(made.id)
    assert live is not None
    assert (live.hash, platform.draft_version(made.id).hash) == (second.hash, second.hash)
    assert len(platform.versions(made.id)) == (2 if scene.can.keeps_versions else 0)
    assert [w.active for w in platform.workflows() if w.id == made.id] == [True]
    assert (platform.runs(made.id), platform.latest_run(made.id), platform.credentials(made.id)) == ([], None, [])
    platform.deactivate(made.id)
    eventually(lambda: platform.ingress_paused(made.id))
    assert platform.health().ok
    assert (scene.platform.live_version(made.id), scene.platform.draft_version(made.id).hash) == (None, second.hash)
    assert faulty.hits == [1] * len(faulty.faults)


@every_fault
def test_an_event_is_never_sent_twice_and_read_back_where_that_is_possible(scene: Scene, kind: FaultKind) -> None:
    made = scene.workflow("v1", active=False)
    platform, faulty = wrapped(scene, kind, "send", "open_private_entry", "sent", "close_private_entry")
    version = scene.platform.draft_version(made.id)
    if not scene.can.replays_privately:
        with pytest.raises(Permanent):
            platform.open_private_entry(version)
        return
    event = {"body": {"mark": (mark := fresh("mark"))}, "headers": {}, "query": dict(QUERY)}
    entry = platform.open_private_entry(version)
    attempt(kind, lambda: platform.send(entry, event, idempotency_key=mark))
    expected = ["v1"] if kind not in NOT_DONE else []
    assert eventually(lambda: scene.bench.effects(mark) == expected)
    known = platform.sent(entry)
    if scene.can.reads_back_events:
        assert [r.state for r in known.get(mark, [])] == [RunState.SUCCESS] * len(expected)
        if mark not in known:
            platform.send(entry, event, idempotency_key=mark)
        assert scene.bench.effects(mark) == ["v1"]
    else:
        assert known == {}  # nobody can be asked: the event stays unknown, and is not sent again
    platform.close_private_entry(entry)
    assert faulty.hits == [1] * len(faulty.faults)


@every_fault
def test_a_run_is_never_started_again_twice(scene: Scene, kind: FaultKind) -> None:
    if not (scene.can.executions and scene.can.retriggers):
        with pytest.raises(Permanent):
            scene.platform.retrigger("999999999")
        return
    made = scene.workflow("v1")
    failed = scene.run(made.id, {"fail": "v1"})
    mark = str(scene.mark(failed.id))
    scene.platform.save(made.id, scene.bench.edited(scene.content(made.id), "v2"))
    platform, faulty = wrapped(scene, kind, "retrigger")

    def again() -> list[str]:
        return [r.id for r in platform.runs(made.id) if r.retry_of == failed.id]

    attempt(kind, lambda: platform.retrigger(failed.id))
    if not again():
        assert kind in NOT_DONE
        platform.retrigger(failed.id)
    assert eventually(lambda: scene.bench.effects(mark)) == ["v2"]
    assert (len(again()), faulty.hits) == (1, [1])


@every_fault
def test_a_workflow_is_never_made_twice(scene: Scene, kind: FaultKind) -> None:
    made = scene.workflow("v1", active=False)
    before = scene.platform.draft_version(made.id)
    scene.bench.delete(made.id)
    platform, faulty = wrapped(scene, kind, "create")

    def there() -> list[str]:
        return [w.id for w in platform.workflows() if w.name == made.name]

    attempt(kind, lambda: platform.create(before.definition, workflow_id=made.id))
    assert len(there()) == (0 if kind in NOT_DONE else 1)
    if scene.can.keeps_ids or not there():
        platform.create(before.definition, workflow_id=made.id)
    (again,) = there()
    scene.made.append(again)
    assert scene.platform.draft_version(again).hash == before.hash
    assert (again == made.id, faulty.hits) == (scene.can.keeps_ids, [1])


def test_a_refused_key_is_permanent_and_not_tried_again(scene: Scene) -> None:
    made = scene.workflow(active=False)
    content = scene.content(made.id)
    calls: dict[str, Callable[[Platform], Any]] = {
        "health": lambda p: p.health(),
        "workflows": lambda p: p.workflows(),
        "save": lambda p: p.save(made.id, scene.bench.edited(content, "v2")),
        "activate": lambda p: p.activate(made.id),
        "deactivate": lambda p: p.deactivate(made.id),
        "runs": lambda p: p.runs(made.id),
        "create": lambda p: p.create({**content, "name": fresh()}, workflow_id=None),
        "credentials": lambda p: p.credentials(made.id),
    }
    before = [w.name for w in scene.platform.workflows()]
    for method, call in calls.items():
        platform, faulty = wrapped(scene, FaultKind.EXPIRED_TOKEN, method)
        with pytest.raises(Permanent, match="key"):
            call(platform)
        assert faulty.hits == [1]
    assert [w.name for w in scene.platform.workflows()] == before
    assert scene.platform.hashes(scene.content(made.id)) == scene.platform.hashes(content)


@pytest.mark.parametrize("lie", [FaultKind.LYING_PAUSE, FaultKind.LYING_PAUSE_AND_ENTRY])
def test_a_pause_that_lies_shows_in_what_happens(scene: Scene, lie: FaultKind) -> None:
    made = scene.workflow("v1")
    faulty = Faulty(scene.platform, [Fault(kind=lie, workflow_id=made.id)])
    faulty.deactivate(made.id)
    assert faulty.live_version(made.id) is None
    assert faulty.ingress_paused(made.id) is (lie is FaultKind.LYING_PAUSE_AND_ENTRY)
    assert scene.tag(made.id) == "v1"
    assert bool(faulty.latest_run(made.id)) is scene.can.executions


def test_a_publish_that_stays_a_draft_shows_in_what_is_live(scene: Scene) -> None:
    made = scene.workflow("v1")
    old = scene.platform.live_version(made.id)
    assert old is not None
    faulty = Faulty(scene.platform, [Fault(kind=FaultKind.DRAFT_ONLY_PUBLISH, workflow_id=made.id)])
    new = faulty.save(made.id, scene.bench.edited(old.definition, "v2"))
    faulty.activate(made.id, new.platform_version)
    assert faulty.draft_version(made.id).hash == new.hash
    live = faulty.live_version(made.id)
    assert live is not None
    assert live.hash == (old.hash if scene.can.draft_apart_from_live else new.hash)


def test_a_stopped_run_that_completes_after_all_shows_in_its_effect(scene: Scene) -> None:
    made = scene.workflow("v1", wait_s=4 * scene.short_s)
    if not (scene.can.shows_in_flight and scene.can.stops_runs):
        with pytest.raises(Permanent):
            scene.platform.stop("999999999")
        return
    run = scene.run(made.id, ended=False)
    mark = str(scene.mark(run.id))
    faulty = Faulty(scene.platform, [Fault(kind=FaultKind.STOPPED_RUN_COMPLETES)])
    faulty.stop(run.id)
    assert faulty.run_detail(run.id).run.state is RunState.CANCELED
    assert eventually(lambda: scene.bench.effects(mark)) == ["v1"]
    assert eventually(lambda: faulty.run_detail(run.id).run.state is RunState.SUCCESS)
