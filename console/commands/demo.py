"""`reinstate demo`: the whole loop on a real n8n and a real PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from console import exits, output


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    report: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("report.html"),
    down: Annotated[bool, typer.Option("--down", help="Stop the estate afterwards.")] = False,
    no_journal: Annotated[bool, typer.Option("--no-journal", help="Show what happens without the journal.")] = False,
    journal_gap: Annotated[bool, typer.Option("--journal-gap", help="Disable the journal for a while.")] = False,
) -> None:
    """Watch an app get wrecked by a bad workflow version and come back, every legitimate order and edit kept.

    Starts the estate, provisions the order desk, sends traffic, publishes a bad version, detects, contains, recovers,
    replays, verifies, resumes, and lets an independent judge compare every field with the oracle.
    With DEMO_JSON=path the measured figures are written there. Exit code 6 when a figure falls short.

    Examples: `reinstate demo`, `DEMO_JSON=demo.json reinstate demo --down`.
    """
    from console.demo import Demo
    from console.demo_story import Teller

    json_path = os.environ.get("DEMO_JSON")
    run = Demo(teller=Teller(), report=report, fault="no-journal" if no_journal else "gap" if journal_gap else None)
    passed = run.play(json_path=Path(json_path) if json_path else None, down=down)
    if not passed:
        output.say("the demo did not reach what it must show; see above")
        raise typer.Exit(exits.NOT_PROVEN)
