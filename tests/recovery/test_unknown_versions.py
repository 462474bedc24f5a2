"""A platform that tells no versions: what nobody looked at in time may be bad, and comes back the same either way."""

from __future__ import annotations

from typing import Any

import pytest

from checks.model import BadRun
from platforms.dated import Dated
from platforms.fake import FORGETFUL
from platforms.retrying import Retrying
from recovery import history, planning
from recovery.diagnosed import latest
from recovery.errors import Refused
from recovery.plan import PERSON
from snapshots.model import Policy
from tests.recovery.kiosk import Kiosk, app_model, expected

pytestmark = pytest.mark.postgres


def forgetful(kiosk: Kiosk) -> None:
    """Runs carry no version but what our own looks date."""
    kiosk.fake._can = FORGETFUL
    kiosk.platform = Retrying(Dated(kiosk.fake, kiosk.open().book.spans))
    kiosk.configure(caps={"max_deleted_share": 1.0})  # both payments are taken back and made again


@pytest.mark.parametrize("looked", [False, True], ids=["nobody-looked", "looked-after-the-publish"])
def test_the_whole_recovery_without_versions_leaves_each_event_once(
    kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch, looked: bool
) -> None:
    forgetful(kiosk)
    publish = kiosk.publish

    def published(workflow: str, how: str) -> None:
        publish(workflow, how)
        if looked:
            history.observe(kiosk.open())

    monkeypatch.setattr(kiosk, "publish", published)
    incident = kiosk.wreck()
    why = {(b.why, b.version_hash is None) for b in latest(kiosk.open(), incident).bad_runs}
    assert ("version-unknown", True) in why
    assert (("bad-version", False) in why) is looked
    plan = kiosk.plan(incident)
    assert any("do not tell their version and may be bad: they are undone and replayed" in n for n in plan.notes)
    assert any("keeps no versions" in n for n in plan.notes), "the platform's limits are in the plan"
    kiosk.run(plan)
    assert kiosk.rows() == expected()
    assert (kiosk.live("intake"), kiosk.live("payment")) == ("good", "good")


def doubted(kiosk: Kiosk, policy: Policy) -> tuple[list[BadRun], list[str]]:
    """What is left of a bad run and one that may be, where no event key says how to replay them."""
    flows = [w.model_dump() for w in app_model().workflows]
    flows[0]["trigger"]["event_key"] = None
    kiosk.configure(workflows=flows)
    common: dict[str, Any] = {"workflow": "intake", "state": "success", "started_at": None, "attribution": "exact"}
    sure = BadRun(run_id="1", version_hash="b", why="bad-version", xids=(1,), **common)
    unsure = BadRun(run_id="2", version_hash=None, why="version-unknown", xids=(2,), **common)
    notes: list[str] = []
    return planning.doubt(kiosk.open(), [sure, unsure], policy, notes), notes


def test_what_nothing_would_replay_is_refused_by_the_strict_policy(kiosk: Kiosk) -> None:
    with pytest.raises(Refused, match=r"1 runs of intake \(2\) do not tell their version and may be bad"):
        doubted(kiosk, Policy.REFUSE)


def test_what_nothing_would_replay_is_left_to_a_person_by_the_others(kiosk: Kiosk) -> None:
    left, (note,) = doubted(kiosk, Policy.KEEP_LATER)
    assert [b.run_id for b in left] == ["1"]
    assert PERSON in note
