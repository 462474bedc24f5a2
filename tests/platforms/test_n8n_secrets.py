"""Secrets typed into n8n's nodes never leave the adapter, and n8n's own are put back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from platforms import canonical, n8n_data
from platforms.base import Permanent, Version
from platforms.n8n import N8n
from platforms.n8n_secrets import KEPT, content_hash, known_in, restored, without

HUSH = "hush-4711"
SECRET: list[tuple[dict[str, Any], str]] = [
    (
        {"headerParameters": {"parameters": [{"name": "Authorization", "value": f"Bearer {HUSH}"}]}},
        "headerParameters.parameters.Authorization.value",
    ),
    (
        {"headerParameters": {"parameters": [{"name": "X-Api-Key", "value": f"={HUSH}{{{{ $json.n }}}}"}]}},
        "headerParameters.parameters.X-Api-Key.value",
    ),
    (
        {"headerParametersUi": {"parameter": [{"name": "Cookie", "value": HUSH}]}},
        "headerParametersUi.parameter.Cookie.value",
    ),
    (
        {"queryParameters": {"parameters": [{"name": "api_key", "value": HUSH}]}},
        "queryParameters.parameters.api_key.value",
    ),
    (
        {"bodyParameters": {"parameters": [{"name": "client_secret", "value": HUSH}]}},
        "bodyParameters.parameters.client_secret.value",
    ),
    (
        {"assignments": {"assignments": [{"id": "1", "name": "accessToken", "value": HUSH, "type": "string"}]}},
        "assignments.assignments.accessToken.value",
    ),
    ({"values": {"string": [{"name": "password", "value": HUSH}]}}, "values.string.password.value"),
    ({"columns": {"value": {"password": HUSH, "n": 1}}}, "columns.value.password"),
    ({"url": f"https://ada:{HUSH}@x.example/a"}, "url:password"),
    ({"url": f"=https://x.example/?a=1&access_token={HUSH}&b={{{{ $json.b }}}}"}, "url:access_token"),
    ({"body": f"grant_type=x&client_secret={HUSH}"}, "body:client_secret"),
    ({"jsonBody": f'={{"token": "{HUSH}", "n": {{{{ $json["n"] }}}}}}'}, "jsonBody:token"),
    ({"jsonBody": f"={{{{ {{password: '{HUSH}'}} }}}}"}, "jsonBody:password"),
    ({"options": {"password": f"={{{{ 'Basic ' + btoa('ada:{HUSH}') }}}}"}}, "options.password"),
]
PLAIN: list[dict[str, Any]] = [
    {"headerParameters": {"parameters": [{"name": "Authorization", "value": "=Bearer {{ $env.TOKEN }}"}]}},
    {"headerParameters": {"parameters": [{"name": "Authorization", "value": "={{ 'Bearer ' + $json['the token'] }}"}]}},
    {"headerParameters": {"parameters": [{"name": "Cookie", "value": "={{ $('Log in').item.json.cookie }}"}]}},
    {"headerParameters": {"parameters": [{"name": "X-Shop", "value": "north"}]}},
    {"jsonBody": '={"token": "{{ $json["token"] }}", "name": "ada"}'},
    {"url": "=https://{{ $json.user }}:{{ $json.pw }}@x.example/?token={{ $json['t'] }}&shop=north"},
    {"jsCode": f"const password = '{HUSH}'; return [{{json: {{token: 'x'}}}}];"},
    {"query": "SELECT token, password FROM accounts WHERE at > '10:00:00'"},
    {"maxTokens": 50, "password": "", "secret": True, "authentication": "genericCredentialType"},
]


def workflow(parameters: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    hook = {"id": "h", "name": "Hook", "type": "n8n-nodes-base.webhook", "typeVersion": 2, "parameters": {"path": "p"}}
    ask = {"id": "a", "name": "Ask", "type": "n8n-nodes-base.httpRequest", "typeVersion": 4.2, "position": [1, 1]}
    links = {"Hook": {"main": [[{"node": "Ask", "type": "main", "index": 0}]]}}
    nodes = [hook, {**ask, "parameters": dict(parameters)}]
    return {"name": "shop", "nodes": nodes, "connections": links, "settings": {}, **fields}


def bearer(token: str, url: str = "https://x.example/") -> dict[str, Any]:
    return {"url": url, "headerParameters": {"parameters": [{"name": "Authorization", "value": f"Bearer {token}"}]}}


@pytest.mark.parametrize(("parameters", "place"), SECRET)
def test_a_secret_is_found_taken_out_and_put_back(parameters: dict[str, Any], place: str) -> None:
    whole = workflow(parameters)
    hidden = without(whole)
    assert list(known_in(whole["nodes"][1])) == [place]
    assert HUSH not in json.dumps(hidden)
    assert KEPT in json.dumps(hidden)
    assert without(hidden) == hidden
    assert known_in(hidden["nodes"][1]) == {}
    assert restored(hidden, [whole]) == whole
    assert content_hash(hidden) == content_hash(whole) == canonical.content_hash(hidden)


@pytest.mark.parametrize("parameters", PLAIN)
def test_what_is_no_secret_stays_and_hashes_as_ever(parameters: dict[str, Any]) -> None:
    whole = workflow(parameters)
    assert without(whole) == whole
    assert restored(whole, []) is whole
    assert content_hash(whole) == canonical.content_hash(whole)


def test_what_was_saved_last_comes_first_and_older_versions_only_when_it_must() -> None:
    hidden = without(workflow(bearer(HUSH)))
    asked = []

    def contents(*tokens: str | None) -> Iterator[Mapping[str, Any]]:
        for token in tokens:
            asked.append(token)
            yield {"nodes": []} if token is None else workflow(bearer(token))

    assert restored(hidden, contents("new", "old")) == workflow(bearer("new"))
    assert asked == ["new"]
    assert restored(hidden, contents(None, "old", "older")) == workflow(bearer("old"))


def test_a_secret_is_found_by_the_nodes_id_else_its_name_and_never_in_another_kind_of_node() -> None:
    hidden = without(workflow(bearer(HUSH)))
    kept = workflow(bearer(HUSH))
    for changed in ({"name": "Called otherwise"}, {"id": "other"}):
        other = {**kept, "nodes": [kept["nodes"][0], {**kept["nodes"][1], **changed}]}
        assert restored(hidden, [other]) == kept
    other = {**kept, "nodes": [{**kept["nodes"][1], "type": "n8n-nodes-base.set"}]}
    with pytest.raises(
        Permanent, match=r"^workflow shop: n8n does not have the secret .*Authorization.* of node 'Ask'"
    ):
        restored(hidden, [other])


def test_a_marker_that_stands_in_n8n_is_a_lost_secret_and_other_headers_may_come_and_go() -> None:
    hidden = without(workflow(bearer(HUSH)))
    with pytest.raises(Permanent, match="type it into that node in n8n's editor"):
        restored(hidden, [hidden])
    with pytest.raises(Permanent, match="import the file"):
        restored(hidden, (), gone=True)
    more = copy.deepcopy(workflow(bearer(HUSH)))
    more["nodes"][1]["parameters"]["headerParameters"]["parameters"].insert(0, {"name": "X-Token", "value": "other"})
    assert restored(hidden, [more]) == workflow(bearer(HUSH))


class Client:
    """n8n's answers, canned: one workflow with its history and whatever copies are made."""

    base = "http://n8n"

    def __init__(self, *contents: Mapping[str, Any]) -> None:
        self.history = [{**c, "versionId": f"v{len(contents) - i}"} for i, c in enumerate(contents)]
        self.present = {**self.history[0], "id": "w", "active": False, "shared": []}
        self.copies: list[dict[str, Any]] = []
        self.written: list[Mapping[str, Any]] = []

    def get(self, _what: str, path: str, **_: Any) -> Any:
        if "/versions/" in path:
            return next(c for c in self.history if c["versionId"] == path.rpartition("/")[2])
        return self.present

    def pages(self, _what: str, path: str, **_: Any) -> list[Any]:
        return self.history if path.endswith("/history") else self.copies

    def call(self, _what: str, method: str, _path: str, *, body: Any = None, **_: Any) -> Any:
        self.written.append(body)
        if method == "PUT":
            self.present = {**self.present, **body}
            return self.present
        self.copies.append({**body, "id": "c", "active": True, "createdAt": "2026-01-01T00:00:00Z"})
        return self.copies[-1]

    def webhook_methods(self, _path: str) -> list[str]:
        return ["POST"]

    def close(self) -> None:
        """Nothing is open."""


