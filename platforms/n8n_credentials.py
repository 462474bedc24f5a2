"""How n8n's credentials are, told through its public API.

n8n gives a credential's names and times, and a test by id. Two gaps are closed here:

- Many types have no test: such a credential is *present*.
- A credential that cannot be decrypted (n8n runs with another encryption key) is tested by n8n as if it were empty, so
  it looks refused, or even fine where empty values happen to work. Whatever did not pass is therefore read by a
  *probe*: a private workflow whose request nodes name the credentials and call an address where nobody listens. n8n
  decrypts first and fails with a message of its own if it cannot. Nothing leaves the machine, no workflow of anybody
  runs; it takes about two seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from platforms.base import Credential, CredentialState, Definition, Permanent
from platforms.n8n_client import N8nClient, Unknown
from platforms.n8n_data import instant

FRESH_S = 20.0
"""So long what a test or the probe said of an unchanged credential is believed."""

UNTESTABLE = "no testing function"
UNDECRYPTED = "could not be decrypted"
NOBODY = "http://127.0.0.1:9/"

Probe = Callable[[Definition], Mapping[str, Sequence[Mapping[str, Any]]]]
"""Runs a definition once, privately, and returns its outputs by node."""


class CredentialBook:
    """Looks at credentials and remembers for a moment what it saw. Safe to share between threads."""

    def __init__(self, client: N8nClient) -> None:
        self._client = client
        self._seen: dict[tuple[str, str], tuple[float, Credential]] = {}

    def look(self, named: Iterable[Credential], probe: Probe) -> list[Credential]:
        """``named`` credentials (as a definition names them) as they are now, in their order."""
        found = [self._of(credential) for credential in named]
        doubtful = [c for c, sure in found if not sure]
        locked = self._locked(doubtful, probe) if doubtful else frozenset()
        result = []
        for credential, _ in found:
            told = credential
            if credential.id in locked:
                why = "n8n cannot decrypt it: its encryption key is not the one it was stored with"
                told = replace(credential, state=CredentialState.UNREADABLE, detail=why)
            if told.changed_at is not None:
                self._seen[told.id, told.changed_at.isoformat()] = (time.monotonic(), told)
            result.append(told)
        return result

    def _locked(self, doubtful: Sequence[Credential], probe: Probe) -> frozenset[str]:
        try:
            return unreadable(doubtful, probe(probe_definition(doubtful)))
        except Permanent:
            # No right to make a workflow, or another process closed the probe: what the tests said stands.
            return frozenset()

    def _of(self, named: Credential) -> tuple[Credential, bool]:
        """The credential, and whether its state is sure."""
        what = f"credential {named.name}"
        try:
            kept = self._client.get(what, f"/credentials/{named.id}")
        except Unknown:
            why = "the platform does not have it; make it again, then choose it in the workflow"
            return replace(named, state=CredentialState.MISSING, detail=why), True
        found = replace(named, name=str(kept["name"]), kind=str(kept["type"]), changed_at=instant(kept["updatedAt"]))
        at, seen = self._seen.get((found.id, found.changed_at.isoformat() if found.changed_at else ""), (0.0, None))
        if seen is not None and time.monotonic() - at < FRESH_S:
            return seen, True
        answer = self._client.call(f"test of {what}", "POST", f"/credentials/{named.id}/test")
        said = " ".join(str(answer.get("message") or "").split())[:160]
        if str(answer.get("status")).upper() == "OK":
            return replace(found, state=CredentialState.VALID, detail=""), True
        if UNTESTABLE in said.lower():
            return replace(found, state=CredentialState.PRESENT, detail=f"n8n has no test for {found.kind}"), False
        return replace(found, state=CredentialState.INVALID, detail=said or "its test failed"), False


def probe_definition(credentials: Sequence[Credential]) -> dict[str, Any]:
    """A workflow that makes n8n decrypt the credentials, one after the other, and goes on whatever happens."""
    hook = {"path": "reinstate-credentials", "httpMethod": "POST", "responseMode": "lastNode", "options": {}}
    nodes: list[dict[str, Any]] = [_node("Start", "webhook", 2, hook, webhookId="reinstate-credentials")]
    connections = {}
    for credential in credentials:
        request = {
            "url": NOBODY,
            "authentication": "predefinedCredentialType",
            "nodeCredentialType": credential.kind,
            "options": {"timeout": 1000},
        }
        reference = {credential.kind: {"id": credential.id, "name": credential.name}}
        connections[nodes[-1]["name"]] = {"main": [[{"node": credential.id, "type": "main", "index": 0}]]}
        more = {"credentials": reference, "onError": "continueRegularOutput"}
        nodes.append(_node(credential.id, "httpRequest", 4.2, request, **more))
    return {"name": "credentials", "nodes": nodes, "connections": connections, "settings": {}}


def unreadable(credentials: Sequence[Credential], outputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> frozenset[str]:
    """The ids of those that n8n said it could not decrypt."""
    return frozenset(c.id for c in credentials if UNDECRYPTED in str(list(outputs.get(c.id) or ())))


def _node(name: str, kind: str, version: float, parameters: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "id": f"reinstate-{name}",
        "name": name,
        "type": f"n8n-nodes-base.{kind}",
        "typeVersion": version,
        "position": [0, 0],
        "parameters": dict(parameters),
        **fields,
    }
