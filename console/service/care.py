"""Keeping the estate's own parts up while `reinstate up` runs: a part that is gone is started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from console.errors import Unreachable
from console.service.news import News
from estate import Estate, EstateError

LOOK_S: Final = 2.0
SILENT_S: Final = 60.0
"""A part that is there and does not answer so long is started again; a busy machine may make it slow."""


@dataclass(kw_only=True)
class Care:
    """Cares for ``wanted`` parts of the estate. ``moved`` is called after each repair: addresses may have changed."""

    estate: Estate
    wanted: Sequence[str]
    news: News
    moved: Callable[[], None] = lambda: None
    silent_since: dict[str, float] = field(default_factory=dict)
    _looked: float = 0.0
    _repair: threading.Thread | None = None

    def tend(self) -> None:
        """Look now and then; repairs go on in a thread of their own."""
        now = time.monotonic()
        if not self.wanted or now - self._looked < LOOK_S or (self._repair is not None and self._repair.is_alive()):
            return
        self._looked = now
        ill = self.ill(now)
        if ill:
            self._repair = threading.Thread(target=self.repair, args=(ill,), name="repair", daemon=True)
            self._repair.start()

    def ill(self, now: float) -> list[str]:
        """The parts to be started again."""
        found = []
        for part in self.estate.status():
            if part.part not in self.wanted:
                continue
            if part.state == "unhealthy":
                since = self.silent_since.setdefault(part.part, now)
                if now - since >= SILENT_S:
                    found.append(part.part)
            else:
                self.silent_since.pop(part.part, None)
                if part.state == "down":
                    found.append(part.part)
        return found

    def repair(self, ill: Sequence[str]) -> None:
        names = " and ".join(ill)
        self.news("died", f"{names} of the estate is gone or silent; it is started again", part=names)
        try:
            self.estate.up(self.wanted)
            self.moved()
            self.news("started", f"{names} of the estate is up again", part=names)
        except (EstateError, Unreachable, OSError) as error:
            self.news("failed", f"{names}: {error}", part=names)
        self.silent_since.clear()

    def wait(self, timeout_s: float) -> None:
        """Let a repair that is under way come to its end, at most so long."""
        if self._repair is not None:
            self._repair.join(timeout_s)
