"""Where scorecards are kept: one file each in ``home/scorecards``, and an entry of the operator's ledger."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from drills.errors import NoSuchDrill
from drills.sandbox import FOLDER as SANDBOXES
from drills.scorecard import Scorecard, read
from estate.files import write_private
from ledger import kinds
from ledger.ledger import Ledger

FOLDER: Final = "scorecards"
ID: Final = re.compile(r"DRILL-\d{8}-(\d{4,})\Z")


def next_id(home: Path) -> str:
    """``DRILL-20261121-0001``: the number counts all drills of this home, also those that left only a sandbox."""
    names = [p.stem for p in (home / FOLDER).glob("DRILL-*.json")]
    names += [p.name for p in (home / SANDBOXES).glob("DRILL-*")]
    used = [int(found.group(1)) for name in names if (found := ID.match(name))]
    return f"DRILL-{datetime.now(UTC):%Y%m%d}-{max(used, default=0) + 1:04d}"


def number(drill: str) -> int:
    """The number in a drill's name; 0 for a name that is none."""
    found = ID.match(drill)
    return int(found.group(1)) if found else 0


def keep(home: Path, card: Scorecard) -> Path:
    """Write the card (0600, whole or not at all) and record it in the ledger of ``home``. Returns the file."""
    folder = home / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"{card.drill}.json"
    write_private(file, json.dumps(card.document(), indent=1, ensure_ascii=False) + "\n")
    ledger = Ledger(home / "ledger.sqlite")
    try:
        ledger.append(kinds.DRILL_SCORED, app=card.app, body=card.document())
    finally:
        ledger.close()
    return file


def load(home: Path, drill: str) -> Scorecard:
    """The card of a drill. Raises :class:`NoSuchDrill` naming the newest ones there are."""
    for card in (known := listing(home)):
        if card.drill == drill:
            return card
    newest = ", ".join(c.drill for c in known[-3:]) or "none yet: run `reinstate drill run`"
    raise NoSuchDrill(f"drill {drill}: no such scorecard; the newest are {newest}")


def listing(home: Path) -> Sequence[Scorecard]:
    """All cards, oldest first. A file that is no scorecard is passed over."""
    found = []
    for file in (home / FOLDER).glob("DRILL-*.json"):
        try:
            found.append(read(json.loads(file.read_text("utf-8"))))
        except (ValueError, TypeError, OSError):
            continue
    return sorted(found, key=lambda c: (c.at, c.drill))
