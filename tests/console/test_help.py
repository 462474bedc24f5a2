"""Help is quick, complete, and gives examples that work; people's output has colours only on a terminal."""

from __future__ import annotations

import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from console import exits, output
from console.main import EPILOG, run
from console.tasks import TASKS
from tests.console.commands import COMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = ("prefect", "pandas", "sqlalchemy", "great_expectations", "pyarrow", "psycopg", "pydantic", "httpx", "numpy")
ISSUED = {
    "demo", "roles", "protect", "points", "watch", "diagnose", "contain", "plan", "recover", "replay", "resume",
    "points show", "points export", "diff", "restore", "undo", "erase",
    "approvals", "approve", "reject", "up", "down", "password",
    "status", "timeline", "report", "notify", "estate up", "estate status", "estate down", "journal install",
    "journal status", "store status", "store verify", "store prune", "store hold", "store release", "store holds",
    "store rotate",
    "journal verify", "journal prune", "journal remove", "maintain",
    "drill run", "drill list", "drill show", "drill trends", "drill clear", "wreck",
    "agreement", "check", "compensations list", "compensations settle", "coverage", "discover", "events discard",
    "events list", "events release", "events retry", "events settle", "events show", "ingress", "workflow diff",
    "workflow export",
    "workflow history", "workflow list", "workflow publish",
}  # fmt: skip


def test_the_commands_are_these() -> None:
    assert set(COMMANDS) == ISSUED


def test_starting_loads_nothing_heavy() -> None:
    script = f"import sys, console.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.strip() == "[]"


def test_help_answers_at_once() -> None:
    """In seconds of processor time, so that a busy machine does not matter."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "console", "--help"], capture_output=True, check=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == exits.OK
    assert re.fullmatch(r"reinstate \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_every_command_has_help_with_examples_that_parse(words: str) -> None:
    text = " ".join((COMMANDS[words].help or "").split())
    assert re.search(r"Examples?:", text), f"{words}: no example"
    examples = [e for e in re.findall(r"`([^`]*)`", text) if f"reinstate {words}" in e]
    assert examples, f"{words}: no example of the command itself"
    for example in examples:
        parse(example)


def parse(line: str) -> None:
    """Parse a command line without running it: its command, options and arguments exist."""
    parts = shlex.split(line.partition("|")[0], comments=True)
    parts = parts[parts.index("reinstate") + 1 :]
    for size in (2, 1):
        command: Any = COMMANDS.get(" ".join(parts[:size]))
        if command is not None:
            command.make_context("reinstate", parts[size:], resilient_parsing=False)
            return
    raise AssertionError(f"{line}: no such command")


@pytest.mark.parametrize("words", sorted(set(COMMANDS) - {"watch"}))
def test_every_command_speaks_json(words: str) -> None:
    assert "--json" in {o for p in COMMANDS[words].params for o in p.opts}


def test_watch_speaks_json_by_lines() -> None:
    assert {"--json", "--json-lines"} <= {o for p in COMMANDS["watch"].params for o in p.opts}


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_help_of_a_command(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words.split(), "--help"]) == exits.OK
    said = capsys.readouterr()
    assert said.err == ""
    assert f"Usage: reinstate {words}" in said.out


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == exits.USAGE
    said = capsys.readouterr().out
    for heading, names in TASKS.items():
        assert f"{heading}:" in said
        for name, summary in names.items():
            if not any(words.split()[0] == name for words in COMMANDS):
                continue
            assert re.search(rf"^  {name} +{re.escape(summary)}$", said, re.MULTILINE), name
    assert "Other:" not in said


def test_the_help_documents_every_exit_code() -> None:
    for number, meaning in exits.MEANING.items():
        assert f"{number} {meaning}" in EPILOG


def test_no_colours_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("[bold]kept as it is[/bold] at:x:y")
    output.table("Points", ["id", "x"], [("i" * 60, "y" * 200), ("[red]1[/red]", None)])
    output.progress("at work")
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "[bold]kept as it is[/bold] at:x:y\n" in said.out
    assert "i" * 60 in said.out
    assert "y" * 200 in said.out
    assert "[red]1[/red]" in said.out
    assert "at work" in said.err
    assert "at work" not in said.out


def test_colours_can_be_forced_off_a_terminal_only_by_the_user() -> None:
    script = "from console import output; output.progress('x')"
    environment = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert "\x1b" not in ended.stderr
