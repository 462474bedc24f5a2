"""How the demo tells its story: acts, lines with the seconds since the start, a closing table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


class Teller:
    """Prints to a terminal or a log; colours only on a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.start = time.monotonic()
        self.act_number = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def act(self, title: str) -> None:
        self.act_number += 1
        self.console.print(f"\n[bold]{self.act_number}. {title}[/bold]")

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{self.seconds:6.1f} s[/dim]  ", end="")
        self.console.print(text, markup=False)

    def figures(self, document: Mapping[str, Any], needed: Mapping[str, str]) -> None:
        """The measured figures beside what they must be."""
        table = Table(title="What an independent judge measured", title_justify="left", pad_edge=False)
        for column in ("figure", "measured", "needed"):
            table.add_column(column)
        for name, value in document.items():
            if isinstance(value, (int, float, str, bool)):
                shown = f"{value:.2f}" if isinstance(value, float) else str(value)
                table.add_row(name, shown, needed.get(name, ""))
        self.console.print(table)