def adapter(*contents: Mapping[str, Any]) -> tuple[N8n, Client]:
    client = Client(*contents)
    n8n: Any = N8n("http://n8n", "key")
    n8n.close()
    n8n._client = n8n._book._client = client
    return n8n, client


def test_whatever_the_adapter_tells_holds_no_secret_and_one_hash() -> None:
    whole = workflow(bearer(HUSH))
    n8n, _ = adapter(whole)
    told = [n8n.draft_version("w"), *n8n.versions("w")]
    assert len({v.hash for v in told} | {n8n.hashes(whole)[0], n8n.hashes(told[0].definition)[0]}) == 1
    assert HUSH not in json.dumps([v.definition for v in told])
    assert n8n.outline(whole) == n8n.outline(told[0].definition)
    assert HUSH not in repr(n8n.outline(whole))


def test_saving_an_earlier_version_keeps_the_secret_that_n8n_has() -> None:
    good, broken = workflow(bearer("old")), workflow(bearer(HUSH, "https://wrong.example/"))
    n8n, client = adapter(broken, good)
    wanted = n8n.versions("w")[1]
    saved = n8n.save("w", json.loads(json.dumps(wanted.definition)))
    assert client.written[0]["nodes"][1]["parameters"] == bearer(HUSH)
    assert saved.hash == wanted.hash
    assert HUSH not in json.dumps(saved.definition)
    assert n8n.save("w", wanted.definition).hash == wanted.hash
    assert len(client.written) == 1, "equal content is not written"
    n8n.save("w", workflow(bearer("typed in")))
    assert client.written[1]["nodes"][1]["parameters"] == bearer("typed in")


