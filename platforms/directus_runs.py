"""The runs that Directus recorded, with the content each of them used."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from platforms import directus_data, directus_history
from platforms.base import Permanent, PrivateEntry, Run, RunDetail
from platforms.directus_client import DirectusClient, Unknown
from platforms.directus_history import Content, version_of_run

RUNS = {"filter[collection]": "directus_flows", "filter[activity][action]": "run"}
CHANGES = {"filter[collection][_in]": "directus_flows,directus_operations", "filter[action][_neq]": "run"}
LISTED = "id,item,activity.timestamp"
WHOLE = f"{LISTED},data"
MOST_KNOWN = 20_000
"""Ended runs that are remembered instead of asked for again."""


class RunBook:
    """Reads revisions. What ended never changes, so it is asked for once. Safe to share between threads."""

    def __init__(self, client: DirectusClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._ended: dict[int, Run] = {}
        self._contents: dict[str, tuple[int, list[Content]]] = {}

    def runs(self, workflow_id: str | None, since: datetime | None) -> list[Run]:
        """Runs that ended at or after ``since``, oldest first."""
        params = {**RUNS, "fields": LISTED}
        if workflow_id:
            params["filter[item]"] = workflow_id
        if since:
            params["filter[activity][timestamp][_gte]"] = since.isoformat()
        listed = [int(r["id"]) for r in self._client.pages("runs", "/revisions", params)]
        with self._lock:
            known = {i: self._ended[i] for i in listed if i in self._ended}
        unknown = [i for i in listed if i not in known]
        revisions = list(self._client.of_ids("runs", "/revisions", unknown, {"fields": WHOLE}))
        histories = self._histories({str(r["item"]) for r in revisions})
        fetched = {int(r["id"]): _dated(r, histories) for r in revisions}
        self._remember(fetched)
        runs = {**known, **fetched}
        return [runs[i] for i in listed if i in runs]

    def latest(self, workflow_id: str) -> str | None:
        """The id of the run that ended last."""
        params = {**RUNS, "filter[item]": workflow_id, "fields": "id", "sort": "-id", "limit": 1}
        newest = self._client.call("runs", "GET", "/revisions", params=params)
        return str(newest[0]["id"]) if newest else None

    def detail(self, run_id: str) -> RunDetail:
        """One run with event, outputs and rows."""
        revision = self.revision(run_id)
        detail = directus_data.detail_of(revision)
        return replace(detail, run=_dated(revision, self._histories({detail.run.workflow_id})))

    def revision(self, run_id: str) -> dict[str, Any]:
        """The record of a run. Raises ``Permanent`` when there is none."""
        params = {"fields": f"{WHOLE},collection,activity.action"}
        revision = self._client.call(f"run {run_id}", "GET", f"/revisions/{run_id}", params=params)
        if revision["collection"] != "directus_flows" or (revision["activity"] or {}).get("action") != "run":
            raise Permanent(f"run {run_id}: Directus has a change under this id and no run; check the id")
        return dict(revision)

    def keyed(self, entry: PrivateEntry, after: int) -> Iterable[tuple[str, Run]]:
        """The copy's runs later than ``after`` with their keys, oldest first."""
        params = {**RUNS, "filter[item]": entry.workflow_id, "filter[id][_gt]": after, "fields": WHOLE}
        for revision in self._client.pages("runs", "/revisions", params):
            key = directus_data.key_of(revision)
            if key:
                yield key, replace(directus_data.run_of(revision), version_hash=entry.version_hash)

    def _remember(self, runs: Mapping[int, Run]) -> None:
        with self._lock:
            self._ended |= runs
            for old in list(self._ended)[: max(0, len(self._ended) - MOST_KNOWN)]:
                del self._ended[old]

    def _histories(self, workflow_ids: Iterable[str]) -> dict[str, list[Content]]:
        """The contents that these flows had; nothing for one that is gone. Asked anew only after a change anywhere."""
        wanted = list(workflow_ids)
        if not wanted:
            return {}
        params = {**CHANGES, "fields": "id", "sort": "-id", "limit": 1}
        newest = self._client.call("changes", "GET", "/activity", params=params)
        as_of = int(newest[0]["id"]) if newest else 0
        found = {}
        for workflow_id in wanted:
            with self._lock:
                known = self._contents.get(workflow_id)
            if known is None or known[0] != as_of:
                known = (as_of, self._read_history(workflow_id))
                with self._lock:
                    self._contents[workflow_id] = known
            found[workflow_id] = known[1]
        return found

    def _read_history(self, workflow_id: str) -> list[Content]:
        try:
            current = read_flow(self._client, workflow_id)
        except Unknown:
            return []
        fields = "id,parent,collection,item,delta,activity.id,activity.action,activity.timestamp"
        own = {"filter[collection]": "directus_flows", "filter[item]": workflow_id, "fields": fields}
        revisions = list(self._client.pages("changes", "/revisions", {**own, "filter[activity][action][_neq]": "run"}))
        theirs = {"filter[collection]": "directus_operations", "fields": fields}
        ids = {str(o["id"]) for o in current["operations"]}
        parents = [r["id"] for r in revisions]
        children = self._client.of_ids("changes", "/revisions", parents, theirs, field="parent")
        ids |= {str(r["item"]) for r in children}
        changes = list(self._client.of_ids("changes", "/revisions", sorted(ids), theirs, field="item"))
        gone = {"filter[collection]": "directus_operations", "filter[action]": "delete", "fields": "id,item,timestamp"}
        deletions = list(self._client.of_ids("changes", "/activity", sorted(ids), gone, field="item"))
        return directus_history.contents(current, [*revisions, *changes], deletions)


def read_flow(client: DirectusClient, workflow_id: str) -> dict[str, Any]:
    """A flow with all its operations. Raises ``Unknown``."""
    params = directus_data.WHOLE_FLOW
    return dict(client.call(f"workflow {workflow_id}", "GET", f"/flows/{workflow_id}", params=params))


def _dated(revision: Mapping[str, Any], histories: Mapping[str, list[Content]]) -> Run:
    """A recorded run with the content it used, where that can be told."""
    run = directus_data.run_of(revision)
    known = histories.get(run.workflow_id, [])
    data = revision.get("data") or {}
    return replace(run, version_hash=version_of_run(known, data, run.started_at, run.stopped_at))
