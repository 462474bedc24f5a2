"""What the pages show, read anew for each request: the ledger, the catalogue, the files of drills. Never writes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.errors import CatalogError
from catalog.load import load
from catalog.models import App
from incidents import record
from incidents.record import Incident
from incidents.report.collect import collect
from incidents.report.model import Recovery, ReportData
from incidents.report.reading import shown
from incidents.report.recoveries import recovery_of
from ledger import Ledger, kinds

if TYPE_CHECKING:
    from drills.scorecard import Scorecard

POINTS = 3
DRILLS = 3
INCIDENTS = 10
SCORECARDS = 100
TRENDS = "trends.html"
TRENDS_MAX_BYTES = 32_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    at: datetime
    id: str
    verified: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AppCard:
    """One app on the first page; ``past`` and ``points`` newest first, ``waiting`` plans that wait for a decision."""

    key: str
    title: str
    open: Incident | None
    past: tuple[Incident, ...]
    points: tuple[Point, ...]
    waiting: tuple[Recovery, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """``problem`` says why the catalogue could not be read."""

    apps: tuple[AppCard, ...]
    drills: tuple[Scorecard, ...]
    problem: str = ""


def overview(home: Path, catalog: Path | None) -> Overview:
    """The first page. Without a ledger it is empty, without a catalogue it names the apps of the ledger."""
    apps, problem = known(catalog)
    titles = {a.key: a.title for a in apps}
    with opened(home) as ledger:
        if ledger is not None:
            titles |= {i.app: i.app for i in record.all_of(ledger) if i.app not in titles}
        cards = tuple(_card(ledger, key, title) for key, title in titles.items())
    return Overview(apps=cards, drills=tuple(scorecards(home)[:DRILLS]), problem=problem)


def report(home: Path, catalog: Path | None, incident: str) -> ReportData | None:
    """The report's data as of now; ``None`` when there is no such incident."""
    with opened(home) as ledger:
        if ledger is None or not ledger.entries(incident=incident, limit=1):
            return None
        app = ledger.entries(incident=incident, limit=1)[0].app
        goals = next((a.objectives for a in known(catalog)[0] if a.key == app), None)
        return collect(ledger, incident, rto_s=goals.rto_s if goals else None, rpo_s=goals.rpo_s if goals else None)


def scorecards(home: Path) -> list[Scorecard]:
    """The newest scorecards, newest first."""
    from drills.score_files import listing

    return list(reversed(listing(home)))[:SCORECARDS]


def trends(home: Path) -> bytes | None:
    """The page with the trends; ``None`` while there is none. A link in its place is not followed."""
    try:
        file = os.open(home / TRENDS, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(file, "rb") as page:
        if not stat.S_ISREG(os.fstat(page.fileno()).st_mode):
            return None
        return page.read(TRENDS_MAX_BYTES)


def known(catalog: Path | None) -> tuple[tuple[App, ...], str]:
    """The catalogue's apps, or none and why."""
    if catalog is None:
        return (), ""
    try:
        return load(catalog).apps, ""
    except (CatalogError, OSError) as error:
        return (), " ".join(str(error).split())


@contextmanager
def opened(home: Path) -> Iterator[Ledger | None]:
    """The ledger, or ``None`` while there is none: looking must not make one."""
    path = home / "ledger.sqlite"
    if not path.is_file():
        yield None
        return
    with Ledger(path) as ledger:
        yield ledger


def _card(ledger: Ledger | None, key: str, title: str) -> AppCard:
    if ledger is None:
        return AppCard(key=key, title=title, open=None, past=(), points=())
    incidents = record.all_of(ledger, key)
    now_open = next((i for i in incidents if i.closed_at is None), None)
    taken = ledger.entries(app=key, kinds=[kinds.POINT_TAKEN])[-POINTS:]
    points = tuple(
        Point(
            at=e.at,
            id=shown(e.body.get("point") or e.body.get("point_id")),
            verified=e.body.get("verified") is True,
        )
        for e in reversed(taken)
    )
    past = tuple(i for i in reversed(incidents) if i is not now_open)[:INCIDENTS]
    waiting = _waiting(ledger, now_open.id) if now_open else ()
    return AppCard(key=key, title=title, open=now_open, past=past, points=points, waiting=waiting)


def _waiting(ledger: Ledger, incident: str) -> tuple[Recovery, ...]:
    entries = ledger.entries(incident=incident)
    found = (
        recovery_of(r, [e for e in entries if e.recovery == r]) for r in {e.recovery for e in entries if e.recovery}
    )
    return tuple(r for r in found if r.waits_until is not None)
