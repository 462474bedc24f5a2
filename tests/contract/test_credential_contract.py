"""Credentials that a definition names: missing, refused, unreadable and changed ones are told apart, none is shown."""

import json

import pytest

from platforms.base import CredentialState
from tests.contract.bench import Made, Scene, fresh

pytestmark = pytest.mark.contract


def named(scene: Scene) -> tuple[Made, str] | None:
    """An inactive workflow that names a credential, and the credential's id; ``None`` where definitions name none."""
    credential_id = scene.bench.credential(fresh("credential"))
    if credential_id is None:
        assert scene.platform.credentials(scene.workflow(active=False).id) == []
        return None
    return scene.workflow(active=False, credential=credential_id), credential_id


def state(scene: Scene, workflow_id: str) -> CredentialState:
    (credential,) = scene.platform.credentials(workflow_id)
    return credential.state


def test_a_credential_that_works_is_told_without_its_value(scene: Scene) -> None:
    if (found := named(scene)) is None:
        return
    made, credential_id = found
    (credential,) = scene.platform.credentials(made.id)
    works = CredentialState.VALID if scene.can.tests_credentials else CredentialState.PRESENT
    assert (credential.id, credential.state) == (credential_id, works)
    assert credential.name
    assert credential.kind
    content = scene.content(made.id)
    assert credential_id in json.dumps(content)
    for shown in (json.dumps(content), repr(scene.platform.outline(content)), repr(credential)):
        assert scene.bench.secret not in shown
    nodes = [node for node in scene.platform.outline(content).nodes if node.credentials]
    assert len(nodes) == 1


def test_a_refused_credential_is_told_where_the_platform_tests(scene: Scene) -> None:
    if (found := named(scene)) is None:
        return
    made, credential_id = found
    scene.bench.break_credential(credential_id)
    (credential,) = scene.platform.credentials(made.id)
    told = CredentialState.INVALID if scene.can.tests_credentials else CredentialState.PRESENT
    assert credential.state is told
    assert scene.bench.secret not in credential.detail
    assert "\n" not in credential.detail
    assert credential.detail or not scene.can.tests_credentials


def test_a_missing_credential_is_told(scene: Scene) -> None:
    if (found := named(scene)) is None:
        return
    made, credential_id = found
    scene.bench.remove_credential(credential_id)
    assert state(scene, made.id) is CredentialState.MISSING


def test_a_credential_of_another_encryption_key_is_never_taken_for_a_good_one(scene: Scene) -> None:
    if (found := named(scene)) is None:
        return
    made, credential_id = found
    scene.bench.lock_credential(credential_id)
    seen = state(scene, made.id)
    if scene.can.tests_credentials:
        assert seen is CredentialState.UNREADABLE
    else:
        assert seen in (CredentialState.UNREADABLE, CredentialState.MISSING)


def test_a_changed_credential_is_seen_and_the_definition_stays(scene: Scene) -> None:
    if (found := named(scene)) is None:
        return
    made, credential_id = found
    before, content = scene.platform.credentials(made.id), scene.platform.draft_version(made.id)
    scene.bench.change_credential(credential_id)
    (after,) = scene.platform.credentials(made.id)
    assert scene.platform.draft_version(made.id).hash == content.hash
    if before[0].changed_at is not None:
        assert after.changed_at is not None
        assert after.changed_at > before[0].changed_at


def test_saving_keeps_what_the_platform_knows_of_a_credential(scene: Scene) -> None:
    if (found := named(scene)) is None:
        return
    made, _ = found
    before = state(scene, made.id)
    saved = scene.platform.save(made.id, scene.bench.edited(scene.content(made.id), "v2"))
    assert state(scene, made.id) is before
    assert scene.platform.draft_version(made.id).hash == saved.hash


def test_asking_for_credentials_starts_no_run(scene: Scene) -> None:
    if (found := named(scene)) is None:
        return
    made, _ = found
    scene.platform.credentials(made.id)
    assert scene.platform.runs(made.id) == []
    assert scene.platform.latest_run(made.id) is None
