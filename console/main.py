"""Entry point of `reinstate`: commands, help, and the one place where errors become exit codes.

Nothing heavy is imported here: `reinstate --help` must answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Final

import typer

from console import exits
from console.commands import (
    agreement,
    approve,
    check,
    compensations,
    coverage,
    demo,
    diff,
    discover,
    drill,
    erase,
    estate,
    events,
    incident,
    ingress,
    journal,
    look,
    maintain,
    notify,
    points,
    protect,
    recover,
    restore,
    roles,
    store,
    undo,
    up,
    workflow,
    wreck,
)
from console.tasks import ByTask

HELP = """Bring a no-code app back: its workflows and its data, in agreement, proven, then resumed.

Start with `reinstate demo`. At 3 a.m.: `reinstate status`, then `reinstate plan`, then `reinstate recover`.
"""

EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in exits.MEANING.items()) + "."

INTERRUPTED: Final = 130
BAD_USE: Final[type[Exception]] = typer.BadParameter.__mro__[1]
"""Typer's base of all complaints about a command line; it has no public name of its own."""

app = typer.Typer(
    name="reinstate",
    cls=ByTask,
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"reinstate {version('reinstate')}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Options of `reinstate` itself."""


for module in (
    demo,
    drill,
    up,
    estate,
    discover,
    roles,
    check,
    journal,
    protect,
    points,
    store,
    undo,
    diff,
    restore,
    erase,
    incident,
    recover,
    approve,
    look,
    maintain,
    notify,
    wreck,
    workflow,
    agreement,
    ingress,
    events,
    compensations,
    coverage,
):
    module.register(app)


def main() -> None:
    """Run the command line; every error is one line on standard error and a documented exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of one command line."""
    try:
        outcome = app(args=arguments, prog_name="reinstate", standalone_mode=False)
    except typer.Exit as leave:
        return leave.exit_code
    except typer.Abort as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            return complain("interrupted; nothing is lost: run the same command again", INTERRUPTED)
        return complain("stopped; nothing was changed", exits.USAGE)
    except BAD_USE as error:
        return misused(error)
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into exit codes
        return fail(error)
    return outcome if isinstance(outcome, int) else exits.OK


def misused(error: Exception) -> int:
    """What is wrong with the command line, and where its help is; the help itself when nothing was asked for."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        sys.stdout.write(context.get_help() + "\n")
        return exits.USAGE
    what = getattr(error, "format_message", error.__str__)().rstrip(".").replace("Value error, ", "")
    path = context.command_path if context is not None else "reinstate"
    return complain(f"{what}; see `{path} --help`", exits.USAGE)


def fail(error: Exception) -> int:
    """One line about an error. ``REINSTATE_DEBUG=1`` adds where it came from."""
    code = exits.code(error)
    text = str(error) or type(error).__name__
    if code == exits.UNEXPECTED:
        text = f"{type(error).__name__}: {text}"
    if os.environ.get("REINSTATE_DEBUG"):
        traceback.print_exception(error)
    return complain(text, code)


def complain(text: str, code: int) -> int:
    sys.stderr.write(f"reinstate: {' '.join(text.split())}\n")
    return code
