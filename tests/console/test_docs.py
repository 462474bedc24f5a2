"""The pages tell the truth: their links and files exist, their commands parse, their exit codes are the real ones."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from catalog.load import load
from catalog.models import App
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
    tasks = ("first-steps", "recover-in-the-ui", "recover-in-the-terminal", "catalogue", "drill", "deploy", "operate")
    assert {"README.md", "docs/design.md", "docs/undo.md", *(f"docs/{t}.md" for t in tasks)} <= set(PAGES)


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(LINK.findall(PAGES["README.md"].read_text()))
    assert {p for p in PAGES if p.startswith("docs/")} <= {t.partition("#")[0] for t in linked}


def test_every_picture_has_a_text_and_every_file_is_shown() -> None:
    shown = set()
    for page, path in PAGES.items():
        for text, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", path.read_text()):
            assert len(text.split()) >= 3, f"{page}: {target} needs a text for who cannot see it"
            shown.add((path.parent / target).resolve())
    pictures = {p.resolve() for p in (ROOT / "docs" / "pictures").glob("*")}
    assert pictures <= shown
    for picture in pictures & shown:
        assert picture.read_bytes().startswith(b"\x89PNG"), picture
        assert picture.stat().st_size < 500_000, picture


def test_the_catalogue_of_the_page_is_a_catalogue(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGES["docs/catalogue.md"].read_text(), re.DOTALL)
    (tmp_path / "catalog.yaml").write_text(text)
    assert load(tmp_path).apps[0].key == "web-shop"


def fields_of(model: type[BaseModel]) -> Iterator[str]:
    """Names of the fields of a model and of those it holds."""
    for name, field in model.model_fields.items():
        yield name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from fields_of(inner)


def test_every_field_of_a_catalogue_is_explained() -> None:
    page = PAGES["docs/catalogue.md"].read_text()
    words = {w for code in CODE.findall(page) for w in re.split(r"[^\w-]+", code)}
    words |= set(re.findall(r"^ *-? *(\w+):", page, re.MULTILINE))
    words |= set(re.findall(r"`(\w+)`", PAGES["docs/notices.md"].read_text()))
    assert set(fields_of(App)) - words == set()


def test_the_pages_name_every_end_of_a_recovery() -> None:
    from flows.states import NAMES, RESTORED

    page = PAGES["docs/recover-in-the-ui.md"].read_text()
    for name, _ in (*NAMES.values(), *RESTORED.values()):
        assert name in page, name


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
    flows = {p.stem for p in (ROOT / "flows").glob("*.py") if re.search(r"^@flow\b", p.read_text(), re.MULTILINE)}
    assert {"protect", "recover", "drill"} <= flows
    for page, form in (("docs/design.md", "| `{}` |"), ("docs/deploy.md", "| `{}/order-desk` |")):
        for flow in flows:
            assert form.format(flow) in PAGES[page].read_text(), f"{page}: {flow}"
