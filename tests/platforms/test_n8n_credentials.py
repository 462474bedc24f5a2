"""What n8n's tests and the probe say of credentials, without an n8n."""

from collections.abc import Mapping
from typing import Any

import pytest

from platforms.base import Credential, CredentialState, Permanent
from platforms.n8n_client import Unknown
from platforms.n8n_credentials import CredentialBook, probe_definition, unreadable

LOCKED = {"error": 'Credentials could not be decrypted. The likely reason is that a different "encryptionKey" was used'}


def named(credential_id: str) -> Credential:
    return Credential(id=credential_id, name="shop", kind="postgres", state=CredentialState.PRESENT)


class Answers:
    """An n8n that has credentials and what its test says of each."""

    def __init__(self, **tests: tuple[str, str]) -> None:
        self.tests = tests
        self.tested: list[str] = []
        self.updated = "2026-11-22T07:00:00.000Z"

    def get(self, what: str, path: str, **_: Any) -> dict[str, Any]:
        credential_id = path.rpartition("/")[2]
        if credential_id not in self.tests:
            raise Unknown(f"{what}: not there")
        return {"id": credential_id, "name": "shop now", "type": "postgres", "updatedAt": self.updated}

    def call(self, _what: str, method: str, path: str) -> dict[str, Any]:
        credential_id = path.split("/")[2]
        assert (method, path) == ("POST", f"/credentials/{credential_id}/test")
        self.tested.append(credential_id)
        status, message = self.tests[credential_id]
        return {"status": status, "message": message}


class Probe:
    def __init__(self, outputs: Mapping[str, Any] | None) -> None:
        self.outputs = outputs
        self.asked: list[Any] = []

    def __call__(self, definition: Any) -> Mapping[str, Any]:
        self.asked.append(definition)
        if self.outputs is None:
            raise Permanent("no right to make a workflow")
        return self.outputs


@pytest.mark.parametrize(
    ("status", "message", "output", "state"),
    [
        ("OK", "Connection successful!", {}, CredentialState.VALID),
        ("Error", "password authentication failed", {"error": "refused"}, CredentialState.INVALID),
        ("Error", "Connection refused", LOCKED, CredentialState.UNREADABLE),
        ("Error", "No testing function found for this credential.", {"error": "refused"}, CredentialState.PRESENT),
        ("Error", "No testing function found for this credential.", LOCKED, CredentialState.UNREADABLE),
    ],
)
def test_states(status: str, message: str, output: Any, state: CredentialState) -> None:
    probe = Probe({"c1": [output]})
    (found,) = CredentialBook(Answers(c1=(status, message))).look([named("c1")], probe)  # type: ignore[arg-type]
    assert (found.state, found.name, len(probe.asked)) == (
        state,
        "shop now",
        0 if state is CredentialState.VALID else 1,
    )
    assert found.detail or state is CredentialState.VALID
    assert found.changed_at is not None


def test_several_are_told_apart_by_one_probe_and_a_missing_one_needs_none() -> None:
    answers = Answers(good=("OK", ""), refused=("Error", "no"), locked=("Error", "no"))
    probe = Probe({"locked": [LOCKED], "refused": [{"error": "no"}]})
    ids = ("good", "gone", "refused", "locked")
    found = CredentialBook(answers).look(map(named, ids), probe)  # type: ignore[arg-type]
    assert [c.state for c in found] == ["valid", "missing", "invalid", "unreadable"]
    (definition,) = probe.asked
    assert [n["name"] for n in definition["nodes"]] == ["Start", "refused", "locked"]


def test_an_answer_is_believed_for_a_moment_unless_somebody_edits_the_credential() -> None:
    answers = Answers(c1=("OK", ""))
    book = CredentialBook(answers)  # type: ignore[arg-type]
    for _ in range(3):
        book.look([named("c1")], Probe({}))
    assert answers.tested == ["c1"]
    answers.updated = "2026-11-22T07:00:01.000Z"
    book.look([named("c1")], Probe({}))
    assert answers.tested == ["c1", "c1"]


def test_without_a_probe_the_test_stands() -> None:
    (found,) = CredentialBook(Answers(c1=("Error", "no"))).look([named("c1")], Probe(None))  # type: ignore[arg-type]
    assert (found.state, found.detail) == (CredentialState.INVALID, "no")


def test_the_probe_names_credentials_and_calls_nobody() -> None:
    definition = probe_definition([named("a"), named("b")])
    assert definition["connections"] == {
        "Start": {"main": [[{"node": "a", "type": "main", "index": 0}]]},
        "a": {"main": [[{"node": "b", "type": "main", "index": 0}]]},
    }
    for node in definition["nodes"][1:]:
        assert node["credentials"] == {"postgres": {"id": node["name"], "name": "shop"}}
        assert node["parameters"]["url"] == "http://127.0.0.1:9/"
        assert node["onError"] == "continueRegularOutput"
    assert unreadable([named("a")], {}) == frozenset()
