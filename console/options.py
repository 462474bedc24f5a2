"""Options shared by the commands, and opening the app they name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from recovery.context import AppContext

Catalog = Annotated[
    Path,
    typer.Option("--catalog", "-c", envvar="REINSTATE_CATALOG", help="Catalogue: a YAML file or a folder with one."),
]
AppKey = Annotated[
    str | None, typer.Option("--app", "-a", envvar="REINSTATE_APP", help="App; the only one by default.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for scripts.")]
Incident = Annotated[str | None, typer.Option("--incident", "-i", help="Incident; the open one by default.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")]
Mode = Annotated[Literal["both", "logic", "data"], typer.Option("--mode", "-m", help="logic: definitions; data: rows.")]
Policy = Annotated[
    Literal["refuse", "non-conflicting-only", "keep-later"],
    typer.Option(help="What to do with rows on which the undo and later work conflict."),
]
Point = Annotated[
    str | None, typer.Option(help="Verified recovery point of the good definitions; derived from evidence by default.")
]

DEFAULT_CATALOG = Path("catalog.yaml")


@contextmanager
def opened(catalog: Path, app: str | None) -> Iterator[AppContext]:
    from recovery.context import open_app

    with open_app(catalog, app) as ctx:
        yield ctx
