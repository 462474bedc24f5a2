"""`reinstate roles`: the SQL of the three least-privilege roles."""

from __future__ import annotations

from typing import Annotated

import typer

from console import output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened


def register(app: typer.Typer) -> None:
    app.command()(roles)


def roles(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    print_sql: Annotated[bool, typer.Option("--print-sql", help="Print the SQL; nothing is ever run.")] = True,  # noqa: ARG001
    as_json: Json = False,
) -> None:
    """Print the SQL that gives the three least-privilege roles what they need. An administrator runs it once.

    Example: `reinstate roles --print-sql | psql "$ADMIN_DSN"`.
    """
    from recovery import setup

    with opened(catalog, app) as ctx:
        text = setup.roles_sql(ctx)
    output.emit({"sql": text}, as_json=as_json, text=text)
