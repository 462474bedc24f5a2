"""`reinstate up | down | password`: everything at work, supervised, behind one password."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console import output
from console.errors import Unreachable
from console.options import Json

if TYPE_CHECKING:
    from collections.abc import Callable

    from console.service.settings import Service
    from estate import Addresses

OwnCatalog = Annotated[
    Path | None,
    typer.Option(
        "--catalog",
        "-c",
        envvar="REINSTATE_CATALOG",
        help="Your own app; without it the example on an embedded estate.",
    ),
]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON document per line and piece of news.")]


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(password)


def up(
    catalog: OwnCatalog = None,
    port: Annotated[int, typer.Option(help="Port of the Prefect server; the one it had before by default.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start the example from its first day.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only show the processes.")] = False,
    show_password: Annotated[
        bool, typer.Option("--show-password", help="Print the password too, on a terminal.")
    ] = False,
    as_json: JsonLines = False,
) -> None:
    """Run everything until Ctrl-C: Prefect server, flows, watcher, steward and pages; supervised, restarted, stopped.

    Without --catalog: the example order desk on an embedded PostgreSQL and n8n, made once and kept. With it: your app;
    PREFECT_API_URL and PREFECT_API_AUTH_STRING may name a Prefect server of yours.
    Examples: `reinstate up`, `reinstate up --catalog my-app`, `reinstate up --status`, `reinstate down`.
    """
    from estate import default_home

    home = default_home().absolute()
    if status:
        processes(home, as_json=as_json)
        return
    from console.service.news import teller
    from console.service.run import Up

    run = Up(
        home=home,
        catalog=catalog,
        port=port,
        fresh=fresh,
        news=teller(as_json=as_json),
        show=ready(as_json=as_json, show_password=show_password and sys.stdout.isatty()),
    )
    run.run()


def ready(*, as_json: bool, show_password: bool) -> Callable[[Service, Addresses | None], None]:
    """Says, once, where everything is and what to do next."""

    def show(service: Service, addresses: Addresses | None) -> None:
        facts = {
            "prefect": service.ui,
            "pages": service.pages_url,
            "n8n": addresses.n8n_url if addresses else "",
            "user": service.auth.partition(":")[0],
            "home": str(service.home),
            "catalog": str(service.catalog),
            "apps": list(service.apps),
        }
        if as_json:
            output.line({"event": "ready", "text": "everything runs", **facts})
            return
        for line in welcome(service, facts, show_password=show_password):
            output.say(line)

    return show


def welcome(service: Service, facts: dict[str, Any], *, show_password: bool) -> list[str]:
    """What a person reads once everything runs."""
    lines = ["", "Everything runs.", f"  Prefect  {facts['prefect']}"]
    if facts["pages"]:
        lines.append(f"  pages    {facts['pages']}")
    if facts["n8n"]:
        lines.append(f"  n8n      {facts['n8n']}")
    if service.auth:
        secret = service.auth.partition(":")[2] if show_password else "what `reinstate password` prints"
        lines.append(
            f"Sign in to Prefect with {facts['user']}:PASSWORD in its one field, to the pages as {facts['user']}; "
            f"PASSWORD is {secret}"
        )
    if facts["n8n"]:
        lines.append(
            "Next: `reinstate wreck` in another terminal breaks the order desk; then run `recover` in Prefect."
        )
    else:
        lines.append("Next: in Prefect, run `protect` once, and `drill` to see a recovery.")
    lines.append(f"Commands find this app with: export REINSTATE_CATALOG={service.catalog}")
    lines.append("Ctrl-C, or `reinstate down` in another terminal, stops everything.")
    return lines


def processes(home: Path, *, as_json: bool) -> None:
    """The supervised processes and the estate's parts as they are now."""
    from console.service import ending
    from console.service import processes as found
    from estate import Estate
    from estate.process import read_record

    rows: list[dict[str, Any]] = []
    above = ending.supervisor(home)
    rows.append({"part": "up", "state": "up" if above else "down", "pid": above.pid if above else None, "log": ""})
    for name in found.recorded(home):
        record = read_record(home / found.FOLDER / f"{name}.pid")
        process = record.process() if record else None
        state = "up" if process else "down"
        log = str(home / "logs" / f"{name}.log")
        rows.append({"part": name, "state": state, "pid": process.pid if process else None, "log": log})
    rows += [{"part": p.part, "state": p.state, "pid": p.pid, "log": str(p.log)} for p in Estate(home).status()]
    output.emit(rows, as_json=as_json)
    if not as_json:
        output.table("Processes", ["part", "state", "pid", "log"], [tuple(r.values()) for r in rows])


def down(as_json: Json = False) -> None:
    """Stop everything that `reinstate up` runs, from another terminal. The data stays.

    Example: `reinstate down`.
    """
    from console.service import ending
    from estate import default_home

    home = default_home().absolute()
    was_running = ending.down(home)
    text = "everything is stopped; its data is kept" if was_running else "nothing was running"
    output.emit({"home": home, "was_running": was_running}, as_json=as_json, text=text)


def password(as_json: Json = False) -> None:
    """Print the password of the Prefect server's pages and of our own; the user is `operator`.

    Examples: `reinstate password`, `reinstate password --json`.
    """
    from estate import Estate

    user, _, secret = Estate().addresses().prefect_auth.partition(":")
    if not secret:
        raise Unreachable("password: there is none yet; `reinstate up` makes it")
    output.emit({"user": user, "password": secret}, as_json=as_json, text=secret)
