"""Agreement as the gate before a resume, and asked of an app at work: each thing that is off breaks its own clause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from platforms.base import CredentialState
from recovery import history, publishing, verification
from recovery.plan import Plan
from tests.recovery.kiosk import Kiosk, definition

pytestmark = pytest.mark.postgres


def broken(kiosk: Kiosk) -> dict[str, str]:
    """The clauses that do not hold, with what to do about each."""
    proof = verification.standing(kiosk.open())
    return {c.name: c.next for c in proof.clauses if not c.holds}


def with_database(name: str) -> dict[str, Any]:
    """The kiosk's workflow with a node that reads the app's database through a credential."""
    made = definition(name, "good")
    query = "SELECT id, total FROM kiosk.orders WHERE id = $1"
    made["nodes"].append(
        {
            "name": "Read",
            "type": "n8n-nodes-base.postgres",
            "typeVersion": 2,
            "parameters": {"operation": "executeQuery", "query": query},
            "credentials": {"postgres": {"id": "db-1", "name": "kiosk"}},
        }
    )
    return made


@pytest.fixture
def healthy(kiosk: Kiosk) -> Kiosk:
    kiosk.fake.add_credential("db-1", "kiosk")
    kiosk.fake.save(kiosk.ids["intake"], with_database("Intake"))
    kiosk.fake.activate(kiosk.ids["intake"])
    kiosk.protect()
    return kiosk


def test_an_app_at_work_agrees(healthy: Kiosk) -> None:
    proof = verification.standing(healthy.open())
    assert proof.passed
    assert {c.name for c in proof.clauses} == {
        *(f"{name}:{w}" for name in ("present", "live-version", "settings") for w in ("intake", "payment")),
        "active-set",
        "schema",
        "credentials-roles",
        "definitions",
        "credentials",
    }
    assert not any(c.next for c in proof.clauses)


def test_what_is_off_breaks_its_own_clause_and_says_what_to_do(healthy: Kiosk) -> None:
    fake, ids = healthy.fake, healthy.ids
    known: dict[str, str] = {}

    def new(step: str) -> set[str]:
        """The clauses broken since the last question, one of which names the ``step`` to take."""
        found = broken(healthy)
        fresh = {name: said for name, said in found.items() if name not in known}
        assert any(step in said for said in fresh.values()), found
        known.update(found)
        return set(fresh)

    healthy.publish("payment", "other")
    assert new("workflow publish payment") == {"live-version:payment"}
    fake.save(ids["payment"], {**definition("Payment", "good"), "settings": {"executionTimeout": 3}})
    assert new("workflow history payment") == {"settings:payment"}
    fake.set_credential("db-1", CredentialState.INVALID)
    assert new("mend or explain") == {"credentials"}
    with psycopg.connect(healthy.db.installer) as owner:
        owner.execute("REVOKE ALL ON kiosk.orders, kiosk.stock FROM wf_intake")
    assert new("grant what is missing") == {"credentials-roles"}
    with psycopg.connect(healthy.db.installer) as owner:
        owner.execute("ALTER TABLE kiosk.orders RENAME COLUMN total TO sum")
    assert new("publish a version that fits") == {"definitions"}
    fake.deactivate(ids["intake"])
    assert new("--activate") == {"live-version:intake", "active-set"}
    fake.delete(ids["payment"])
    assert new("makes it again") == {"present:payment"}


def test_a_column_of_another_type_and_an_edited_credential_are_seen(healthy: Kiosk) -> None:
    healthy.fake.set_credential("db-1", CredentialState.VALID)
    assert set(broken(healthy)) == {"credentials"}
    with psycopg.connect(healthy.db.installer) as owner:
        owner.execute("ALTER TABLE kiosk.orders ALTER COLUMN note TYPE varchar(3)")
    assert set(broken(healthy)) == {"credentials", "definitions"}
    history.observe(healthy.open(), force=True)  # what `reinstate protect` does: it is as it should be
    assert set(broken(healthy)) == {"definitions"}


def test_what_was_published_since_the_point_is_what_should_be_live(healthy: Kiosk) -> None:
    ctx = healthy.open()
    history.observe(ctx)
    content, settings = ctx.platform.hashes(definition("Payment", "new"))
    live = healthy.fake.draft_version(healthy.ids["payment"])
    wanted = replace(
        live, definition=definition("Payment", "new"), hash=content, settings_hash=settings, platform_version=None
    )
    publishing.publish(ctx, "payment", wanted, by="ada", reason="r", activate=True)
    assert broken(healthy) == {}
    healthy.publish("payment", "good")
    assert set(broken(healthy)) == {"live-version:payment"}


def test_in_an_incident_it_is_asked_of_the_plan(kiosk: Kiosk, planned: Plan) -> None:
    kiosk.run(planned, until="verify")
    proof = verification.standing(kiosk.open())
    names = {c.name for c in proof.clauses}
    assert proof.passed
    assert {"live-version:intake", "settings:intake", "data-undone", "no-late-writes"} <= names
    kiosk.fake.save(kiosk.ids["intake"], definition("Intake", "bad"))
    assert "live-version:intake" in broken(kiosk)
