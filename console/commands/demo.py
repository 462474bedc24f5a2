"""`reinstate demo`: the whole loop on a real n8n and a real PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from console import exits, output
from console.errors import BadUse
from console.options import Json


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    report: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("report.html"),
    down: Annotated[bool, typer.Option("--down", help="Stop the estate afterwards.")] = False,
    no_journal: Annotated[bool, typer.Option("--no-journal", help="Show what happens without the journal.")] = False,
    journal_gap: Annotated[bool, typer.Option("--journal-gap", help="Disable the journal for a while.")] = False,
    as_json: Json = False,
) -> None:
    """Watch an app get wrecked by a bad workflow version and come back, every legitimate order and edit kept.

    Starts the estate, provisions the order desk, sends traffic, publishes a bad version, detects, contains, recovers,
    replays, verifies, resumes, and lets an independent judge compare every field with the oracle.
    With DEMO_JSON=path the measured figures are written there; with --json they are printed, the story going to
    standard error. Exit code 6 when a figure falls short.

    Examples: `reinstate demo`, `reinstate demo --json --down`, `reinstate demo --journal-gap`.
    """
    if no_journal and journal_gap:
        raise BadUse("demo: --no-journal and --journal-gap show different things; choose one")
    if not report.parent.is_dir():
        raise BadUse(f"demo: --report {report}: there is no folder {report.parent}; make it first")
    from rich.console import Console

    from console.demo import Demo, Fault
    from console.demo_story import Teller

    teller = Teller(Console(highlight=False, soft_wrap=True, stderr=as_json))
    fault: Fault | None = "no-journal" if no_journal else "gap" if journal_gap else None
    run = Demo(teller=teller, report=report, fault=fault, down=down)
    json_path = os.environ.get("DEMO_JSON")
    figures = Path(json_path) if json_path else report.with_suffix(".json") if as_json else None
    passed = run.play(json_path=figures)
    if as_json and figures is not None:
        output.say(figures.read_text("utf-8"))
    if not passed:
        teller.console.print("the demo did not reach what it must show; see above")
        raise typer.Exit(exits.NOT_PROVEN)
