"""Events on live n8n, behind the ingress: passed through, held over a pause, sent afterwards once each although answers
are lost and the sender is killed; a failed run is run again once. The workflows are not idempotent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from ingress import serving
from ingress.model import State
from ingress.server import Ingress
from platforms.base import Retryable, Run, RunState
from platforms.wrapper import Wrapper
from recovery import delivery, held
from recovery.containment import contain, lower_fence, raise_fence
from recovery.context import AppContext, open_queue
from recovery.delivery import Outcome
from recovery.events import look_up
from recovery.held import Release
from tests.live.logic_story import Story, eventually, staged
from tests.live.n8n_story import N8nStage

pytestmark = [pytest.mark.live, pytest.mark.n8n]
INCIDENT = "INC-EVENTS"


class Killed(BaseException):
    """The process dies here."""


class Struck(httpx.HTTPTransport):
    """The way to n8n: what is sent arrives, and then the answer is lost or the sender dies."""

    def __init__(self, *strikes: str) -> None:
        super().__init__()
        self.strikes = list(strikes)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        strike = self.strikes.pop(0) if self.strikes else None
        answer = super().handle_request(request)
        answer.read()
        if strike == "lost":
            raise httpx.ReadTimeout("time-out")
        if strike == "killed":
            raise Killed
        return answer


class Lost(Wrapper):
    """A platform whose first answer to a retry is lost."""

    def retrigger(self, run_id: str) -> Run:
        super().retrigger(run_id)
        raise Retryable("time-out")


@contextmanager
def behind_the_ingress(story: Story, ctx: AppContext) -> Iterator[str]:
    queue = open_queue(ctx.app, ctx.home, ctx.home / "secrets.env", owner="test")
    assert queue is not None
    queue.set_routes(held.routes(ctx))
    server = Ingress(queue=queue, upstream=story.stage.url, key_of=look_up)
    with serving.in_thread(server.application()) as address:
        yield address
    queue.close()


def test_held_over_a_pause_and_sent_once_whatever_is_lost(n8n_stage: N8nStage, tmp_path: Path) -> None:
    with (
        staged(replace(n8n_stage, ingress=True), tmp_path) as story,
        story.opened() as ctx,
        behind_the_ingress(story, ctx) as address,
        httpx.Client(base_url=address, timeout=30) as world,
    ):
        assert ctx.events is not None

        def send(event: str, workflow: str = "intake") -> httpx.Response:
            body = {"event": event, "total": 20, "order_event": "x"}
            return world.post(story.stage.path(workflow), json=body)

        def count(event: str) -> int:
            return len(story.effects().get(event, []))

        eventually(lambda: send("warm-up").status_code == 200, "n8n answers through the ingress")
        assert world.get("/healthz").status_code == 200, "what is no webhook passes too"
        assert (
            send("passed").json()
            == httpx.post(
                story.stage.url + story.stage.path("intake"), json={"event": "direct", "total": 1}, timeout=30
            ).json()
        )
        eventually(lambda: count("passed") == 1, "an active workflow gets its events")

        contain(ctx, ["intake"], incident=INCIDENT)
        answers = [send(f"h{n}") for n in range(4)] + [send("c", "confirm"), send("h0")]
        assert {a.status_code for a in answers} == {202}
        assert answers[0].json()["event"] == answers[-1].json()["event"], "a sender's own retry is one event"
        assert not any(count(f"h{n}") for n in range(4))

        with ctx.connect("recoverer", "test") as connection:
            lower_fence(ctx, connection, ["intake", "confirm"], INCIDENT)
        for key in ("intake", "confirm"):
            ctx.platform.activate(story.ids[key])
        struck = Struck("lost", "killed")
        for _ in range(2):
            going = Release(
                ctx=ctx,
                queue=ctx.events,
                workflows=("intake", "confirm"),
                incident=INCIDENT,
                recovery=None,
                say=story.said.append,
                transport=struck,
            )
            try:
                going.run()
            except Killed:
                continue
        eventually(lambda: count("c") == 1, "everything was sent")
        assert [count(f"h{n}") for n in range(4)] == [1, 1, 1, 1], "once each"
        assert delivery.unknown(ctx) == []
        sent = [e for e in ctx.events.events() if e.key in {"h0", "h1", "h2", "h3", "c"}]
        assert [e.state for e in sent] == [State.SENT] * 5
        order = [e for (e,) in story.ask("SELECT event FROM {s}.orders WHERE event LIKE 'h%%' ORDER BY id")]
        assert order == ["h0", "h1", "h2", "h3"]
        assert send("after").status_code == 200
        eventually(lambda: count("after") == 1, "free again")

        with ctx.connect("recoverer", "test") as connection:
            raise_fence(ctx, connection, ["intake"], INCIDENT)
            send("failed")

            def failed() -> Run | None:
                runs = ctx.platform.runs(story.ids["intake"])
                return next((r for r in runs if r.state is RunState.ERROR), None)

            run = eventually(failed, "a run that could not write")
            assert run is not None
            lower_fence(ctx, connection, ["intake"], INCIDENT)
        once = delivery.retrigger(replace(ctx, platform=Lost(ctx.platform)), "intake", run.id)
        again = delivery.retrigger(ctx, "intake", run.id)
        assert (once.outcome, again.outcome, again.there) == (Outcome.DONE, Outcome.DONE, True)
        assert count("failed") == 1
