"""Which runs of a private entry which event started: n8n finds runs by their number alone, so their inputs are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from platforms import n8n_data
from platforms.base import PrivateEntry, Run
from platforms.n8n_client import N8nClient
from platforms.n8n_versions import Identity


class SentBook:
    """Reads runs with their keys, and remembers from which run on to look. Safe to share between threads."""

    def __init__(self, client: N8nClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._newest: dict[str, int] = {}
        self._sent: dict[tuple[str, str], int] = {}

    def keyed(self, entry: PrivateEntry, *, after: int, page: int = 50) -> Iterator[tuple[str, Run]]:
        """Runs of the entry younger than run ``after`` with their keys, newest first: ended and waiting ones, then
        running ones, then again what ended between the two questions."""
        seen: set[str] = set()
        for query in ({}, {"status": "running"}, {}):
            params = {"workflowId": entry.workflow_id, "includeData": "true", "ignoreDataSizeLimit": "true", **query}
            for execution in self._client.pages("replayed runs", "/executions", limit=page, params=params):
                run_id = str(execution["id"])
                if int(run_id) <= after:
                    break
                if run_id in seen:
                    continue
                seen.add(run_id)
                identity = Identity(hash=entry.version_hash, platform_version=None)
                detail = n8n_data.detail_of(execution, n8n_data.run_of(execution, identity))
                if key := n8n_data.key_of(detail.event):
                    yield key, detail.run

    def before(self, entry: PrivateEntry, key: str) -> int:
        """A run number that every earlier run of the key is not above, and the one to be sent is: n8n counts up."""
        with self._lock:
            base = self._newest.get(entry.workflow_id)
        if base is None:
            base = 0
            for query in ({"status": "running"}, {}):
                answer = self._client.get("runs", "/executions", workflowId=entry.workflow_id, limit=1, **query)
                base = max([base, *(int(execution["id"]) for execution in answer["data"])])
        with self._lock:
            base = self._newest.setdefault(entry.workflow_id, base)
            return max(base, self._sent.get((entry.workflow_id, key), 0))

    def remember(self, entry: PrivateEntry, key: str, run: Run) -> None:
        """``run`` is the key's newest."""
        with self._lock:
            self._sent[entry.workflow_id, key] = int(run.id)
