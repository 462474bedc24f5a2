"""kill -9 of Reinstate all along contain, publish, resume, on each live platform: the rerun ends with exactly the
planned active set, the grants are as they were, and nothing ran twice."""

from __future__ import annotations

import multiprocessing
import signal
import time
from pathlib import Path

import pytest

from checks import suites
from recovery import history
from recovery.windows import encode
from snapshots import position
from tests.live import logic_child
from tests.live.logic_story import STAGES, Stage, Story, eventually, staged

pytestmark = [pytest.mark.live]
EVERY_S = 0.4
CHILD_S = 120.0
MOST = 150
"""More deaths than there are points."""


def die_along(story: Story, since: dict[str, object], folder: Path) -> list[str]:
    """Children that die at ever later points, until one gets to the end; where they died."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload([logic_child.__name__])
    deaths, log = folder / "deaths", folder / "child.log"
    for _ in range(MOST):
        child = start.Process(
            target=logic_child.main, args=(str(story.home), str(story.catalog), since, str(deaths), str(log))
        )
        child.start()
        child.join(CHILD_S)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise AssertionError(f"it hangs after {deaths.read_text('utf-8').splitlines()[-1:]}")
        code = child.exitcode
        child.close()
        if code == 0:
            return deaths.read_text("utf-8").splitlines()
        assert code == -signal.SIGKILL, log.read_text("utf-8")
    raise AssertionError(f"no end after {MOST} deaths: {deaths.read_text('utf-8').splitlines()[-5:]}")


@pytest.mark.parametrize("name", STAGES)
def test_killed_at_every_point_it_ends_as_planned_and_nothing_runs_twice(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage: Stage = request.getfixturevalue(name)
    monkeypatch.setattr(suites, "run", logic_child.passing)
    with staged(stage, tmp_path) as story, story.opened() as ctx, story.traffic(every_s=EVERY_S) as senders:
        good = ctx.platform.live_version(story.ids["intake"])
        assert good is not None
        eventually(lambda: len(story.effects()) >= 3, "good traffic")
        story.protect()
        with ctx.connect("capturer", "test") as connection:
            since = encode(position.current(connection))
        story.publish("intake", "bad", platform=ctx.platform)
        history.observe(ctx)  # as the watcher does all the time
        eventually(lambda: story.ask("SELECT FROM {s}.orders WHERE total >= 1000"), "damage")

        began = time.monotonic()
        died = die_along(story, since, tmp_path)
        print(f"{stage.kind}: {len(died)} deaths in {time.monotonic() - began:.0f} s")
        assert {line.split(":")[0] for line in died} >= {"contain", "publish", "undo", "replay", "resume", "close"}, (
            died
        )
        assert {f"{s}: before its outcome" for s in ("publish:intake", "undo", "replay", "resume:1")} <= {*died}, died

        assert story.active(ctx) == {"intake", "confirm"}
        live = ctx.platform.live_version(story.ids["intake"])
        assert live is not None
        assert live.hash == good.hash
        assert story.granted() == story.grants
        after = time.monotonic()
        eventually(lambda: senders.served(story.effects(), since=after) >= 2, "served by the good version")
        senders.finish()
        eventually(lambda: not story.owed(senders, story.unknown(ctx)), "\n".join(story.owed(senders)))
        assert ctx.ledger.verify() == []
