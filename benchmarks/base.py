"""Where each round starts: a copy of the shop with or without a journal, and the recovery point taken of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import engine, proof, shop
from benchmarks.proof import Sums
from benchmarks.site import CAPTURER, INSTALLER, RECOVERER, Database, Site
from snapshots.journal import journal
from snapshots.store.store import Store

if TYPE_CHECKING:
    from snapshots.model import RecoveryPoint

JOURNAL_MB = 20_000
"""Size cap of each twin: larger than any measurement fills."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """``db`` is what rounds copy and nobody writes to. ``sums`` are those of the pristine rows."""

    db: Database
    journaled: bool
    asked: int
    """About how many rows were asked for."""
    rows: int
    """How many there are."""
    store: Store
    point: RecoveryPoint
    sums: Sums


def make(site: Site, rows: int, folder: Path, *, journaled: bool) -> Base:
    """Copy the template of about ``rows`` rows, install the journal and take a full point into ``folder``."""
    db = site.copy(site.template(rows))
    install(db, journaled=journaled)
    store = Store(str(folder))
    point = engine.capture_full(db, store)
    with db.open(CAPTURER) as conn:
        sums = proof.sums(conn)
    return Base(
        db=db,
        journaled=journaled,
        asked=rows,
        rows=sum(int(s[0]) for s in sums.values()),
        store=store,
        point=point,
        sums=sums,
    )


def install(db: Database, *, journaled: bool) -> None:
    """The journal as the product installs it. Where not ``journaled``, only tables have one whose trigger is declared
    as suppressed: the right to switch it comes with the journal."""
    tables = [t for t in shop.TABLES if journaled or t.suppress]
    with db.open(INSTALLER) as conn:
        journal.install(conn, tables, capturer=CAPTURER, recoverer=RECOVERER, size_cap_mb=JOURNAL_MB)
    with db.open(RECOVERER) as conn:
        journal.tick(conn)
