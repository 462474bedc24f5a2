"""What several benchmarks share: made when the first one asks for it, gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from benchmarks import scale

if TYPE_CHECKING:
    from benchmarks.anomaly import Round
    from benchmarks.base import Base
    from benchmarks.service import Service
    from benchmarks.site import Database, Site

Say = Callable[[str], None]
Made = TypeVar("Made")
LAPS: Final = 3


@dataclass(kw_only=True)
class Stage:
    """Use as a context manager. ``number``: rounds of what is measured several times (``None``: as each benchmark
    thinks right); ``rows``: about how many the measured shop has. ``site``: a server to measure on instead of the one
    in the cache folder."""

    say: Say
    number: int | None = None
    rows: int = 0
    site: Site | None = None
    _open: ExitStack = field(default_factory=ExitStack)
    _service: Service | None = None
    _rounds: list[Round] | None = None
    _made: dict[str, object] = field(default_factory=dict)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def service(self) -> Service:
        if self._service is None:
            from benchmarks import service

            self._service = self._open.enter_context(service.running(self.say))
        return self._service

    def rounds(self) -> list[Round]:
        """Anomalies, contained and answered; the same ones for every benchmark that asks."""
        if self._rounds is None:
            from benchmarks import anomaly

            self._rounds = anomaly.rounds(self.service(), self.say, number=self.number or anomaly.ROUNDS)
        return self._rounds

    @property
    def laps(self) -> int:
        """Rounds of what is measured on the shop."""
        return self.number or LAPS

    @property
    def scale(self) -> str:
        return scale.label(self.rows)

    def place(self) -> Site:
        """The server."""
        if self.site is None:
            from benchmarks import site

            self.site = self._open.enter_context(site.opened(self.say))
        return self.site

    def folder(self) -> Path:
        """A new folder that is gone at the end."""
        made = Path(tempfile.mkdtemp(prefix="reinstate-bench-"))
        self._open.callback(shutil.rmtree, made, ignore_errors=True)
        return made

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, made by the first who asks under that name."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]  # type: ignore[return-value]

    def base(self, *, journaled: bool, rows: int | None = None) -> Base:
        """The shop with or without a journal, and its point."""
        from benchmarks import base

        number = rows or self.rows

        def make() -> Base:
            self.say(f"preparing {scale.label(number)} rows {'with' if journaled else 'without'} a journal")
            return base.make(self.place(), number, self.folder(), journaled=journaled)

        return self.once(f"base {number} {journaled}", make)

    def pristine(self, rows: int | None = None) -> Database:
        """The shop without anything of ours, for the rivals."""
        number = rows or self.rows
        site = self.place()
        return self.once(f"pristine {number}", lambda: site.copy(site.template(number)))

    @contextmanager
    def copy(self, of: Database | None) -> Iterator[Database]:
        """A copy for one round, with nothing left to write from what came before."""
        site = self.place()
        with site.borrowed(of) as db:
            site.checkpoint()
            yield db

    def measured(self) -> int:
        """Rows of what was measured: of the shop, else of the app under anomalies, else 0."""
        sizes = [made.rows for made in self._made.values() if hasattr(made, "sums") and hasattr(made, "rows")]
        if sizes or self._service is None:
            return max(sizes, default=0)
        from benchmarks import service

        return service.rows(self._service)
