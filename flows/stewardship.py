"""The single duties of the steward, each safe to repeat and to be killed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import Event, Resource
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, PREFECT_UI_URL, temporary_settings
from prefect.states import Crashed

from catalog import secrets
from flows import approval, deployments
from incidents.notices import dispatch
from ledger import kinds
from recovery import approvals, keeping
from recovery.context import AppContext
from recovery.keeping import Announcement, Dead

Say = Callable[[str], None]
EVENTS: Final = UUID("6d0c5a0e-2f0c-4d6a-9f5b-6a3b1c9a7e11")
"""Names the events of this product: the same incident and number give the same event."""


def event_id(announcement: Announcement) -> UUID:
    """The same for the same announcement, so that one that is sent twice counts once."""
    return uuid5(EVENTS, f"{announcement.incident} {announcement.event} {announcement.payload.get('number', 1)}")


def announce(ctx: AppContext, say: Say) -> None:
    """Tell Prefect of each incident that waits for it, then record that it was told."""
    waiting = keeping.unannounced(ctx)
    if not waiting:
        return
    with get_client(sync_client=True) as client:
        if not client.read_automations_by_name(deployments.automation_name(ctx.app.key)):
            return  # nobody would answer: the flows are not served yet
        for announcement in waiting:
            event = Event(
                id=event_id(announcement),
                event=announcement.event,
                resource=Resource({"prefect.resource.id": deployments.resource(ctx.app.key)}),
                payload=announcement.payload,
            )
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
            keeping.announced(ctx, announcement.incident, str(event.id))
            say(f"announced {announcement.incident} of {ctx.app.key} as {announcement.event}")


def expire(ctx: AppContext, say: Say) -> None:
    """Record the plans that nobody decided about in time, and end the runs that still wait with their forms."""
    for shown in keeping.overdue(ctx):
        if approvals.expire(ctx, shown):  # first: who answered at the last moment must not find the run ended
            message = (
                f"Plan {shown.plan_hash[:12]} could be approved until {shown.expires_at:%Y-%m-%d %H:%M:%S} UTC; "
                f"nothing was changed and {approvals.NEXT}."
            )
            approval.end_waiting(shown.flow_run, name="Expired", message=message)
            say(f"plan {shown.plan_hash[:12]} of {shown.recovery} expired; {ctx.app.key} stays contained")


def go_on(ctx: AppContext, say: Say) -> None:
    """Continue recoveries that nobody works on any more: free their place, then start a run that goes on."""
    for dead in keeping.dead(ctx):
        # What follows belongs together: a server that is only busy is asked again.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 5}), get_client(sync_client=True) as client:
            run = known_run(client, dead.flow_run)
            if run is not None and awaited(run):
                continue
            if run is not None and run.state is not None and run.state.is_cancelled():
                leave_to_a_person(ctx, dead)
                say(f"{dead.recovery}: its run was cancelled by a person, so it is not continued")
                continue
            deployment = client.read_deployment_by_name(f"recover/{ctx.app.key}")
            if not keeping.continuing(ctx, dead):
                continue
            if run is not None:
                bury(client, run, dead.why)
            made = client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"recovery": dead.recovery, "trigger": "steward"},
                idempotency_key=dead.key,
            )
            say(f"{dead.recovery}: {dead.why}; continued by run {made.id} (attempt {dead.attempt})")


def known_run(client: SyncPrefectClient, flow_run: str | None) -> FlowRun | None:
    """The run that worked on it, if the server knows one."""
    try:
        return client.read_flow_run(UUID(str(flow_run)))
    except (ValueError, ObjectNotFound):
        return None


def awaited(run: FlowRun) -> bool:
    """Whether the run will begin, or go on, by itself."""
    return run.state is not None and run.state.is_scheduled()


def bury(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    """Give a run that nobody works on the state that tells so: only that frees its place."""
    if run.state is None or not run.state.is_final():
        client.set_flow_run_state(run.id, Crashed(message=f"{why}; another run goes on"), force=True)


def leave_to_a_person(ctx: AppContext, dead: Dead) -> None:
    """Record that a recovery was stopped on purpose; the app stays contained."""
    body = {
        "state": "paused",
        "reason": "its run was cancelled in Prefect",
        "next": "run `recover` again to make a new plan, or `reinstate recover --continue` to go on with this one",
    }
    ctx.ledger.append(
        kinds.RECOVERY_STOPPED, app=ctx.app.key, incident=dead.incident, recovery=dead.recovery, body=body
    )


def send_notices(ctx: AppContext, home: Path, say: Say) -> None:
    """Send what is due on the app's channels."""
    for sent in dispatch.dispatch(
        ctx.ledger,
        ctx.app,
        resolve=lambda ref: secrets.resolve(ref, home / "secrets.env", app=ctx.app.key),
        now=datetime.now(UTC),
        addresses=addresses(),
    ):
        outcome = "sent" if sent.ok else f"not sent ({sent.why})"
        say(f"notice of {sent.incident} ({sent.state}) to {sent.audience} on {sent.channel}: {outcome}")


def addresses() -> Mapping[str, str]:
    """Where responders look."""
    ui = PREFECT_UI_URL.value()
    return {"Prefect": ui} if ui else {}


def keep_choices(ctx: AppContext, apps: Sequence[str]) -> Callable[[], None]:
    """A job that keeps the points which the app's forms offer up to date."""
    known: list[list[str]] = []

    def job() -> None:
        ids = sorted(ctx.store.point_ids(ctx.app.key))
        if known and ids == known[0]:
            return
        offered = deployments.choices(ctx.app)
        with get_client(sync_client=True) as client, suppress(ObjectNotFound):  # not served yet
            for name, flow in deployments.flows().items():
                offer(client, f"{name}/{ctx.app.key}", deployments.form(flow, ctx.app, apps, offered))
            known[:] = [ids]

    return job


def offer(client: SyncPrefectClient, deployment: str, schema: dict[str, Any]) -> None:
    """Give a deployment the form it should have, and change nothing else of it."""
    found = client.read_deployment_by_name(deployment)
    if found.parameter_openapi_schema != schema:
        client.request(
            "PATCH", "/deployments/{id}", path_params={"id": found.id}, json={"parameter_openapi_schema": schema}
        )
