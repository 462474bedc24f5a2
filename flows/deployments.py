"""What is deployed for an app: its flows, when they run, what starts them, and the choices their forms offer.

Everything here may be repeated: a deployment, its schedule and its automation are found again by name. What an
operator paused stays paused; everything else is as the catalogue says.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.callables import ParameterSchema

from catalog.models import App
from flows import forms
from recovery.context import default_home
from recovery.keeping import CONTAINED

NAMES: Final = ("protect", "watch", "contain", "recover", "resume", "drill", "maintain")
TRIGGERED: Final = {
    "incident": "{{ event.payload.incident }}",
    "policy": "non-conflicting-only",
    "trigger": "event",
}
"""Parameters of a recovery that the event starts: what conflicts is left to a person, the rest comes back."""


def flows() -> dict[str, Flow[Any, Any]]:
    """Every flow, by name."""
    return {name: getattr(importlib.import_module(f"flows.{name}"), name) for name in NAMES}


def resource(app: str) -> str:
    """How events name an app."""
    return f"reinstate.app.{app}"


def choices(app: App, *, most: int = 20) -> list[str]:
    """Ids of the app's verified recovery points, newest first."""
    from recovery.context import open_store
    from snapshots.points import points

    home = default_home()
    found = points.listing(open_store(app, home, home / "secrets.env"), app.key).points
    return [p.id for p in found if p.verified][:most]


def given(flow: Flow[Any, Any], app: App, catalog: Path) -> dict[str, Any]:
    """Parameters that the deployment knows already, so that nobody has to type them."""
    known = {"app": app.key}
    if "catalog" in flow.parameters.required:  # the others know it from their environment
        known["catalog"] = str(catalog)
    return known


def form(flow: Flow[Any, Any], app: App, apps: Sequence[str], points: Sequence[str]) -> dict[str, Any]:
    """The flow's form: dropdowns where the choice is known, and the app filled in."""
    workflows = [w.key for w in app.workflows]
    schema = forms.schema(flow.parameters.model_dump(), apps=apps, points=points, workflows=workflows)
    properties = {**schema["properties"]}
    if "app" in properties:
        properties["app"] = {**properties["app"], "default": app.key}
    return {**schema, "properties": properties}


def schedules(name: str, app: App, known: DeploymentResponse | None) -> list[DeploymentScheduleCreate]:
    """When the flow runs by itself, by the catalogue; off where an operator switched it off."""
    cron = getattr(app.schedules, name, "")
    if not cron:
        return []
    off = {s.slug for s in known.schedules if not s.active} if known is not None else set()
    return [
        DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone="UTC"), active=name not in off, slug=name)
    ]


def deployment(
    name: str,
    flow: Flow[Any, Any],
    app: App,
    catalog: Path,
    *,
    schema: Mapping[str, Any],
    known: DeploymentResponse | None,
) -> RunnerDeployment:
    """The deployment ``<flow>/<app>``: at most one run at a time."""
    made = RunnerDeployment.from_flow(
        flow,
        name=app.key,
        schedules=list(schedules(name, app, known)),
        parameters=given(flow, app, catalog),
        description=flow.description,
        tags=[name, app.key, "reinstate"],
        concurrency_limit=1,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made._parameter_openapi_schema = ParameterSchema.model_validate(dict(schema))
    return made


async def find(client: PrefectClient, name: str, app: str) -> DeploymentResponse | None:
    """The deployment on the server."""
    try:
        return await client.read_deployment_by_name(f"{name}/{app}")
    except ObjectNotFound:
        return None


def automation_name(app: str) -> str:
    return f"recover {app} when contained"


def automation(app: str, deployment_id: Any, *, enabled: bool = True) -> AutomationCore:
    """What starts a recovery when the app was contained."""
    trigger = DeploymentEventTrigger(
        name=automation_name(app),
        description="Starts a recovery as soon as an anomaly was contained. Made anew when it is missing.",
        enabled=enabled,
        match={"prefect.resource.id": resource(app)},
        expect={CONTAINED},
        parameters=dict(TRIGGERED),
    )
    trigger.set_deployment_id(deployment_id)
    # Owned by nobody: whatever a deployment owns is deleted, and missing for a moment, whenever it is deployed again.
    return trigger.as_automation().model_copy(update={"owner_resource": None})


async def automate(client: PrefectClient, app: str, deployment_id: Any) -> None:
    """Make the automation, or put right the one there is; an operator's pause survives."""
    wanted = automation(app, deployment_id)
    known = await client.read_automations_by_name(wanted.name)
    if not known:
        await client.create_automation(wanted)
        return
    kept, *doubled = known
    for one in doubled:
        await client.delete_automation(one.id)
    if _plain(kept) != _plain(wanted):
        await client.update_automation(kept.id, wanted.model_copy(update={"enabled": kept.enabled}))


def _plain(core: AutomationCore) -> dict[str, Any]:
    """What decides whether two automations do the same."""
    body = core.model_dump(mode="json", include={"name", "description", "trigger", "actions"})
    trigger = body["trigger"]
    return {
        "name": body["name"],
        "description": body["description"],
        "match": trigger.get("match"),
        "expect": sorted(trigger.get("expect") or []),
        "actions": [{k: a.get(k) for k in ("type", "deployment_id", "parameters")} for a in body["actions"]],
    }
