"""`reinstate estate`: the embedded PostgreSQL, n8n and Prefect server."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from console import output
from console.options import Json

if TYPE_CHECKING:
    from estate import Progress


class Part(StrEnum):
    """What the estate consists of."""

    POSTGRES = "postgres"
    N8N = "n8n"
    PREFECT = "prefect"


HELP = """Start, look at, or stop the embedded PostgreSQL, n8n and Prefect server.

Examples: `reinstate estate up`, `reinstate estate status --json`, `reinstate estate down`.
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)
    group.command()(up)
    group.command()(status)
    group.command()(down)
    app.add_typer(group, name="estate")


def tell(step: Progress) -> None:
    """One line per step of a part."""
    more = step.detail if step.detail != step.stage else ""
    output.progress(f"{step.part}: {step.stage} {more}".rstrip())


def up(
    part: Annotated[list[Part] | None, typer.Option(help="Start only this; may be given again.")] = None,
    as_json: Json = False,
) -> None:
    """Start what is not running; a second call returns at once. Downloads what is missing first.

    Example: `reinstate estate up --part postgres`.
    """
    from estate import PARTS, Estate

    found = Estate().up(tuple(p.value for p in part) if part else PARTS, progress=tell)
    shown = {
        "postgres": f"{found.pg_host}:{found.pg_port}",
        "n8n": found.n8n_url,
        "prefect": found.prefect_url,
        "seconds": round(found.total_s, 1),
        "download_seconds": round(found.download_s, 1),
    }
    output.emit(shown, as_json=as_json, text="\n".join(f"{k}: {v}" for k, v in shown.items()))


def status(as_json: Json = False) -> None:
    """Say which parts run, and where.

    Example: `reinstate estate status --json`.
    """
    from estate import Estate

    found = Estate().status()
    output.emit(found, as_json=as_json)
    if not as_json:
        output.table(
            "Estate", ["part", "state", "address", "log"], [(p.part, p.state, p.address, p.log) for p in found]
        )


def down(as_json: Json = False) -> None:
    """Stop every part cleanly. The data stays.

    Example: `reinstate estate down`.
    """
    from estate import Estate

    estate = Estate()
    estate.down(progress=tell)
    output.emit({"home": estate.home}, as_json=as_json, text="the estate is stopped; its data is kept")
