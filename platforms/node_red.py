"""Node-RED as a platform, over its admin API (measured on 5.0.7). A workflow is a tab.

What is particular to it:

- All tabs are one document with one revision. Every write here is a deploy of what changed, tied to the revision that
  was read: when somebody else deployed meanwhile, it is read again, so no edit of another tab is ever lost.
- It lists no runs and keeps no versions. What it replays through a private copy is written down by a node of that copy
  (:mod:`platforms.node_red_entry`), beyond a restart of Node-RED only where settings.js has a context store
  ``reinstate`` of module ``localfilesystem`` with ``cache: false``.
- Pausing a tab throws away the messages in it, and so does a deploy that changes it. Both are answered before they
  have taken effect.
- Passwords among a node's ordinary properties are shown in the clear: :mod:`platforms.node_red_secrets`.
- Subflows and config nodes are shared by tabs; a definition brings its own along.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx

from platforms import node_red_canonical, node_red_credentials, node_red_data, node_red_entry, node_red_outline
from platforms.base import (
    RUN_HEADER,
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
from platforms.http import server_time
from platforms.node_red_client import Deployed, Flows, NodeRedClient, Stale, Unknown

POLL_S = 0.03
DEPLOYS = 12
"""How often a write is tried anew because somebody else deployed meanwhile."""


class NodeRed:
    """One Node-RED. ``token`` is what its ``adminAuth`` takes as bearer token."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = 15.0,
        send_timeout_s: float = 60.0,
        publish_timeout_s: float = 30.0,
    ) -> None:
        self._client = NodeRedClient(url, token, timeout_s=timeout_s)
        self._send_timeout_s = send_timeout_s
        self._publish_timeout_s = publish_timeout_s
        self._writing = threading.Lock()

    def __repr__(self) -> str:
        return f"NodeRed({self._client.base})"

    @property
    def kind(self) -> str:
        return "node-red"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            executions=False,
            shows_in_flight=False,
            stops_runs=False,
            drops_in_flight=True,
            keeps_versions=False,
            draft_apart_from_live=False,
            keeps_ids=True,
            names_authors=False,
            replays_privately=True,
            reads_back_events=self._reads_back(),
            retriggers=False,
            tests_credentials=False,
        )

    def close(self) -> None:
        self._client.close()

    def health(self) -> Health:
        response = self._client.respond("health", "GET", "/flows/state")
        runtime = self._client.report("health")
        running = bool(runtime.get("isStarted")) and (runtime.get("flows") or {}).get("started") is True
        version = runtime.get("version", "?")
        said = "answers" if running else "answers, but its flows are stopped: start them in the editor"
        return Health(ok=running, detail=f"Node-RED {version} at {self._client.base} {said}", now=server_time(response))

    def workflows(self) -> list[WorkflowInfo]:
        flows = self._client.flows("workflows").flows
        return [node_red_data.info_of(t) for t in node_red_data.tabs(flows) if not node_red_data.is_private(t)]

    # Versions

    def draft_version(self, workflow_id: str) -> Version:
        flows, found = self._tab(workflow_id)
        return node_red_data.version_of(flows, found)

    def live_version(self, workflow_id: str) -> Version | None:
        flows, found = self._tab(workflow_id)
        return None if found.get("disabled") else node_red_data.version_of(flows, found)

    def versions(self, workflow_id: str) -> list[Version]:
        self._tab(workflow_id)
        return []

    def save(self, workflow_id: str, definition: Definition) -> Version:
        def change(flows: Flows) -> Flows:
            present = node_red_data.version_of(flows, self._found(flows, workflow_id))
            if (present.hash, present.settings_hash) == self.hashes(definition):
                return flows
            content = node_red_data.apart(definition, flows, workflow_id)
            return node_red_data.with_definition(flows, workflow_id, content)

        self._change(f"save of workflow {workflow_id}", change)
        return self.draft_version(workflow_id)

    def create(self, definition: Definition, *, workflow_id: str | None = None) -> Version:
        tab_id = workflow_id or secrets.token_hex(8)

        def change(flows: Flows) -> Flows:
            content = node_red_data.apart(definition, flows, tab_id)
            return node_red_data.with_definition(flows, tab_id, content)

        self._change(f"workflow {definition['name']}", change)
        return self.draft_version(tab_id)

    def hashes(self, definition: Definition) -> tuple[str, str]:
        return node_red_canonical.content_hash(definition), node_red_canonical.settings_hash(definition)

    def outline(self, definition: Definition) -> Outline:
        return node_red_outline.outline(definition, root=self._client.known_root)

    def credentials(self, workflow_id: str) -> list[Credential]:
        flows, found = self._tab(workflow_id)
        return node_red_credentials.credentials_of(flows, found, self._client.credentials)

    def activate(self, workflow_id: str, platform_version: str | None = None) -> None:
        if platform_version:
            raise Permanent(
                f"workflow {workflow_id}: Node-RED keeps no version {platform_version}; save its content first"
            )
        self._switch(workflow_id, disabled=False)

    def deactivate(self, workflow_id: str) -> None:
        self._switch(workflow_id, disabled=True)

    def ingress_paused(self, workflow_id: str) -> bool:
        flows, found = self._tab(workflow_id)
        if not found.get("disabled"):
            return False
        what = f"entry of workflow {workflow_id}"
        root = self._client.root(what)
        return not any(self._answers(what, source, root) for source in node_red_entry.sources(flows, workflow_id))

    def ingress_open(self, workflow_id: str) -> bool:
        flows, found = self._tab(workflow_id)
        if found.get("disabled"):
            return False
        web = (source for source in node_red_entry.sources(flows, workflow_id) if source["type"] == "http in")
        return all(self._client.alive(f"entry of workflow {workflow_id}", str(source["id"])) for source in web)

    # Runs: Node-RED tells of none but those of private copies

    def runs(
        self,
        workflow_id: str | None = None,  # noqa: ARG002 - there are none of any
        *,
        since: datetime | None = None,  # noqa: ARG002
        states: Sequence[RunState] = (),  # noqa: ARG002
    ) -> list[Run]:
        return []

    def latest_run(self, workflow_id: str) -> str | None:  # noqa: ARG002 - there are none of any
        return None

    def run_detail(self, run_id: str) -> RunDetail:
        entry_id, _, name = run_id.rpartition("-")
        token = node_red_entry.token_of(self._client.flows(f"run {run_id}").flows, entry_id) if entry_id else None
        kept = self._recorded(f"run {run_id}", token, {"run": name}) if token else []
        if not kept:
            raise Permanent(f"run {run_id}: Node-RED does not know it (any more); it keeps those of replays only")
        return node_red_entry.detail_of(kept[0], entry_id)

    def stop(self, run_id: str) -> None:
        raise Permanent(f"run {run_id}: Node-RED cannot stop a run; pause its tab, which drops what is in flight")

    def retrigger(self, run_id: str) -> Run:
        raise Permanent(f"run {run_id}: Node-RED cannot run it again; replay its event")

    # Replay

    def open_private_entry(self, version: Version) -> PrivateEntry:
        what = f"private entry of workflow {version.workflow_id}"
        entry_id = node_red_entry.copy_id(version)
        fresh, durable = secrets.token_hex(20), self._durable()
        node_red_credentials.refuse_own(what, version.definition, self._client.credentials)

        def change(flows: Flows) -> Flows:
            if not durable and node_red_entry.remembers(flows, entry_id):
                raise Permanent(
                    f"{what}: what it was sent is in context store {node_red_entry.STORE}, which settings.js no longer "
                    "has; put the store back and restart Node-RED, lest events are sent twice"
                )
            others = node_red_data.without_tab(flows, entry_id)
            token = node_red_entry.token_of(flows, entry_id) or fresh
            made = node_red_entry.private_copy(version, others, token, durable=durable)
            return flows if node_red_entry.is_same(flows, entry_id, made) else [*others, *made]

        token = node_red_entry.token_of(self._change(what, change), entry_id) or fresh
        deadline = time.monotonic() + self._publish_timeout_s
        while not self._open(what, token):
            if time.monotonic() > deadline:
                raise Retryable(f"{what}: Node-RED did not open it in time; look at its log, then try again")
            time.sleep(POLL_S)
        return PrivateEntry(
            workflow_id=entry_id,
            source_workflow_id=version.workflow_id,
            version_hash=version.hash,
            address=token,
        )

    def open_private_callee(self, version: Version) -> PrivateEntry:
        what = f"private copy of workflow {version.workflow_id}"
        names = node_red_entry.called_as(version)
        if not names:
            raise Permanent(f"workflow {version.workflow_id}: no link leads into the tab; give it a link in node")
        callee_id = node_red_entry.callee_id(version)
        node_red_credentials.refuse_own(what, version.definition, self._client.credentials)

        def change(flows: Flows) -> Flows:
            others = node_red_data.without_tab(flows, callee_id)
            made = node_red_entry.private_callee(version, others)
            return flows if node_red_entry.is_same(flows, callee_id, made) else [*others, *made]

        self._change(what, change)
        return PrivateEntry(
            workflow_id=callee_id,
            source_workflow_id=version.workflow_id,
            version_hash=version.hash,
            address="",
            called_as=names,
        )

    def send(self, entry: PrivateEntry, event: Mapping[str, Any], *, idempotency_key: str) -> Run:
        what = f"replay of event {idempotency_key}"
        name = f"{time.time_ns():016x}{secrets.token_hex(2)}"
        body = node_red_entry.payload(event, idempotency_key, f"{entry.workflow_id}-{name}")
        path = f"{self._client.root(what)}{node_red_entry.address(entry.address)}"
        deadline = time.monotonic() + self._send_timeout_s
        try:
            answer = self._client.web("POST", path, body=body, timeout_s=self._send_timeout_s)
        except httpx.ConnectError as problem:
            raise NotSent(f"{what}: {self._client.base} is unreachable; nothing was sent") from problem
        except httpx.HTTPError:
            answer = None
        if answer is not None and RUN_HEADER not in answer.headers:
            raise self._not_taken(what, entry, answer)
        patience = deadline if answer is not None else time.monotonic() + 5
        while True:
            kept = self._recorded(what, entry.address, {"run": name})
            if kept:
                run = node_red_entry.run_of(kept[0], entry.workflow_id)
                if not run.state.in_flight or time.monotonic() > deadline:
                    return run
            elif time.monotonic() > patience:
                raise Retryable(
                    f"{what}: the answer was lost and no run is known; look for the key before sending again"
                )
            time.sleep(POLL_S)

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        what = f"runs of private entry {entry.workflow_id}"
        if not self._durable():
            return {}
        by_key: dict[str, list[Run]] = {}
        for kept in sorted(self._recorded(what, entry.address, {}), key=lambda r: (r["started"], r["id"])):
            run = node_red_entry.run_of(kept, entry.workflow_id)
            by_key.setdefault(str(kept["key"]), []).append(run)
        return by_key

    def close_private_entry(self, entry: PrivateEntry) -> None:
        what = f"private entry {entry.workflow_id}"
        self._change(what, lambda flows: node_red_data.without_tab(flows, entry.workflow_id))

    # Parts

    def _tab(self, workflow_id: str) -> tuple[Flows, dict[str, Any]]:
        flows = self._client.flows(f"workflow {workflow_id}").flows
        return flows, self._found(flows, workflow_id)

    def _found(self, flows: Flows, workflow_id: str) -> dict[str, Any]:
        found = node_red_data.tab(flows, workflow_id)
        if found is None:
            raise Unknown(f"workflow {workflow_id}: Node-RED does not know this tab; check the id in the catalogue")
        return found

    def _switch(self, workflow_id: str, *, disabled: bool) -> None:
        def change(flows: Flows) -> Flows:
            if bool(self._found(flows, workflow_id).get("disabled")) is disabled:
                return flows
            return node_red_data.with_disabled(flows, workflow_id, disabled=disabled)

        self._change(f"{'de' if disabled else ''}activation of workflow {workflow_id}", change)

    def _change(self, what: str, change: Callable[[Flows], Flows]) -> Flows:
        """Deploy what ``change`` makes of the flows, and return it. Tried again on the newest flows while others
        deploy; after a lost answer the flows are read back, and only what is missing then fails."""
        with self._writing:
            for attempt in range(DEPLOYS):
                present = self._client.flows(what)
                wanted = change(present.flows)
                if wanted == present.flows:
                    return wanted
                try:
                    self._client.deploy(what, Deployed(flows=wanted, rev=present.rev))
                except Stale:
                    time.sleep(POLL_S * attempt)
                except Retryable:
                    now = self._client.flows(what).flows
                    if change(now) == now:
                        return now
                    raise
                else:
                    return wanted
        raise Stale(f"{what}: somebody else deploys all the time; try again when they are done")

    def _answers(self, what: str, source: Mapping[str, Any], root: str) -> bool:
        """Whether what starts a flow still does: an HTTP node by its address, others (and where CORS answers for every
        address) by being at work."""
        if source["type"] == "http in":
            method, path = node_red_data.address(source)
            methods = self._client.methods(what, f"{root}{path}")
            if methods is not None:
                return method in methods
        return self._client.alive(what, str(source["id"]))

    def _reads_back(self) -> bool:
        """While nobody can be asked, no: then no event is sent a second time."""
        try:
            return self._durable()
        except (Permanent, Retryable):
            return False

    def _durable(self) -> bool:
        """Whether settings.js has the store that outlives a restart. Raises when Node-RED does not tell: a copy with a
        memory must not be taken for one without."""
        stores = self._client.settings("context stores").get("contextStorage")
        store = stores.get(node_red_entry.STORE) if isinstance(stores, dict) else None
        return isinstance(store, dict) and store.get("module") == "localfilesystem"

    def _open(self, what: str, token: str) -> bool:
        try:
            self._recorded(what, token, {"run": "none"})
        except Unknown:
            return False
        return True

    def _recorded(self, what: str, token: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """What the desk of a copy has written down."""
        path = f"{self._client.root(what)}{node_red_entry.address(token)}"
        return self._client.recorded(what, path, query)

    def _not_taken(self, what: str, entry: PrivateEntry, answer: httpx.Response) -> Permanent | Retryable:
        cause = " ".join(answer.text.split())[:160]
        if node_red_entry.REFUSED_HEADER in answer.headers:
            return Permanent(f"{what}: the private entry refused it: {cause}")
        if answer.status_code != 404:
            return Retryable(
                f"{what}: Node-RED answered {answer.status_code} ({cause}); look for the key before sending"
            )
        if node_red_entry.token_of(self._client.flows(what).flows, entry.workflow_id) is None:
            return Permanent(f"{what}: the private entry is closed; open it again")
        return NotSent(f"{what}: Node-RED restarts its flows; nothing was sent, try again")


_IMPLEMENTS: Callable[[str, str], Platform] = NodeRed
