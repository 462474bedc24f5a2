"""What a command prints: a readable line or table for people, one JSON document for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

PIPE_COLUMNS = 1000


def emit(value: Any, *, as_json: bool, text: str | None = None) -> None:
    """Print ``value`` as JSON, or ``text`` for people."""
    if as_json:
        sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n")
    elif text is not None:
        say(text)


def line(value: Any) -> None:
    """One JSON document on one line, at once."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A line for people on standard output, with colours only on a terminal."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=True, emoji=False).print(text, markup=False)


def progress(text: str) -> None:
    """A line about work going on, on standard error so that standard output stays parsable."""
    from datetime import datetime

    from rich.console import Console

    at = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-5]
    Console(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(f"{at}  {text}", style="dim", markup=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table for people. Its first column, which names the row, is never cut; into a pipe nothing is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, title_justify="left", header_style="bold", pad_edge=False, box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        drawn.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    console.print(drawn)


def plain(value: Any) -> Any:
    """JSON-ready form of dataclasses, pydantic values, times and collections."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
