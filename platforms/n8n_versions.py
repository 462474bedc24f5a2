"""Which version a run really used.

n8n records a ``workflowVersionId`` with each run, but that is the *draft's* at the start: with a draft apart from live,
or in the moment between a publish and its effect, it names content that did not run (measured on 2.40). What ran is in
the run's ``workflowData``, with parameter defaults filled in and hidden parameters left out. So the run is compared
with every version n8n still has, and the one that explains it best is its version.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from platforms.canonical import canonical_connections, canonical_node, canonical_nodes, digest
from platforms.n8n_client import N8nClient, Unknown
from platforms.n8n_secrets import content_hash

MOST_VERSIONS = 200
"""Newest versions that are compared with a run."""

FEW = 8
"""So many unknown runs are read one by one; more by the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """The version a run used. ``hash`` is ``None`` when n8n has no version (any more) that explains the run;
    ``platform_version`` is then only what n8n recorded."""

    hash: str | None
    platform_version: str | None


def fit(version: Mapping[str, Any], executed: Mapping[str, Any]) -> tuple[int, int] | None:
    """How well ``version`` explains the executed content: parameters it has more (0 is best) and parameters that
    agree (more is better), as a sortable pair, smallest first. ``None`` when it contradicts."""
    wanted, seen = _by_name(version["nodes"]), _by_name(executed["nodes"])
    if wanted.keys() != seen.keys():
        return None
    if canonical_connections(version["connections"]) != canonical_connections(executed["connections"]):
        return None
    absent = agreeing = 0
    for name, node in wanted.items():
        other = seen[name]
        if {k: v for k, v in node.items() if k != "parameters"} != {
            k: v for k, v in other.items() if k != "parameters"
        }:
            return None
        compared = _compare(node.get("parameters") or {}, other.get("parameters") or {})
        if compared is None:
            return None
        absent, agreeing = absent + compared[0], agreeing + compared[1]
    return absent, -agreeing


class VersionBook:
    """Versions and the runs that used them, remembered: neither ever changes. Safe to share between threads."""

    def __init__(self, client: N8nClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._contents: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        self._by_run: dict[str, Identity] = {}
        self._by_execution: dict[tuple[str, str, str], Identity] = {}

    def history(self, workflow_id: str) -> Iterator[str]:
        """Names of the versions n8n still has, newest first."""
        what, path = f"history of workflow {workflow_id}", f"/workflows/{workflow_id}/history"
        return (str(item["versionId"]) for item in self._client.pages(what, path, limit=100))

    def content(self, workflow_id: str, version_id: str) -> Mapping[str, Any] | None:
        """One version's content; ``None`` when n8n dropped it."""
        key = (workflow_id, version_id)
        with self._lock:
            if key in self._contents:
                return self._contents[key]
        what = f"version {version_id} of workflow {workflow_id}"
        try:
            content = self._client.get(what, f"/workflows/{workflow_id}/versions/{version_id}")
        except Unknown:
            content = None
        with self._lock:
            self._contents[key] = content
        return content

    def contents(self, workflow_id: str, *, most: int = MOST_VERSIONS) -> list[Mapping[str, Any]]:
        """The newest ``most`` versions, newest first; none for a workflow that is gone."""
        try:
            names = [name for _, name in zip(range(most), self.history(workflow_id), strict=False)]
        except Unknown:
            return []
        return [content for name in names if (content := self.content(workflow_id, name)) is not None]

    def of_run(self, execution: Mapping[str, Any]) -> Identity:
        """The version of a listed run, after :meth:`learn` saw it."""
        with self._lock:
            known = self._by_run.get(str(execution["id"]))
        return known or Identity(hash=None, platform_version=None)

    def learn(self, listed: Mapping[str, Any], params: Mapping[str, str]) -> None:
        """Find the versions of the ``listed`` runs (by id), which the query ``params`` gave: lists leave out what ran,
        so unknown runs are read with their data, once."""
        with self._lock:
            unknown = set(listed) - self._by_run.keys()
        if len(unknown) > FEW:
            query = {**params, "includeData": "true"}
            for execution in self._client.pages("runs", "/executions", limit=100, params=query):
                if str(execution["id"]) in unknown:
                    self.identify(execution)
                    unknown.discard(str(execution["id"]))
                if not unknown:
                    return
        for run_id in unknown:
            try:
                self.identify(self._client.get(f"run {run_id}", f"/executions/{run_id}", includeData="true"))
            except Unknown:  # pruned meanwhile
                continue

    def identify(self, execution: Mapping[str, Any]) -> Identity:
        """The version of one run that was read with its data."""
        workflow_id, recorded = str(execution["workflowId"]), execution.get("workflowVersionId")
        executed = execution.get("workflowData") or {}
        if "nodes" not in executed:
            return Identity(hash=None, platform_version=recorded)
        key = (workflow_id, str(recorded), digest([executed["nodes"], executed["connections"]]))
        with self._lock:
            identity = self._by_execution.get(key)
        if identity is None:
            identity = self._search(workflow_id, recorded, executed)
        with self._lock:
            self._by_execution[key] = self._by_run[str(execution["id"])] = identity
        return identity

    def _search(self, workflow_id: str, recorded: str | None, executed: Mapping[str, Any]) -> Identity:
        contents = self.contents(workflow_id)
        fits = [(found, c) for c in contents if (found := fit(c, executed)) is not None]
        if not fits:
            return Identity(hash=None, platform_version=recorded)
        best = min(found for found, _ in fits)
        equal = [c for found, c in fits if found == best]
        chosen = next((c for c in equal if c["versionId"] == recorded), equal[0])
        return Identity(hash=content_hash(chosen), platform_version=str(chosen["versionId"]))


def _by_name(nodes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(node["name"]): canonical_node(node) for node in canonical_nodes(nodes)}


def _compare(wanted: Any, seen: Any) -> tuple[int, int] | None:
    """(missing in ``seen``, agreeing) leaves; ``None`` on a contradiction."""
    if isinstance(wanted, Mapping) and isinstance(seen, Mapping):
        pairs = [(value, seen.get(key)) for key, value in wanted.items() if value is not None]
        missing = sum(_leaves(value) for value, other in pairs if other is None)
        parts = [_compare(value, other) for value, other in pairs if other is not None]
    elif isinstance(wanted, list) and isinstance(seen, list):
        if len(wanted) != len(seen):
            return None
        missing, parts = 0, [_compare(value, other) for value, other in zip(wanted, seen, strict=True)]
    else:
        return (0, 1) if wanted == seen else None
    absent, agreeing = missing, 0
    for part in parts:
        if part is None:
            return None
        absent, agreeing = absent + part[0], agreeing + part[1]
    return absent, agreeing


def _leaves(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_leaves(item) for item in value.values())
    return sum(_leaves(item) for item in value) if isinstance(value, list) else 1
