"""What the driver can play: for each mode the new version it publishes and the traffic around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from drills.story import BUSY, EXPOSURE, INCIDENT, NORMAL, RECALLING, TIDIED, TIDYING, UNLOADING, Rates, Story

INTAKE: Final = "Order intake"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mode:
    """``file`` of ``workflow`` (its name in n8n) is published, or nothing; ``harmful`` when it is a fault. ``opening``
    happens right after the publish, on top of the rates."""

    workflow: str = INTAKE
    file: str | None = None
    harmful: bool = False
    normal: Rates = NORMAL
    after: Rates = EXPOSURE
    incident: Rates = INCIDENT
    opening: Callable[[Story], None] = Story.burst


MODES: Final[Mapping[str, Mode]] = {
    "good": Mode(),
    "bad": Mode(file="faults/order-intake.bad.json", harmful=True),
    "harmless": Mode(file="faults/order-intake.harmless.json", after=BUSY),
    "twice": Mode(
        workflow="Stock sync",
        file="faults/stock-sync.twice.json",
        harmful=True,
        after=UNLOADING,
        opening=Story.truck,
    ),
    "twice-harmless": Mode(
        workflow="Stock sync", file="faults/stock-sync.harmless.json", after=UNLOADING, opening=Story.truck
    ),
    "delete": Mode(
        workflow="Tidy up",
        file="faults/tidy-up.delete.json",
        harmful=True,
        normal=TIDYING,
        after=TIDIED,
        incident=RECALLING,
    ),
    "delete-harmless": Mode(
        workflow="Tidy up",
        file="faults/tidy-up.harmless.json",
        normal=TIDYING,
        after=TIDIED,
        opening=Story.tidy_all,
    ),
}
