"""Directus as a platform, over its REST API (measured on 12.4). A workflow is a flow with its operations.

What is particular to it:

- There is no draft: saving an active flow publishes at once. A change is one request, so one transaction, after
  which Directus loads all flows anew before it answers calls. Events of the *event* trigger that happen in
  that moment are missed; so nothing is written that need not be.
- Pausing is the status ``inactive``: calls are answered 403 at once. What is in flight goes on, is seen nowhere and
  cannot be stopped: Directus records a run when it ends, with a revision, and only while the flow logs everything
  (``accountability`` *all*). So a run's start is an estimate: the earliest one its operations allow.
- A flow that fails answers 200 with the error as its body: only the recorded run tells.
- Deleted flows keep their recorded runs, and a flow can be made again under its own ids.
- Flows hold few secrets, inside the options of operations; see :mod:`platforms.directus_secrets`. Directus' own
  history still has those of operations that were deleted.
- The token needs a policy with admin access: flows, operations, activity and revisions belong to the system.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx

from platforms import (
    directus_canonical,
    directus_data,
    directus_entry,
    directus_outline,
    directus_writing,
)
from platforms.base import (
    Capabilities,
    Credential,
    Definition,
    Health,
    NotSent,
    Outline,
    Permanent,
    Platform,
    PrivateEntry,
    Retryable,
    Run,
    RunDetail,
    RunState,
    Version,
    WorkflowInfo,
)
from platforms.directus_client import DirectusClient, Unknown, code_of
from platforms.directus_runs import RunBook, read_flow
from platforms.directus_secrets import known_in, secrets_of
from platforms.http import server_time

FORBIDDEN = "FORBIDDEN"
WRITE_TIMEOUT_S = 120.0
"""A flow of 250 operations takes Directus some seconds."""
OUTSIDE = ("webhook",)
"""Triggers that anybody can call; a manual one answers 403 to a call that names no rows, active or not."""
POLL_S = 0.05


class Directus:
    """One Directus. ``send_timeout_s`` is how long a replayed event may take before its run is looked for later."""

    def __init__(self, url: str, token: str, *, timeout_s: float = 15.0, send_timeout_s: float = 60.0) -> None:
        self._client = DirectusClient(url, token, timeout_s=timeout_s)
        self._send_timeout_s = send_timeout_s
        self._book = RunBook(self._client)

    def __repr__(self) -> str:
        return f"Directus({self._client.base})"

    @property
    def kind(self) -> str:
        return "directus"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            executions=True,
            shows_in_flight=False,
            stops_runs=False,
            drops_in_flight=False,
            keeps_versions=False,
            draft_apart_from_live=False,
            keeps_ids=True,
            names_authors=True,
            replays_privately=True,
            reads_back_events=True,
            retriggers=False,
            tests_credentials=False,
            names_written_rows=True,
        )

    def close(self) -> None:
        self._client.close()

    def health(self) -> Health:
        response = self._client.respond("health", "GET", "/operations", params={"limit": 1, "fields": "id"})
        return Health(ok=True, detail=f"Directus at {self._client.base} answers", now=server_time(response))

    def workflows(self) -> list[WorkflowInfo]:
        params = {"fields": "id,name,status", "limit": -1, "sort": "date_created"}
        flows = self._client.call("workflows", "GET", "/flows", params=params)
        return [directus_data.info_of(flow) for flow in flows if not directus_entry.is_private(flow)]

    # Versions

    def draft_version(self, workflow_id: str) -> Version:
        return self._version(read_flow(self._client, workflow_id))

    def live_version(self, workflow_id: str) -> Version | None:
        flow = read_flow(self._client, workflow_id)
        return self._version(flow) if flow["status"] == "active" else None

    def versions(self, workflow_id: str) -> list[Version]:
        read_flow(self._client, workflow_id)
        return []

    def save(self, workflow_id: str, definition: Definition) -> Version:
        current = read_flow(self._client, workflow_id)
        if directus_canonical.hashes(directus_data.definition_of(current)) == self.hashes(definition):
            return self._version(current)
        strangers = self._strangers(workflow_id, definition)
        wanted = directus_writing.same_ids(workflow_id, definition, current, strangers)
        body = directus_writing.body(wanted, current, self._secrets(wanted, current))
        self._write(f"save of workflow {workflow_id}", "PATCH", f"/flows/{workflow_id}", body)
        return self.draft_version(workflow_id)

    def create(self, definition: Definition, *, workflow_id: str | None = None) -> Version:
        if workflow_id:
            try:
                return self.save(workflow_id, definition)
            except Unknown:
                pass
        new_id = workflow_id or str(uuid.uuid4())
        self._make(new_id, definition, status="inactive")
        return self.draft_version(new_id)

    def hashes(self, definition: Definition) -> tuple[str, str]:
        return directus_canonical.hashes(definition)

    def outline(self, definition: Definition) -> Outline:
        return directus_outline.outline(definition)

    def credentials(self, workflow_id: str) -> list[Credential]:
        found = directus_data.credentials_of(read_flow(self._client, workflow_id))
        if not found:
            return []
        changed = {i: self._secret_times(i) for i in {c.id.partition("/")[0] for c in found}}
        return [replace(c, changed_at=changed[c.id.partition("/")[0]].get(c.id.partition("/")[2])) for c in found]

    def activate(self, workflow_id: str, platform_version: str | None = None) -> None:
        self._switch(workflow_id, "active", "activation", platform_version)

    def deactivate(self, workflow_id: str) -> None:
        self._switch(workflow_id, "inactive", "deactivation", None)

    def ingress_paused(self, workflow_id: str) -> bool:
        flow = read_flow(self._client, workflow_id)
        if flow["status"] == "active":
            return False
        if flow.get("trigger") not in OUTSIDE:
            return True
        method = (flow.get("options") or {}).get("method") or "GET"
        what = f"entry of workflow {workflow_id}"
        try:
            answer = self._client.trigger(workflow_id, method)
        except httpx.HTTPError as problem:
            raise self._client.unreachable(what, problem) from problem
        if answer.status_code >= 500:
            raise Retryable(f"{what}: Directus answered {answer.status_code}; ask again")
        return answer.status_code == 403 and code_of(answer) == FORBIDDEN

    def ingress_open(self, workflow_id: str) -> bool:
        return bool(read_flow(self._client, workflow_id)["status"] == "active")  # a call would start a run

    # Runs

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        if states and all(s.in_flight for s in states):
            return []  # it shows a run when it has ended; to read them all would only delay a pause
        return [r for r in self._book.runs(workflow_id, since) if not states or r.state in states]

    def latest_run(self, workflow_id: str) -> str | None:
        return self._book.latest(workflow_id)

    def run_detail(self, run_id: str) -> RunDetail:
        return self._book.detail(run_id)

    def stop(self, run_id: str) -> None:
        self._book.revision(run_id)  # whatever Directus lists has ended

    def retrigger(self, run_id: str) -> Run:
        raise Permanent(f"run {run_id}: Directus cannot run an event again; replay it through a private copy")

    # Replay

    def open_private_entry(self, version: Version) -> PrivateEntry:
        if not version.definition.get("trigger"):
            raise Permanent(f"workflow {version.workflow_id}: it has no trigger, so there is no event to replay")
        copy_id = self._open_copy(version, directus_entry.copy_name(version), directus_entry.private_copy)
        return PrivateEntry(
            workflow_id=copy_id,
            source_workflow_id=version.workflow_id,
            version_hash=version.hash,
            address=self._open_entry(copy_id),
        )

    def open_private_callee(self, version: Version) -> PrivateEntry:
        if version.definition.get("trigger") != "operation":
            raise Permanent(
                f"workflow {version.workflow_id}: other flows cannot start it; give it the trigger Another Flow"
            )
        name = directus_entry.copy_name(version, directus_entry.CALLEE)
        copy_id = self._open_copy(version, name, directus_entry.private_callee)
        return PrivateEntry(
            workflow_id=copy_id,
            source_workflow_id=version.workflow_id,
            version_hash=version.hash,
            address="",
            called_as={version.workflow_id: copy_id},
        )

    def send(self, entry: PrivateEntry, event: Mapping[str, Any], *, idempotency_key: str) -> Run:
        what = f"replay of event {idempotency_key}"
        if "value" in event and set(event) <= {"value", *directus_entry.BESIDE}:
            raise Permanent(f"{what}: its trigger handed over no object, which a copy cannot be given; do it by hand")
        after = int(self.latest_run(entry.workflow_id) or 0)
        privileged = not directus_entry.is_public(event)
        deadline = time.monotonic() + self._send_timeout_s
        try:
            answer = self._client.trigger(
                entry.address,
                "POST",
                body=directus_entry.payload(event, idempotency_key),
                privileged=privileged,
                timeout_s=self._send_timeout_s,
            )
        except httpx.ConnectError as problem:
            raise NotSent(f"{what}: Directus at {self._client.base} is unreachable; nothing was sent") from problem
        except httpx.HTTPError:
            answer = None
        if answer is not None and answer.status_code == 403 and code_of(answer) == FORBIDDEN:
            raise Permanent(f"{what}: the private entry is closed; open it again")
        # The run is written down before the answer is given, so after an answer one look is enough.
        patience = min(deadline, time.monotonic() + 5)
        while True:
            found = [run for key, run in self._book.keyed(entry, after) if key == idempotency_key]
            if found:
                return found[-1]
            if time.monotonic() > patience or (answer is not None and answer.is_success):
                break
            time.sleep(POLL_S)
        raise Retryable(f"{what}: Directus' answer was lost and no run is known; look for the key before sending again")

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        by_key: dict[str, list[Run]] = {}
        for key, run in self._book.keyed(entry, 0):
            by_key.setdefault(key, []).append(run)
        return by_key

    def close_private_entry(self, entry: PrivateEntry) -> None:
        if entry.address:
            self._remove(entry.address)
        self._remove(entry.workflow_id)

    # Parts

    def _version(self, flow: Mapping[str, Any]) -> Version:
        ids = [str(o["id"]) for o in flow.get("operations") or []]
        author, at = directus_data.edit_of(self._activities([str(flow["id"]), *ids]))
        return directus_data.version_of(flow, author=author, at=at)

    def _activities(self, items: Sequence[str]) -> list[dict[str, Any]]:
        """The latest changes of these flows and operations, newest first."""
        found: list[dict[str, Any]] = []
        params = {
            "filter[collection][_in]": "directus_flows,directus_operations",
            "filter[action][_in]": "create,update",
            "fields": "id,action,timestamp,user.id,user.email,revisions.delta",
            "sort": "-id",
            "limit": 5,
        }
        for at in range(0, len(items), 50):
            some = {"filter[item][_in]": ",".join(items[at : at + 50])}
            found += self._client.call("changes", "GET", "/activity", params={**params, **some})
        return sorted(found, key=lambda activity: -int(activity["id"]))

    def _strangers(self, workflow_id: str, definition: Definition) -> set[str]:
        """Which of the definition's operation ids belong to another flow."""
        ids = [str(o["id"]) for o in definition.get("operations") or []]
        found = self._client.of_ids("operations", "/operations", ids, {"fields": "id,flow"})
        return {str(o["id"]) for o in found if str(o["flow"]) != workflow_id}

    def _secrets(self, definition: Definition, current: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """What stands where the definition has masks: the flow's own secrets, else those Directus remembers."""
        known = directus_writing.known_secrets(current)
        for operation_id in directus_writing.lacking(definition, current):
            remembered: dict[str, str] = {}
            for revision in self._history(operation_id):
                data = revision.get("data") or {}
                remembered = {**known_in(str(data.get("type")), data.get("options") or {}), **remembered}
            known[operation_id] = {**remembered, **known.get(operation_id, {})}
        return known

    def _history(self, operation_id: str) -> list[dict[str, Any]]:
        """What Directus remembers of an operation, newest first."""
        params = {
            "filter[collection]": "directus_operations",
            "filter[item]": operation_id,
            "fields": "id,data,activity.timestamp",
            "sort": "-id",
            "limit": 100,
        }
        return list(self._client.call(f"operation {operation_id}", "GET", "/revisions", params=params))

    def _secret_times(self, operation_id: str) -> dict[str, datetime | None]:
        """When each secret of an operation got its present value, by place."""
        times: dict[str, datetime | None] = {}
        present: dict[str, str] | None = None
        for revision in self._history(operation_id):
            data = revision.get("data") or {}
            if not isinstance(data.get("options"), Mapping):
                continue
            then = {s.place: s.value for s in secrets_of(str(data.get("type")), data["options"])}
            present = then if present is None else present
            at = directus_data.instant((revision.get("activity") or {}).get("timestamp"))
            for place in [p for p, value in present.items() if then.get(p) == value]:
                times[place] = at
            present = {p: value for p, value in present.items() if then.get(p) == value}
        return times

    def _switch(self, workflow_id: str, status: str, what: str, platform_version: str | None) -> None:
        flow = read_flow(self._client, workflow_id)
        if platform_version:
            raise Permanent(f"workflow {workflow_id}: Directus keeps no version {platform_version}; save its content")
        if flow["status"] != status:
            self._write(f"{what} of workflow {workflow_id}", "PATCH", f"/flows/{workflow_id}", {"status": status})

    def _write(self, what: str, method: str, path: str, body: Mapping[str, Any]) -> None:
        self._client.call(what, method, path, params={"fields": "id"}, body=body, timeout_s=WRITE_TIMEOUT_S)

    def _make(self, flow_id: str, definition: Definition, *, status: str, secrets: Any = None) -> None:
        strangers = self._strangers(flow_id, definition)
        wanted = directus_writing.same_ids(flow_id, definition, {}, strangers)
        known = self._secrets(wanted, {}) if secrets is None else secrets
        body = {**directus_writing.body(wanted, None, known), "id": flow_id, "status": status}
        self._write(f"workflow {definition['name']}", "POST", "/flows", body)

    def _named(self, name: str) -> list[dict[str, Any]]:
        params = {**directus_data.WHOLE_FLOW, "filter[name]": name, "limit": -1, "sort": "date_created,id"}
        return list(self._client.call("private entries", "GET", "/flows", params=params))

    def _sound(self, name: str, wanted: Callable[[str], Definition]) -> str | None:
        """The open flow of this name that is as it must be. Others of the name are removed."""
        sound: list[str] = []
        for flow in self._named(name):
            expected = self.hashes(wanted(str(flow["id"])))
            found = self.hashes(directus_data.definition_of(flow))
            if flow["status"] == "active" and found == expected and not sound:
                sound.append(str(flow["id"]))
            else:
                self._remove(str(flow["id"]))
        return sound[0] if sound else None

    def _open_copy(self, version: Version, name: str, built: Callable[[Version, str], dict[str, Any]]) -> str:
        found = self._sound(name, lambda copy_id: built(version, copy_id))
        if found:
            return found
        copy_id = str(uuid.uuid4())
        known = self._secrets(version.definition, read_flow(self._client, version.workflow_id))
        renamed = {str(uuid.uuid5(uuid.UUID(copy_id), old)): places for old, places in known.items()}
        self._make(copy_id, built(version, copy_id), status="active", secrets=renamed)
        return copy_id

    def _open_entry(self, copy_id: str) -> str:
        found = self._sound(
            directus_entry.entry_name(copy_id), lambda entry_id: directus_entry.entry(copy_id, entry_id)
        )
        if found:
            return found
        entry_id = str(uuid.uuid4())
        self._make(entry_id, directus_entry.entry(copy_id, entry_id), status="active", secrets={})
        return entry_id

    def _remove(self, flow_id: str) -> None:
        try:
            self._client.call(f"removal of private entry {flow_id}", "DELETE", f"/flows/{flow_id}")
        except Unknown:
            return


_IMPLEMENTS: Callable[[str, str], Platform] = Directus
