"""A small app on disk for tests of the command line: catalogue, suites, secrets, home; a platform that is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from console.main import run
from ledger import Ledger
from ledger.entry import Entry
from platforms.base import Platform
from tests.snapshots.point_desk import Told

KEY = "n8n-key-that-nobody-may-see"
PASSWORDS = tuple(f"test-{role}" for role in ("installer", "capturer", "recoverer", "wrong"))
WHEN = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
GOOD, BAD = "a" * 64, "b" * 64

APP: dict[str, Any] = {
    "key": "desk",
    "title": "Desk",
    "owner": "ada",
    "deputy": "grace",
    "platform": {"kind": "n8n", "url": "env:DESK_URL", "api_key": "env:DESK_KEY"},
    "database": {"installer": "env:DESK_INSTALLER", "capturer": "env:DESK_CAPTURER", "recoverer": "env:DESK_RECOVERER"},
    "objectives": {"rto_s": 60, "rpo_s": 60},
    "workflows": [
        {
            "key": key,
            "name": name,
            "role": role,
            "owner": "ada",
            "deputy": "grace",
            "trigger": {"kind": "webhook"},
            "writes": ["shop.orders"],
        }
        for key, name, role in (
            ("order-intake", "Order intake", "wf_intake"),
            ("stock-sync", "Stock sync", "wf_stock"),
        )
    ],
    "tables": [{"name": "shop.customers"}, {"name": "shop.orders", "triggers": {"orders_touch": "suppress"}}],
    "suites": "checks",
}
SUITE = {
    "name": "orders",
    "table": "shop.orders",
    "expectations": [{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}}],
}


class Answering(Told):
    """A platform that is there, for commands that end before they ask it much."""

    def close(self) -> None:
        return


def answering(kind: str, url: str, api_key: str) -> Platform:
    return Answering()  # type: ignore[return-value]


@dataclass(kw_only=True)
class Desk:
    """The app's folder; ``secrets`` is written to the home's file by :meth:`write`."""

    folder: Path
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog.yaml"

    def write(self, **secrets: str) -> None:
        self.secrets |= secrets
        self.home.mkdir(exist_ok=True)
        (self.home / "secrets.env").write_text("".join(f"{k}={v}\n" for k, v in self.secrets.items()))
        self.catalog.write_text(yaml.safe_dump({"apps": [APP]}, sort_keys=False))
        (self.folder / "checks").mkdir(exist_ok=True)
        (self.folder / "checks" / "orders.json").write_text(json.dumps(SUITE))

    def run(self, *arguments: str) -> int:
        """One command line on this catalogue, in this process."""
        return run([*arguments, "--catalog", str(self.catalog)])

    def entries(self) -> list[Entry]:
        """Everything in the ledger; none when there is no ledger yet."""
        if not (self.home / "ledger.sqlite").exists():
            return []
        ledger = Ledger(self.home / "ledger.sqlite")
        try:
            return ledger.entries()
        finally:
            ledger.close()

    def tell(self, *told: tuple[str, dict[str, Any]], incident: str = "INC-1") -> None:
        """Write to the ledger what a test needs to have happened."""
        ledger = Ledger(self.home / "ledger.sqlite")
        for kind, body in told:
            ledger.append(kind, app="desk", incident=incident, body=body)
        ledger.close()

    def points(self) -> Sequence[Path]:
        return [p for p in (self.home / "store").rglob("*") if p.is_file() and "points" in p.parts]


OPENED = ("incident.opened", {"severity": "sev1", "title": "Wrong totals", "workflows": ["order-intake"]})
CONTAINED = ("contain.started", {"workflows": ["order-intake"], "active_before": ["order-intake"]})
PROVEN = ("contain.proven", {"workflows": ["order-intake"], "active_before": ["order-intake"]})
DIAGNOSED = (
    "incident.diagnosed",
    {
        "app": "desk",
        "workflow": "order-intake",
        "bad_version": BAD,
        "good_version": GOOD,
        "published_at": WHEN,
        "first_bad_at": WHEN,
        "first_bad_xid": 7,
        "bad_runs": [],
        "point_id": None,
        "confidence": 1.0,
        "evidence": [],
        "unattributed": [],
    },
)
