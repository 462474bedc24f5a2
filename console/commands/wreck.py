"""`reinstate wreck`: break the example app on purpose, for somebody who wants to recover it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console import exits, output
from console.errors import BadUse
from console.options import Json

if TYPE_CHECKING:
    from drills.scenarios import Scenario

LOCK = "wreck.lock"


def register(app: typer.Typer) -> None:
    app.command()(wreck)


def wreck(
    scenario: Annotated[
        str, typer.Option("--scenario", "-s", help="bad-version, schedule-ran-twice or bulk-delete.")
    ] = "bad-version",
    catalog: Annotated[
        Path | None,
        typer.Option("--catalog", "-c", envvar="REINSTATE_CATALOG", help="Only the example's; it is the default."),
    ] = None,
    patience_s: Annotated[float, typer.Option(min=1.0, help="How many seconds to wait for your recovery.")] = 4
    * 3600.0,
    as_json: Json = False,
) -> None:
    """Break the example app on purpose while `reinstate up` runs, wait until you recovered it, then judge.

    Sends live traffic, publishes a fault, keeps events while the app is contained and sends them again. Recover in the
    browser or by command; Ctrl-C ends the waiting. Afterwards an independent judge compares every field with an
    oracle: exit code 0 only if all is right, 6 if not. With --json the story goes to standard error.

    Examples: `reinstate wreck`, `reinstate wreck --scenario bulk-delete --json`.
    """
    from drills.scenarios import SCENARIOS

    if scenario not in SCENARIOS:
        raise BadUse(f"wreck: there is no scenario {scenario}; choose one of {', '.join(SCENARIOS)}")
    verdict = play(SCENARIOS[scenario], catalog, patience_s, as_json=as_json)
    if as_json:
        output.emit(verdict, as_json=True)
    if not verdict["right"]:
        raise typer.Exit(exits.NOT_PROVEN)


def play(scenario: Scenario, catalog: Path | None, patience_s: float, *, as_json: bool) -> dict[str, Any]:
    from rich.console import Console

    from console import wreck as story
    from console.demo_story import Teller
    from console.service.ending import supervisor
    from drills.order_desk import EXAMPLE
    from estate import EstateError, default_home
    from estate.files import locked
    from recovery.context import open_app
    from recovery.errors import Refused

    if catalog is not None and catalog.resolve() not in (EXAMPLE, EXAMPLE / "catalog.yaml"):
        raise Refused(f"wreck: {catalog} is not the example's catalogue, and no other app is broken on purpose")
    estate = story.estate_of(default_home())
    teller = Teller(Console(highlight=False, soft_wrap=True, stderr=as_json))
    try:
        with locked(estate.home / LOCK, patience_s=0.0), open_app(EXAMPLE, "order-desk", estate.home) as ctx:
            if supervisor(estate.home) is None:
                teller.say("`reinstate up` does not run: without a watcher nobody will notice the damage")
            teller.act(scenario.title)
            run = story.Wreck(ctx=ctx, estate=estate, scenario=scenario, say=teller.say, patience_s=patience_s)
            verdict = run.play()
    except KeyboardInterrupt:
        teller.say("ended without a verdict; the app stays as it is: see `reinstate status`")
        raise
    except EstateError as error:
        raise Refused(f"wreck: another one is running: {error}") from None
    teller.act("The verdict")
    teller.say(story.sentence(verdict))
    for lost in verdict["lost"]:
        teller.say(f"lost: {lost}")
    for column, count in verdict["wrong_by_column"].items():
        teller.say(f"wrong: {count} x {column}")
    teller.say("the app is right again" if verdict["right"] else "THE APP IS NOT RIGHT")
    return verdict
