"""`reinstate drill`: rehearse a disaster in a throw-away sandbox, and look at the scorecards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console import exits, output
from console.errors import BadUse
from console.options import Json

if TYPE_CHECKING:
    from drills.scorecard import Scorecard

HELP = """Rehearse a disaster in a throw-away sandbox, and look at the scorecards of earlier drills.

Examples: `reinstate drill run`, `reinstate drill list`, `reinstate drill trends --out trends.html`.
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)
    group.command()(run)
    group.command("list")(list_)
    group.command()(show)
    group.command()(trends)
    group.command()(clear)
    app.add_typer(group, name="drill")


def run(
    scenario: Annotated[str, typer.Option("--scenario", "-s", help="Which story is played.")] = "bad-version",
    as_json: Json = False,
) -> None:
    """Play one scenario on the example app in a sandbox of its own: control, fault, recovery, judge, scorecard.

    Takes some minutes and touches no app of yours. Exit code 6 when the scorecard is red, 7 when a drill is running.

    Examples: `reinstate drill run`, `reinstate drill run --scenario bad-version --json`.
    """
    from drills import trend_page
    from drills.rehearsal import play
    from drills.scenarios import SCENARIOS
    from recovery.context import default_home

    if scenario not in SCENARIOS:
        raise BadUse(f"drill run: there is no scenario {scenario}; choose one of {', '.join(SCENARIOS)}")
    card = play(scenario, home=default_home(), say=output.progress)
    for worse in trend_page.publish(default_home()).regressions:
        output.progress(f"worse than usual: {worse.text}")
    tell(card, as_json=as_json)
    if not card.passed:
        raise typer.Exit(exits.NOT_PROVEN)


def list_(as_json: Json = False) -> None:
    """List the scorecards, the newest last.

    Example: `reinstate drill list --json`.
    """
    from drills.score_files import listing
    from recovery.context import default_home

    cards = listing(default_home())
    output.emit([c.document() for c in cards], as_json=as_json)
    if as_json:
        return
    if not cards:
        output.say("no drills yet: run `reinstate drill run`")
        return
    rows = [
        (c.drill, c.scenario, "passed" if c.passed else "FAILED", c.total_s, c.loss_s, ", ".join(c.red)) for c in cards
    ]
    output.table("Drills", ["drill", "scenario", "result", "total s", "lost s", "why"], rows)


def show(
    drill: Annotated[str, typer.Argument(help="The drill, as `reinstate drill list` names it.")], as_json: Json = False
) -> None:
    """Show one scorecard.

    Example: `reinstate drill show DRILL-20261121-0001`.
    """
    from drills.score_files import load
    from recovery.context import default_home

    tell(load(default_home(), drill), as_json=as_json)


def trends(
    out: Annotated[
        Path | None, typer.Option(help="The page to write; trends.html in Reinstate's home by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the trends over all drills as one page that opens offline, and name what got worse.

    Examples: `reinstate drill trends`, `reinstate drill trends --out trends.html --json`.
    """
    from drills import trend_page
    from recovery.context import default_home

    if out is not None and not out.absolute().parent.is_dir():
        raise BadUse(f"drill trends: --out {out}: there is no folder {out.parent}; make it first")
    made = trend_page.publish(default_home(), out)
    regressions = [r.text for r in made.regressions]
    output.emit({"page": str(made.file), "drills": made.drills, "regressions": regressions}, as_json=as_json)
    if not as_json:
        output.say(f"{made.file}: {made.drills} drills")
        for text in regressions or ["nothing got worse"]:
            output.say(f"  {text}")


def clear(as_json: Json = False) -> None:
    """Stop and remove the sandboxes of drills that were killed. The next drill does it by itself.

    Example: `reinstate drill clear`.
    """
    from drills.sandbox import clear_abandoned
    from recovery.context import default_home

    cleared = clear_abandoned(default_home(), say=output.progress)
    output.emit({"cleared": cleared}, as_json=as_json, text=f"cleared {', '.join(cleared) or 'nothing'}")


def tell(card: Scorecard, *, as_json: bool) -> None:
    """The card for people or scripts."""
    output.emit(card.document(), as_json=as_json)
    if as_json:
        return
    from drills import score_text

    output.table(card.title, ["figure", "measured", "target"], score_text.figures(card))
    for reason in card.reasons:
        output.say(f"  NOT REACHED: {reason}")
    if card.note:
        output.say(card.note)
    output.say(score_text.headline(card))
