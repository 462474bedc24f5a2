"""Entry point of `reinstate`: commands, help, and the one place where errors become exit codes.

Nothing heavy is imported here: `reinstate --help` must answer at once.
"""

from __future__ import annotations

import sys

import click
import typer

from console import exits
from console.commands import data, demo, estate, incident, look, recover

HELP = """Bring a no-code app back: its workflows and its data, in agreement, proven, then resumed.

Start with `reinstate demo`. At 3 a.m.: `reinstate status`, then `reinstate plan`, then `reinstate recover`.
"""

EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in exits.MEANING.items()) + "."

app = typer.Typer(
    name="reinstate",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (demo, estate, data, incident, recover, look):
    module.register(app)


def main() -> None:
    """Run the command line; every error is one line on standard error and a documented exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of one command line."""
    try:
        outcome = app(args=arguments, prog_name="reinstate", standalone_mode=False)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.exceptions.Abort:
        sys.stderr.write("reinstate: stopped\n")
        return exits.USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("reinstate: interrupted; nothing is lost: run the same command again\n")
        return 130
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into exit codes
        return fail(error)
    return outcome if isinstance(outcome, int) else exits.OK


def fail(error: Exception) -> int:
    code = exits.code(error)
    text = " ".join(str(error).split()) or type(error).__name__
    if code == exits.UNEXPECTED:
        text = f"{type(error).__name__}: {text}"
    sys.stderr.write(f"reinstate: {text}\n")
    return code
