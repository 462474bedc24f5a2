"""What `reinstate up` runs for a catalogue: the processes, their command lines and their settings."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from console.exits import NOT_PROVEN
from console.service.processes import Part

SERVER, STEWARD, PAGES, WATCHER, INGRESS = "server", "steward", "pages", "watcher", "ingress"
FIRST_TO_END = (WATCHER, STEWARD)
"""These begin new work, so they end before those that do it."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One start of `reinstate up`. ``auth`` is ``user:password`` of the Prefect server, empty when it has none.
    ``ingresses`` are the apps whose webhooks we stand in front of."""

    home: Path
    catalog: Path
    apps: tuple[str, ...]
    prefect_api_url: str
    auth: str = field(repr=False)
    pages_port: int
    ingresses: tuple[str, ...] = ()

    @property
    def ui(self) -> str:
        return self.prefect_api_url.removesuffix("/api")

    @property
    def pages_url(self) -> str:
        return f"http://127.0.0.1:{self.pages_port}" if has_pages() else ""


def has_pages() -> bool:
    return importlib.util.find_spec("console.pages") is not None


def environment(service: Service) -> dict[str, str]:
    """Settings that every process gets: where everything is, and no word to the outside."""
    client = service.home / "prefect-client"
    return {
        "REINSTATE_HOME": str(service.home),
        "REINSTATE_CATALOG": str(service.catalog),
        "PREFECT_API_URL": service.prefect_api_url,
        **({"PREFECT_API_AUTH_STRING": service.auth} if service.auth else {}),
        **({"REINSTATE_PAGES_URL": service.pages_url} if service.pages_url else {}),
        "PREFECT_HOME": str(client),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(client / "storage"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
    }


def parts(service: Service) -> tuple[Part, ...]:
    """The processes in the order in which they are started."""
    settings = environment(service)
    catalog = ("--catalog", str(service.catalog))

    def part(name: str, module: str, arguments: Sequence[str] = (), *, stop_s: float = 8.0) -> Part:
        return Part(
            name=name,
            module=module,
            arguments=tuple(arguments),
            environment=settings,
            home=service.home,
            stop_s=stop_s,
            meaning={NOT_PROVEN: "a pause was not proven"},
        )

    made = [part(SERVER, "flows.serve", catalog, stop_s=11.0), part(STEWARD, "flows.steward", catalog)]
    made += [part(f"{INGRESS}-{key}", "console", ("ingress", *catalog, "--app", key)) for key in service.ingresses]
    made += [part(f"{WATCHER}-{key}", "console", ("watch", *catalog, "--app", key, "--json")) for key in service.apps]
    if has_pages():
        made.append(part(PAGES, "console.pages", ("--port", str(service.pages_port))))
    return tuple(made)


def order_of_ending(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Who ends first, and who then."""
    first = [n for n in names if n.startswith(FIRST_TO_END)]
    return first, [n for n in names if n not in first]
