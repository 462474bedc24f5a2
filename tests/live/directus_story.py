"""The stage of the story on live Directus: flows that write collections. All of them write as Directus' one role."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg

from estate import Addresses
from estate.directus import APP_SCHEMA, DATABASE, ROLE
from tests.live.logic_story import WORKFLOWS, How

NAMES = uuid.UUID("3a4f7b61-51d5-4b52-8f38-6f0f1c1f8a55")


@dataclass
class DirectusStage:
    """See :class:`tests.live.logic_story.Stage`. The shop's tables lie in a schema of their own; the installer owns
    them."""

    at: Addresses
    kind: str = "directus"
    ingress: bool = False
    schema: str = APP_SCHEMA
    roles: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(WORKFLOWS, ROLE))

    @property
    def url(self) -> str:
        return self.at.directus_url

    @property
    def api_key(self) -> str:
        return self.at.directus_token

    def database(self) -> str:
        with psycopg.connect(self.at.superuser_dsn(DATABASE), autocommit=True) as connection:
            for line in (
                "DROP SCHEMA IF EXISTS reinstate CASCADE",
                f"DROP TABLE IF EXISTS {APP_SCHEMA}.orders, {APP_SCHEMA}.receipts CASCADE",
            ):
                connection.execute(line)
        return self.at.superuser_dsn(DATABASE)

    def prepare(self, dsn: Callable[[str], str]) -> None:  # noqa: ARG002 - Directus has its own connection
        self.clear()
        with self.api() as api:
            assert api.post("/utils/cache/clear?system").is_success

    def definition(self, workflow: str, how: How) -> dict[str, Any]:
        body = "{{ $trigger.body.event }}"
        if workflow == "intake":
            total = "{{ $trigger.body.total }}" + ("00" if how == "bad" else "")
            steps = [("write", "item-create", {"collection": "orders", "payload": {"event": body, "total": total}})]
            if how == "bad":
                which = {"filter": {"event": {"_eq": "{{ $trigger.body.damages }}"}}}
                lose = {"collection": "orders", "query": which, "payload": {"status": "lost"}}
                steps.append(("lose", "item-update", lose))
        else:
            payload = {"event": body, "order_event": "{{ $trigger.body.order_event }}"}
            steps = [("write", "item-create", {"collection": "receipts", "payload": payload})]
        ids = [str(uuid.uuid5(NAMES, f"{workflow}/{key}")) for key, _, _ in steps]
        operations = [
            {
                "id": id_,
                "key": key,
                "name": key.capitalize(),
                "type": kind,
                "options": {**options, "permissions": "$full", "emitEvents": False},
                "resolve": follower,
                "reject": None,
            }
            for id_, (key, kind, options), follower in zip(ids, steps, [*ids[1:], None], strict=True)
        ]
        return {
            "name": WORKFLOWS[workflow],
            "trigger": "webhook",
            "options": {"method": "POST", "async": True, "return": "$last"},
            "operation": ids[0],
            "operations": operations,
            "settings": {"accountability": "all"},
        }

    def path(self, workflow: str) -> str:
        """Directus' addresses end in the flow's id."""
        with self.api() as api:
            flows = api.get("/flows", params={"fields": "id", "filter[name]": WORKFLOWS[workflow]}).json()["data"]
        return f"/flows/trigger/{flows[0]['id']}"

    def clear(self) -> None:
        with self.api() as api:
            flows = api.get("/flows", params={"fields": "id", "limit": -1}).json()["data"]
            for flow in flows:
                assert api.delete(f"/flows/{flow['id']}").is_success

    def api(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)
