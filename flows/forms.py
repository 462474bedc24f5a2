"""The flows' forms: titles, and dropdowns where the choice is known; and the defaults that a form leaves empty.

Help texts stand in the flows' docstrings, which Prefect shows beside each field; what depends on the catalogue or on
the recovery points is added here, whenever a deployment is made or its choices are refreshed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from prefect.runtime import flow_run

AUTOMATIC: Final = "automatic"
POINTS: Final = 20
TITLES: Final[Mapping[str, str]] = {
    "app": "App",
    "mode": "What comes back",
    "policy": "Rows in conflict",
    "point": "Recovery point",
    "workflows": "Workflows",
    "reason": "Reason",
    "by": "Your name",
    "override": "Resume although not verified: reason",
    "seconds": "How long, in seconds",
    "incident": "Incident (leave empty for the open one)",
    "recovery": "Recovery on record (leave empty for a new plan)",
    "trigger": "Started by (leave as it is)",
    "catalog": "Catalogue (leave as it is)",
}


def schema(
    flow_schema: Mapping[str, Any], *, apps: Sequence[str], points: Sequence[str], workflows: Sequence[str] = ()
) -> dict[str, Any]:
    """A deployment's parameter schema from that of its flow. ``points``: ids of the verified recovery points, newest
    first; ``workflows``: keys of the app's workflows. What is not known stays a field to type into."""
    properties = {k: dict(v) for k, v in flow_schema.get("properties", {}).items()}
    for name, found in properties.items():
        found["title"] = TITLES.get(name, str(found.get("title", name)))
    if "app" in properties and apps:
        properties["app"] |= {"enum": list(apps), **({"default": apps[0]} if len(apps) == 1 else {})}
    if "point" in properties:
        newest = list(points)[:POINTS]
        properties["point"] |= {"enum": [AUTOMATIC, *newest], "default": AUTOMATIC}
        properties["point"]["description"] = told(str(properties["point"].get("description", "")), newest)
    if "workflows" in properties and workflows:
        properties["workflows"] |= {
            "type": "array",
            "items": {"type": "string", "enum": list(workflows)},
            "uniqueItems": True,
            "minItems": 1,
        }
    return {**flow_schema, "properties": properties}


def told(description: str, points: Sequence[str]) -> str:
    """The help text of the recovery points, with the time of each."""
    times = [f"{moment(p)} is {p}" for p in points]
    known = f"Verified, newest first: {'; '.join(times)}." if times else "There is no verified point yet: run protect."
    return f"{description} {known}".strip()


def moment(point: str) -> str:
    """The time in a recovery point's id, as people write it; the id itself when there is none in it."""
    try:
        at = datetime.strptime(point.partition("-")[0], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return point
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def where(catalog: str) -> Path:
    """The catalogue's path: as given, else ``$REINSTATE_CATALOG``. Raises ``catalog.errors.CatalogError``."""
    found = catalog or os.environ.get("REINSTATE_CATALOG", "")
    if not found:
        from catalog.errors import CatalogError

        raise CatalogError("catalogue: the run names none; fill in `catalog`, or set REINSTATE_CATALOG for the server")
    return Path(found).absolute()


def run_name() -> str:
    """``recover order-desk both``; the number follows once the ledger has given one (see ``flows.recover``). A run
    that comes back keeps its name. Reads nothing, so that it can neither fail nor take time."""
    asked = flow_run.parameters or {}
    name = " ".join(str(part) for part in ("recover", asked.get("app"), asked.get("mode", "both")) if part)
    known = str(flow_run.name or "")
    return known if known.startswith(f"{name} #") else name


def contain_name() -> str:
    """``contain order-desk order-intake, payments``."""
    asked = flow_run.parameters or {}
    chosen = asked.get("workflows") or []
    names = ", ".join(map(str, chosen)) if isinstance(chosen, list) else str(chosen)
    return f"contain {asked.get('app')} {names}".strip()[:200]