def test_a_node_that_was_deleted_gets_its_secret_from_the_history() -> None:
    good = workflow(bearer(HUSH))
    n8n, client = adapter({**good, "nodes": good["nodes"][:1]}, good)
    n8n.save("w", without(good))
    assert client.written[0]["nodes"][1]["parameters"] == bearer(HUSH)


def test_nothing_is_written_with_a_marker() -> None:
    good = workflow(bearer(HUSH))
    n8n, client = adapter({**good, "nodes": good["nodes"][:1]})
    with pytest.raises(Permanent, match="Authorization"):
        n8n.save("w", without(good))
    with pytest.raises(Permanent, match="Authorization"):
        n8n.create(without(good))
    assert client.written == []


def test_a_private_copy_runs_with_the_secret_and_is_found_again() -> None:
    n8n, client = adapter(workflow(bearer(HUSH)))
    version = n8n.draft_version("w")
    entry = n8n.open_private_entry(version)
    copied = next(n for n in client.copies[0]["nodes"] if n["name"] == "Ask")
    assert copied["parameters"] == bearer(HUSH)
    assert n8n.open_private_entry(version) == entry
    assert len(client.copies) == 1


def test_a_run_is_told_the_hash_without_secrets_and_the_version_that_had_its_secret() -> None:
    n8n, client = adapter(workflow(bearer("new")), workflow(bearer("old")))
    ran = workflow({**bearer("old"), "method": "GET"})
    run = {"id": "7", "workflowId": "w", "workflowVersionId": "v2", "workflowData": ran}
    identity: Any = n8n._book.identify(run)
    assert (identity.hash, identity.platform_version) == (n8n.draft_version("w").hash, "v1")
    assert n8n_data.version_of(client.present).hash == identity.hash


def test_a_copy_of_a_version_with_its_own_secret_needs_nothing_from_n8n() -> None:
    whole = workflow(bearer(HUSH))
    n8n, client = adapter({**whole, "nodes": []})
    n8n.open_private_entry(Version(workflow_id="w", hash=content_hash(whole), definition=whole))
    assert HUSH in json.dumps(client.copies)


def test_what_is_no_definition_stays_as_it_is() -> None:
    for strange in ({}, {"name": "x"}, {"nodes": None}, {"name": "x", "nodes": [{"type": "of-a-stranger"}]}):
        assert without(strange) == strange
