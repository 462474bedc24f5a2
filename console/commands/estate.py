"""`reinstate estate`: the embedded PostgreSQL, n8n and Prefect server."""

from __future__ import annotations

from typing import Annotated

import typer

from console import output
from console.options import Json

HELP = """Start, look at, or stop the embedded PostgreSQL, n8n and Prefect server.

Examples: `reinstate estate up`, `reinstate estate status --json`, `reinstate estate down`.
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)
    group.command()(up)
    group.command()(status)
    group.command()(down)
    app.add_typer(group, name="estate")


def up(
    part: Annotated[list[str] | None, typer.Option(help="postgres, n8n or prefect; all by default.")] = None,
    as_json: Json = False,
) -> None:
    """Start what is not running; a second call returns at once. Downloads what is missing first."""
    from estate import Estate
    from recovery.context import default_home

    parts = tuple(part) if part else ("postgres", "n8n", "prefect")
    addresses = Estate(default_home()).up(parts, progress=output.progress)
    text = (
        f"PostgreSQL {addresses.pg_host}:{addresses.pg_port}\nn8n {addresses.n8n_url}\nPrefect {addresses.prefect_url}"
    )
    shown = {
        "postgres": f"{addresses.pg_host}:{addresses.pg_port}",
        "n8n": addresses.n8n_url,
        "prefect": addresses.prefect_url,
    }
    output.emit(shown, as_json=as_json, text=text)


def status(as_json: Json = False) -> None:
    """Say which parts run, and where."""
    from estate import Estate
    from recovery.context import default_home

    found = Estate(default_home()).status()
    output.emit(found, as_json=as_json, text="\n".join(f"{k}: {v}" for k, v in output.plain(found).items()))


def down() -> None:
    """Stop every part cleanly. The data stays."""
    from estate import Estate
    from recovery.context import default_home

    Estate(default_home()).down()
    output.say("the estate is stopped; its data is kept")
