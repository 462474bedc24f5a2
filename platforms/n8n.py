"""n8n as a platform, over its public API (measured on 2.40).

What is particular to it:

- Publishing is asynchronous: ``activate`` and ``deactivate`` answer at once, about 0.1 s later (15 s if n8n's queue
  was interrupted) production follows. ``activeVersionId`` is what is *set* live; a run's version is what ran.
- The version n8n records with a run is not to be trusted: see :mod:`platforms.n8n_versions`.
- ``save`` never publishes (``publishIfActive=false``), but name and settings are not versioned and apply at once.
- Workflow settings for good evidence: ``saveDataErrorExecution`` and ``saveDataSuccessExecution`` "all" (the default);
  with ``saveExecutionProgress`` interrupted runs also keep the outputs of the nodes that had ended. The event itself is
  kept in any case, also of runs that were stopped, failed in the first node, or are in flight.
- Publishing is refused while a node that is switched on and connected lacks what it requires, or calls a workflow that
  is not published: what is called has to be active before its callers. Saving is not refused.
- ``retrigger`` takes runs that did not succeed, goes on at the node that failed, and answers when the run has ended.
- Deleting a workflow, so closing a private entry too, deletes its runs. History keeps unpublished content for a day.
- An archived workflow counts as deleted: it neither runs nor can be published, and a new one may have its name.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx

from platforms import canonical, n8n_data, n8n_entry, n8n_outline, n8n_secrets
from platforms.base import (
    Capabilities,
    Credential,
    Definition,
    Health,
    NotSent,
    Outline,
    Permanent,
    PrivateEntry,
    Retryable,
    Run,
    RunDetail,
    RunState,
    Version,
    WorkflowInfo,
)
from platforms.canonical import settings_hash
from platforms.http import server_time
from platforms.n8n_client import Conflict, N8nClient, Unknown
from platforms.n8n_credentials import CredentialBook
from platforms.n8n_secrets import content_hash
from platforms.n8n_sent import SentBook
from platforms.n8n_versions import VersionBook
from platforms.n8n_webhooks import answering, webhook_addresses

RECENT_VERSIONS = 10
"""Versions whose webhook addresses are asked too when a pause is checked: the last live one is not named any more."""

POLL_S = 0.05


class N8n:
    """One n8n. ``longest_run`` bounds how long before ``since`` an *ended* run may have started to be listed by
    :meth:`runs`; runs in flight are listed whatever their age."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_s: float = 15.0,
        send_timeout_s: float = 60.0,
        publish_timeout_s: float = 30.0,
        longest_run: timedelta = timedelta(hours=1),
    ) -> None:
        self._client = N8nClient(url, api_key, timeout_s=timeout_s)
        self._send_timeout_s = send_timeout_s
        self._publish_timeout_s = publish_timeout_s
        self._longest_run = longest_run
        self._book = VersionBook(self._client)
        self._credentials = CredentialBook(self._client)
        self._sent = SentBook(self._client)

    def __repr__(self) -> str:
        return f"N8n({self._client.base})"

    @property
    def kind(self) -> str:
        return "n8n"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            executions=True,
            shows_in_flight=True,
            stops_runs=True,
            drops_in_flight=False,
            keeps_versions=True,
            draft_apart_from_live=True,
            keeps_ids=False,
            names_authors=True,
            replays_privately=True,
            reads_back_events=True,
            retriggers=True,
            tests_credentials=True,
        )

    def close(self) -> None:
        self._client.close()

    def health(self) -> Health:
        response = self._client.respond("health", "GET", "/workflows", params={"limit": 1})
        if not isinstance(self._client.decoded("health", response).get("data"), list):
            raise Permanent(f"health: {self._client.base} does not answer like n8n; check the URL")
        return Health(ok=True, detail=f"n8n at {self._client.base} answers", now=server_time(response))

    def workflows(self) -> list[WorkflowInfo]:
        listed = self._client.pages("workflows", "/workflows", params={"excludePinnedData": "true"})
        return [n8n_data.info_of(w) for w in listed if not (w.get("isArchived") or n8n_entry.is_private(w["name"]))]

    # Versions

    def draft_version(self, workflow_id: str) -> Version:
        return n8n_data.version_of(self._workflow(workflow_id))

    def live_version(self, workflow_id: str) -> Version | None:
        workflow = self._workflow(workflow_id)
        return n8n_data.version_of(workflow, workflow["activeVersion"]) if workflow.get("activeVersionId") else None

    def versions(self, workflow_id: str) -> list[Version]:
        workflow = self._workflow(workflow_id)
        return [n8n_data.version_of(workflow, content) for content in self._book.contents(workflow_id)]

    def save(self, workflow_id: str, definition: Definition) -> Version:
        present = self._workflow(workflow_id)
        current = n8n_data.version_of(present)
        wanted = n8n_secrets.restored(definition, self._contents(present))
        # Secrets count here: what the caller typed in must be written even if nothing else changed.
        equal = canonical.content_hash(present) == canonical.content_hash(wanted)
        if equal and current.settings_hash == settings_hash(wanted):
            return current
        body = n8n_data.writable(wanted, present=current.definition["settings"])
        path, params = f"/workflows/{workflow_id}", {"publishIfActive": "false"}
        saved = self._client.call(f"save of workflow {workflow_id}", "PUT", path, params=params, body=body)
        return n8n_data.version_of(saved)

    def create(self, definition: Definition, *, workflow_id: str | None = None) -> Version:  # noqa: ARG002 - n8n gives ids
        body = n8n_data.writable(n8n_secrets.restored(definition, (), gone=True))
        made = self._client.call(f"workflow {definition['name']}", "POST", "/workflows", body=body)
        return n8n_data.version_of(made)

    def hashes(self, definition: Definition) -> tuple[str, str]:
        return content_hash(definition), settings_hash(definition)

    def outline(self, definition: Definition) -> Outline:
        return n8n_outline.outline(n8n_secrets.without(definition))

    def credentials(self, workflow_id: str) -> list[Credential]:
        workflow = self._workflow(workflow_id)

        def probe(definition: Definition) -> Mapping[str, Sequence[Mapping[str, Any]]]:
            version = Version(workflow_id=workflow_id, hash=content_hash(definition), definition=definition)
            entry = self.open_private_entry(version)
            try:
                return self.run_detail(self.send(entry, {"body": {}}, idempotency_key="credentials").id).outputs
            finally:
                self.close_private_entry(entry)

        return self._credentials.look(n8n_outline.credentials_of(workflow), probe)

    def activate(self, workflow_id: str, platform_version: str | None = None) -> None:
        body = {"versionId": platform_version} if platform_version else {}
        self._client.call(
            f"activation of workflow {workflow_id}", "POST", f"/workflows/{workflow_id}/activate", body=body
        )

    def deactivate(self, workflow_id: str) -> None:
        what, path = f"deactivation of workflow {workflow_id}", f"/workflows/{workflow_id}/deactivate"
        n8n_data.not_archived(what, self._client.call(what, "POST", path))

    def ingress_paused(self, workflow_id: str) -> bool:
        workflow = self._workflow(workflow_id)
        if workflow["active"]:
            return False
        contents = [workflow, *self._book.contents(workflow_id, most=RECENT_VERSIONS)]
        addresses = {address for content in contents for address in webhook_addresses(content["nodes"])}
        return not any(method in self._client.webhook_methods(path) for path, method in addresses)

    def ingress_open(self, workflow_id: str) -> bool:
        workflow = self._workflow(workflow_id)
        if not workflow["active"]:
            return False
        addresses = answering(workflow["activeVersion"]["nodes"])
        return all(methods & self._client.webhook_methods(path) for path, methods in addresses.items())

    # Runs

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        wanted = frozenset(states) or frozenset(RunState)
        found: dict[str, Mapping[str, Any]] = {}
        filters = {"workflowId": workflow_id} if workflow_id else {}
        for query in n8n_data.run_queries(wanted, since - self._longest_run if since else None):
            params = {**filters, **query}
            listed = {str(e["id"]): e for e in self._client.pages("runs", "/executions", params=params)}
            self._book.learn(listed, params)
            found |= listed
        kept = []
        for execution in found.values():
            run = n8n_data.run_of(execution, self._book.of_run(execution))
            if run.state in wanted and (run.stopped_at is None or since is None or run.stopped_at >= since):
                kept.append(run)
        return sorted(kept, key=lambda run: int(run.id))

    def latest_run(self, workflow_id: str) -> str | None:
        newest = 0
        for query in ({"status": "new"}, {"status": "running"}, {"status": "waiting"}, {}):
            answer = self._client.get("runs", "/executions", workflowId=workflow_id, limit=1, **query)
            newest = max([newest, *(int(execution["id"]) for execution in answer["data"])])
        return str(newest) if newest else None

    def run_detail(self, run_id: str) -> RunDetail:
        params = {"includeData": "true", "ignoreDataSizeLimit": "true"}
        execution = self._client.get(f"run {run_id}", f"/executions/{run_id}", **params)
        return n8n_data.detail_of(execution, n8n_data.run_of(execution, self._book.identify(execution)))

    def stop(self, run_id: str) -> None:
        try:
            self._client.call(f"stop of run {run_id}", "POST", f"/executions/{run_id}/stop")
        except Conflict:
            # The answer for a run that already ended: nothing is left to do.
            if self.run_detail(run_id).run.state.in_flight:
                raise

    def retrigger(self, run_id: str) -> Run:
        body = {"loadWorkflow": True}
        answer = self._client.call(f"retry of run {run_id}", "POST", f"/executions/{run_id}/retry", body=body)
        return self.run_detail(str(answer["id"])).run

    # Replay

    def open_private_entry(self, version: Version) -> PrivateEntry:
        if not n8n_entry.triggers_of(version.definition):
            raise Permanent(f"workflow {version.workflow_id}: it has no trigger, so there is no event to replay")
        copy = self._copy(
            version,
            n8n_entry.copy_name(version),
            lambda found: n8n_entry.private_copy(version, n8n_entry.token_of(found) or secrets.token_hex(20)),
        )
        token = n8n_entry.token_of(copy) or ""
        entry = PrivateEntry(
            workflow_id=str(copy["id"]),
            source_workflow_id=version.workflow_id,
            version_hash=version.hash,
            address=token,
        )
        paths = {path for path, _ in webhook_addresses(copy["nodes"])}
        if not copy["active"]:
            self.activate(entry.workflow_id)
        self._wait(
            lambda: all("POST" in self._client.webhook_methods(path) for path in paths),
            f"private entry of workflow {version.workflow_id}: n8n did not open it in time; try again",
        )
        return entry

    def open_private_callee(self, version: Version) -> PrivateEntry:
        if not n8n_entry.can_be_called(version.definition):
            raise Permanent(
                f"workflow {version.workflow_id}: it has no trigger for calls of other workflows; add one in its editor"
            )
        wanted = n8n_entry.private_callee(version)
        copy = self._copy(version, wanted["name"], lambda _: wanted)
        if not copy["active"]:
            self.activate(str(copy["id"]))
        return PrivateEntry(
            workflow_id=str(copy["id"]),
            source_workflow_id=version.workflow_id,
            version_hash=version.hash,
            address="",
            called_as={version.workflow_id: str(copy["id"])},
        )

    def send(self, entry: PrivateEntry, event: Mapping[str, Any], *, idempotency_key: str) -> Run:
        if "items" in event and "body" not in event:
            raise Permanent(f"event {idempotency_key}: several items at once cannot be replayed through n8n")
        what = f"replay of event {idempotency_key}"
        before = self._sent.before(entry, idempotency_key)
        path = n8n_entry.entry_path(entry.address, event.get("trigger"))
        headers = n8n_data.key_header(idempotency_key)
        deadline = time.monotonic() + self._send_timeout_s
        try:
            answer = self._client.post_webhook(path, n8n_entry.payload(event), headers, timeout_s=self._send_timeout_s)
        except httpx.ConnectError as problem:
            raise NotSent(f"{what}: n8n at {self._client.base} is unreachable; nothing was sent") from problem
        except httpx.HTTPError:
            answer = None
        if answer is not None and answer.status_code == 404 and "not registered" in answer.text:
            raise Permanent(f"{what}: the private entry is closed; open it again")
        # n8n stores the end of a run just after it answered.
        patience = time.monotonic() + 5
        run: Run | None = None
        while time.monotonic() < (deadline if run else patience):
            found = (r for key, r in self._sent.keyed(entry, after=before, page=5) if key == idempotency_key)
            run = next(found, run)
            if run:
                self._sent.remember(entry, idempotency_key, run)
                if not run.state.in_flight:
                    return run
            time.sleep(POLL_S)
        if run:
            return run
        raise Retryable(f"{what}: n8n's answer was lost and no run is known; look for the key before sending again")

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        by_key: dict[str, list[Run]] = {}
        for key, run in sorted(self._sent.keyed(entry, after=0), key=lambda pair: int(pair[1].id)):
            by_key.setdefault(key, []).append(run)
        return by_key

    def close_private_entry(self, entry: PrivateEntry) -> None:
        self._remove(entry.workflow_id)

    # Parts

    def _workflow(self, workflow_id: str) -> dict[str, Any]:
        what = f"workflow {workflow_id}"
        return n8n_data.not_archived(what, self._client.get(what, f"/workflows/{workflow_id}"))

    def _contents(self, workflow: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """What n8n has of a workflow, secrets and all: saved, live, then its history, newest first."""
        yield workflow
        if workflow.get("activeVersionId"):
            yield workflow["activeVersion"]
        yield from self._book.contents(str(workflow["id"]))

    def _copy(
        self, version: Version, name: str, wanted: Callable[[Mapping[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """The open copy of this name, else a new one. ``wanted`` is what a found one has to be; asked with nothing,
        what a new one is."""
        copy, *surplus = self._copies(name, wanted) or [self._make_copy(version, wanted({"nodes": ()}))]
        for other in surplus:
            self._remove(str(other["id"]))
        return copy

    def _copies(self, name: str, wanted: Callable[[Mapping[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
        """Open copies of this name, the first to be used. Changed ones are removed; archived ones come back, since
        their runs tell what they were sent."""
        listed = self._client.pages("private entries", "/workflows", params={"name": name, "excludePinnedData": "true"})
        sound = []
        for copy in [w for w in listed if w["name"] == name]:
            if content_hash(copy) == content_hash(wanted(copy)):
                sound.append(self._unarchived(copy))
            else:
                self._remove(str(copy["id"]))
        return sorted(sound, key=lambda w: (not w["active"], w["createdAt"], w["id"]))

    def _unarchived(self, copy: dict[str, Any]) -> dict[str, Any]:
        if not copy.get("isArchived"):
            return copy
        return self._client.call(f"private entry {copy['id']}", "POST", f"/workflows/{copy['id']}/unarchive")

    def _make_copy(self, version: Version, copy: Mapping[str, Any]) -> dict[str, Any]:
        source = self._workflow(version.workflow_id)
        body = n8n_data.writable(n8n_secrets.restored(copy, self._contents(source)))
        owner = [s for s in source.get("shared") or () if s["role"] == "workflow:owner"]
        if owner:
            # Credentials are shared by project: elsewhere the copy might not be allowed to use them.
            body["projectId"] = owner[0]["projectId"]
        return self._client.call(f"private entry of workflow {version.workflow_id}", "POST", "/workflows", body=body)

    def _remove(self, workflow_id: str) -> None:
        path = f"/workflows/{workflow_id}"

        def gone() -> bool:
            for method, target in (("POST", f"{path}/deactivate"), ("DELETE", path)):
                try:
                    self._client.call(f"removal of private entry {workflow_id}", method, target)
                except Unknown:
                    return True
                except Conflict:  # still being unpublished
                    return False
            return True

        self._wait(gone, f"private entry {workflow_id}: n8n did not remove it in time; try again")

    def _wait(self, done: Callable[[], bool], late: str) -> None:
        deadline = time.monotonic() + self._publish_timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise Retryable(late)
            time.sleep(POLL_S)
