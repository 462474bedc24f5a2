"""The pages tell the truth: their links and files exist, their commands parse, their exit codes are the real ones."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console import exits
from tests.console.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = {str(p.relative_to(ROOT)): p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w.-]+(?:/[\w.*-]+)+/?|[\w-]+\.(?:py|md|yaml|toml|lock|html)")
MADE = {
    "report.html", "roles.sql", "apps/", "secrets.env", "incident.html", "driver.env", "demo.json", "store/",
    "checks/*.json", "my-app/catalog.yaml", "platforms/node_red.py", "point.json",
}  # fmt: skip
"""Files that a user makes, or a command writes."""
ROOMS = (
    "estate", "ledger", "catalog", "platforms", "snapshots", "checks", "incidents", "recovery", "drills", "flows",
    "console", "tests", "docs", "examples",
)  # fmt: skip


def blocks(text: str) -> Iterator[str]:
    """Lines of code blocks, fenced or indented."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def command_lines(text: str) -> Iterator[str]:
    """Every command line of `reinstate` that a page shows."""
    for line in blocks(text):
        bare = line.removeprefix("$ ")
        if bare.startswith("reinstate "):
            yield bare
    yield from (code for code in CODE.findall(text) if code.startswith("reinstate "))


def parse(line: str) -> None:
    """Parse without running. A command without its arguments names the command; a group names its help."""
    parts = shlex.split(re.split(r"[|>]", line)[0], comments=True)[1:]
    words = [w for w in parts if not w.startswith("-")]
    for size in (2, 1):
        command: Any = COMMANDS.get(" ".join(words[:size]))
        if command is None or parts[:size] != words[:size]:
            continue
        given = parts[size:]
        needed = any(p.required for p in command.params)
        command.make_context("reinstate", given, resilient_parsing=needed and not given)
        return
    group = any(name.startswith(f"{' '.join(words)} ") for name in COMMANDS)
    assert group or parts == ["--help"], f"{line}: no such command"


def test_there_are_pages() -> None:
    assert {"README.md", "docs/design.md", "docs/recover.md", "docs/undo.md", "docs/drill.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in LINK.findall(PAGES[page].read_text()):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert found.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    for code in CODE.findall(PAGES[page].read_text()):
        if code in MADE or not FILE.fullmatch(code) or not code.startswith(tuple(f"{r}/" for r in ROOMS)):
            continue
        assert list(ROOT.glob(code.rstrip("/"))), f"{page}: {code} does not exist"


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page: str) -> None:
    for line in command_lines(PAGES[page].read_text()):
        parse(line)


def test_every_command_is_documented() -> None:
    text = "\n".join(p.read_text() for p in PAGES.values())
    shown = {" ".join(line.split()) for line in command_lines(text)}
    missing = [c for c in COMMANDS if not any(s.startswith(f"reinstate {c}") for s in shown)]
    assert missing == []


def test_the_exit_codes_are_the_real_ones() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|$", PAGES["docs/operate.md"].read_text(), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == exits.MEANING


def test_every_make_target_that_is_named_exists() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, path in PAGES.items():
        for target in re.findall(
            r"\bmake ([a-z-]+)", "\n".join([*blocks(path.read_text()), *CODE.findall(path.read_text())])
        ):
            assert target in known, f"{page}: make {target}"


def test_the_design_gives_a_reason_for_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    design = PAGES["docs/design.md"].read_text()
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["estate"]]:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert f"`{name}`" in design, name


def test_the_pages_describe_every_flow() -> None:
    design = PAGES["docs/design.md"].read_text()
    for flow in {p.stem for p in (ROOT / "flows").glob("*.py")} - {"__init__", "progress"}:
        assert f"| `{flow}` |" in design, flow
