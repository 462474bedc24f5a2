"""An app of two workflows in a platform in memory, without a database: what history and publishing are tested on.
``intake`` calls ``payment`` by its id and names a credential."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger import Ledger
from platforms.base import Capabilities, Platform, Version
from platforms.fake import FakePlatform
from platforms.faulty import Fault, Faulty
from platforms.retrying import Retrying
from recovery.context import AppContext
from snapshots.store.store import Store
from tests.recovery.kiosk import app_model

SQL = "SELECT id, total FROM kiosk.orders WHERE id = $1"


def payment(how: str = "good") -> dict[str, Any]:
    node = {"name": "Work", "type": "n8n-nodes-base.code", "typeVersion": 1, "parameters": {"how": how}}
    return {"name": "Payment", "nodes": [node], "connections": {}, "settings": {}}


def intake(
    calls: str, how: str = "good", *, sql: str = SQL, credential: str = "db-1", **settings: Any
) -> dict[str, Any]:
    reference = {"value": calls, "mode": "id", "__rl": True}
    return {
        "name": "Intake",
        "nodes": [
            {
                "name": "In",
                "type": "n8n-nodes-base.webhook",
                "typeVersion": 2,
                "parameters": {"path": "intake", "httpMethod": "POST", "how": how},
            },
            {
                "name": "Read",
                "type": "n8n-nodes-base.postgres",
                "typeVersion": 2,
                "parameters": {"operation": "executeQuery", "query": sql},
                "credentials": {"postgres": {"id": credential, "name": "desk"}},
            },
            {
                "name": "Pay",
                "type": "n8n-nodes-base.executeWorkflow",
                "typeVersion": 1,
                "parameters": {"workflowId": reference},
            },
        ],
        "connections": {
            "In": {"main": [[{"node": "Read", "type": "main", "index": 0}]]},
            "Read": {"main": [[{"node": "Pay", "type": "main", "index": 0}]]},
        },
        "settings": settings,
    }


@dataclass
class VersionDesk:
    """``ids`` by key; ``ctx()`` is a new process each time, with ``faults`` around the platform if any are set."""

    home: Path
    capabilities: Capabilities | None = None
    fake: FakePlatform = field(init=False)
    ids: dict[str, str] = field(init=False)
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        self.fake = FakePlatform(capabilities=self.capabilities)
        self.fake.add_credential("db-1", "desk")
        pay = self.fake.add(payment(), active=True)
        self.ids = {"payment": pay, "intake": self.fake.add(intake(pay), active=True)}

    def ctx(self, *, keys: Sequence[str] = ()) -> AppContext:
        platform: Platform = self.fake
        if self.faults:
            platform = Faulty(platform, self.faults)
        self.home.mkdir(exist_ok=True)
        return AppContext(
            home=self.home,
            catalog_path=self.home,
            app=app_model(),
            platform=Retrying(platform, attempts=2, first_wait_s=0.001, longest_wait_s=0.002),
            ledger=Ledger(self.home / "ledger.sqlite"),
            store=Store(str(self.home / "store"), keys=keys),
        )

    def version(self, definition: dict[str, Any]) -> Version:
        content, settings = self.fake.hashes(definition)
        return Version(workflow_id="", hash=content, settings_hash=settings, definition=definition)

    def live(self, key: str) -> Any:
        """The definition that is live, by the workflow's name."""
        found = [w for w in self.fake.workflows() if w.name == key.capitalize()]
        assert len(found) == 1, found
        live = self.fake.live_version(found[0].id)
        return None if live is None else live.definition

    def id_of(self, key: str) -> str:
        return next(w.id for w in self.fake.workflows() if w.name == key.capitalize())


def called(definition: Any) -> str:
    """The id that an intake's definition calls."""
    return str(definition["nodes"][2]["parameters"]["workflowId"]["value"])


def how(definition: Any) -> str:
    return str(definition["nodes"][0]["parameters"]["how"])


def same(one: Any, other: Any) -> bool:
    return bool(json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
