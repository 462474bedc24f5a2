"""`reinstate workflow` and `reinstate agreement`, as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from checks.model import Clause, SuiteReport
from console import exits
from ledger import kinds
from platforms import registry
from platforms.fake import FakePlatform
from recovery import publishing, verification
from recovery.verification import Proof
from tests.console.desk import CONTAINED, OPENED, Desk

OLD = "SELECT id FROM shop.orders WHERE id = $1 AND total > 0"
NEW = "SELECT id FROM shop.orders WHERE id = $1"


def definition(name: str, sql: str = OLD, **settings: Any) -> dict[str, Any]:
    node = {
        "name": "Read",
        "type": "n8n-nodes-base.postgres",
        "typeVersion": 2,
        "parameters": {"operation": "executeQuery", "query": sql},
    }
    return {"name": name, "nodes": [node], "connections": {}, "settings": settings}


@pytest.fixture
def fake(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> FakePlatform:
    platform = FakePlatform()
    monkeypatch.setitem(registry.FACTORIES, "n8n", lambda _url, _key: platform)
    monkeypatch.setattr(publishing, "LIVE_S", 0.2)
    return platform


@pytest.fixture
def ids(fake: FakePlatform) -> dict[str, str]:
    return {n: fake.add(definition(n), active=True) for n in ("Order intake", "Stock sync")}


@pytest.fixture
def wrecked(desk: Desk, fake: FakePlatform, ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Desk:
    assert desk.run("workflow", "list") == 0
    fake.save(ids["Order intake"], definition("Order intake", NEW))
    fake.activate(ids["Order intake"])
    capsys.readouterr()
    return desk


def test_list_and_history_say_what_is_live_and_what_happened(wrecked: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert wrecked.run("workflow", "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["workflow"], r["state"], r["versions"], r["good"]) for r in rows] == [
        ("order-intake", "live", 2, None),
        ("stock-sync", "live", 1, None),
    ]
    assert wrecked.run("workflow", "history", "order-intake", "--json") == 0
    seen = json.loads(capsys.readouterr().out)
    assert [(s["state"], s["author"]) for s in seen] == [("live", "fake"), ("live", "fake")]
    assert seen[0]["version"] != seen[1]["version"]
    assert wrecked.run("workflow", "history", "order-intake") == 0
    said = capsys.readouterr().out
    assert seen[0]["version"][:12] in said
    assert "History of order-intake" in said


def test_the_difference_is_readable_and_also_json(wrecked: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert wrecked.run("workflow", "diff", "order-intake") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("order-intake: version ")
    assert said[1:] == [
        "node Read:",
        "  query:",
        "      SELECT id",
        "      FROM shop.orders",
        "      WHERE id = $1",
        "    - AND total > 0",
    ]
    assert wrecked.run("workflow", "diff", "order-intake", "before", "live", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["changed"][0]["changes"][0]["path"] == "query"
    assert wrecked.run("workflow", "diff", "order-intake", "live", "live") == 0
    assert "no difference" in capsys.readouterr().out


def test_publish_shows_its_plan_asks_and_reads_back(
    wrecked: Desk, fake: FakePlatform, ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    publish = ("workflow", "publish", "order-intake", "before")
    assert wrecked.run(*publish) == exits.USAGE
    assert "--reason" in capsys.readouterr().err
    assert wrecked.run(*publish, "--dry-run") == 0
    planned = capsys.readouterr().out
    assert "    + AND total > 0" in planned
    assert wrecked.run(*publish, "--reason", "zero totals", "--yes", "--plan", "0" * 8) == exits.REFUSED
    assert fake.live_version(ids["Order intake"]) == fake.draft_version(ids["Order intake"])
    capsys.readouterr()
    assert wrecked.run(*publish, "--reason", "zero totals", "--by", "ada", "--yes", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert done["done"]["outcome"] == "live"
    live = fake.live_version(ids["Order intake"])
    assert live is not None
    assert (live.hash, live.definition["nodes"][0]["parameters"]["query"]) == (done["version"], OLD)
    entry = next(e for e in wrecked.entries() if e.kind == kinds.WORKFLOW_PUBLISHED)
    assert (entry.body["by"], entry.body["reason"]) == ("ada", "zero totals")
    assert wrecked.run("workflow", "publish", "order-intake", done["version"][:9], "--reason", "x") == exits.NOTHING
    assert wrecked.run("workflow", "history", "order-intake") == 0
    assert "zero totals" in capsys.readouterr().out


def test_a_deleted_workflow_is_published_again_as_it_was(
    wrecked: Desk, fake: FakePlatform, ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert wrecked.run("workflow", "list") == 0
    fake.delete(ids["Order intake"])
    assert wrecked.run("workflow", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("[")[2].join(["[", ""]))[0]["state"] == "deleted"
    assert wrecked.run("workflow", "publish", "order-intake", "before", "--reason", "it was deleted", "--yes") == 0
    assert "was made again under id" in capsys.readouterr().out
    [info] = [w for w in fake.workflows() if w.name == "Order intake"]
    live = fake.live_version(info.id)
    assert live is not None
    assert live.definition["nodes"][0]["parameters"]["query"] == OLD


def test_a_paused_workflow_is_not_made_live_behind_the_incidents_back(
    wrecked: Desk, fake: FakePlatform, ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.deactivate(ids["Order intake"])
    wrecked.tell(OPENED, CONTAINED)
    publish = ("workflow", "publish", "order-intake", "before", "--reason", "r", "--yes")
    assert wrecked.run(*publish, "--activate") == exits.REFUSED
    assert "paused by incident INC-1" in capsys.readouterr().out
    assert wrecked.run(*publish) == 0
    assert "is saved (read back)" in capsys.readouterr().out


def test_export_writes_definitions_and_replaces_nothing_unasked(
    wrecked: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out"
    assert wrecked.run("workflow", "export", "--to", str(to)) == 0
    assert sorted(p.name.rpartition("-")[0] for p in to.iterdir()) == ["order-intake", "stock-sync"]
    assert wrecked.run("workflow", "export", "order-intake", "--all-versions", "--to", str(to), "--json") == 0
    files = [Path(p) for p in json.loads(capsys.readouterr().out.partition("[")[2].join(["[", ""]))]
    assert [json.loads(f.read_text())["nodes"][0]["parameters"]["query"] for f in files] == [OLD, NEW]
    files[0].write_text("mine")
    assert wrecked.run("workflow", "export", "order-intake", "--all-versions", "--to", str(to)) == exits.REFUSED
    assert "--force" in capsys.readouterr().err
    assert wrecked.run("workflow", "export", "order-intake", "--all-versions", "--to", str(to), "--force") == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("history", "nobody"), exits.NOTHING),
        (("diff", "order-intake", "zz"), exits.REFUSED),
        (("diff", "order-intake", "good"), exits.REFUSED),
        (("publish", "order-intake", "--json", "--reason", "r"), exits.USAGE),
        (("export", "--version", "live"), exits.USAGE),
    ],
)
def test_what_cannot_be_done_says_why(
    wrecked: Desk, arguments: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wrecked.run("workflow", *arguments) == code
    assert capsys.readouterr().err.startswith("reinstate: ")


@pytest.mark.parametrize("holds", [True, False])
def test_agreement_ends_well_only_when_every_clause_holds(
    wrecked: Desk, holds: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suites = SuiteReport(passed=True, ran=1, failed=(), seconds=0.0, snapshot=None)
    clause = Clause(name="settings:order-intake", holds=holds, detail="d", next="" if holds else "publish it again")
    monkeypatch.setattr(verification, "standing", lambda _: Proof(suites=suites, clauses=(clause,)))
    assert wrecked.run("agreement", "--json") == (0 if holds else exits.NOT_PROVEN)
    found = json.loads(capsys.readouterr().out)
    assert (found["agrees"], [c["name"] for c in found["clauses"]]) == (holds, ["settings:order-intake", "suites"])
    assert wrecked.run("agreement") == (0 if holds else exits.NOT_PROVEN)
    said = capsys.readouterr().out
    assert ("logic and data agree" in said) is holds
    assert ("settings:order-intake: publish it again" in said) is not holds
