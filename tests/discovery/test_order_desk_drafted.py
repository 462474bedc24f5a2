"""The example app discovered from its definitions and its database, held against what a person wrote about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import yaml

from catalog.load import load
from catalog.models import App
from checks import suites
from discovery import database, render
from discovery import platform as live
from discovery.audit import audit
from discovery.bundle import suites as suite_files
from discovery.draft import Draft, Known, References, draft
from discovery.findings import Reality, Severity
from discovery.look import Seen, look
from drills.order_desk import CAPTURER, DATABASE, EXAMPLE, ORACLE, OWNER, RECOVERER, STAFF, WORKFLOW_ROLES, OrderDesk
from platforms.fake import FakePlatform
from snapshots import database as databases
from snapshots import roles
from tests.conftest import PgServer
from tests.drills.test_order_desk import Desk, one_of_each

pytestmark = pytest.mark.postgres


def give_rights(desk: OrderDesk) -> None:
    """What an administrator does once for Reinstate."""
    tables = [t.name for t in load(EXAMPLE).apps[0].tables]
    text = roles.sql(database=DATABASE, tables=tables, installer=OWNER, capturer=CAPTURER, recoverer=RECOVERER)
    with psycopg.connect(desk.superuser_dsn(DATABASE)) as admin:
        admin.execute(text.encode())


def platform() -> FakePlatform:
    """The example's workflows, each with some runs of its own kind of event."""
    made = FakePlatform()
    for key in WORKFLOW_ROLES:
        found = made.add(json.loads((EXAMPLE / f"workflows/{key}.json").read_text()), active=True)
        stamp = {"order-intake": "placed_at", "payment": "paid_at", "status-change": "changed_at",
                 "tidy-up": "requested_at"}.get(key)  # fmt: skip
        for number in range(6 if stamp else 0):
            body = {"event_id": f"{key}-{number}", "order_id": f"o-{number}", stamp: f"2026-11-0{number + 1}T10:00:00Z"}
            made.call(found, {"body": body, "headers": {"host": "x"}, "query": {}})
    return made


@dataclass(frozen=True, kw_only=True)
class Discovered:
    desk: OrderDesk
    seen: Seen
    draft: Draft
    text: str
    app: App
    folder: Path
    passwords: dict[str, str]


@pytest.fixture(scope="module")
def discovered(pg: PgServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Discovered]:
    desk = OrderDesk(
        superuser_dsn=pg.superuser_dsn,
        n8n_url="http://127.0.0.1:1",
        n8n_key="unused",
        home=tmp_path_factory.mktemp("d"),
    )
    desk.prepare()
    passwords = desk.reset_databases()
    give_rights(desk)
    with databases.connect(desk.dsn(DATABASE, CAPTURER, passwords), purpose="test") as connection:
        seen = look(connection, platform())
    references = References(url="env:U", api_key="env:K", installer="env:I", capturer="env:C", recoverer="env:R")
    drafted = draft("order-desk", "Order desk", seen, references, Known(own_roles=(OWNER, CAPTURER, RECOVERER)))
    folder = tmp_path_factory.mktemp("drafted")
    text = render.catalogue(drafted)
    (folder / "catalog.yaml").write_text(text)
    (folder / "checks").mkdir()
    for name, content in suite_files(drafted).items():
        (folder / name).write_text(content)
    yield Discovered(
        desk=desk, seen=seen, draft=drafted, text=text, app=load(folder).apps[0], folder=folder, passwords=passwords
    )
    for name in (DATABASE, ORACLE, "order_desk_template"):
        pg.drop_database(name)


def assert_equal(found: App, person: App) -> None:
    """Workflows, tables and columns as a person wrote them; what only a person can know is not asked."""
    assert {w.key for w in found.workflows} == {w.key for w in person.workflows}
    for workflow in found.workflows:
        mine = person.workflow(workflow.key)
        assert set(workflow.reads) == set(mine.reads), workflow.key
        assert set(workflow.writes) == set(mine.writes), workflow.key
        assert (workflow.name, workflow.role, workflow.trigger) == (mine.name, mine.role, mine.trigger)
        assert {s.name for s in workflow.steps} == {s.name for s in mine.steps}
    assert {t.name for t in found.tables} == {t.name for t in person.tables}
    for table in found.tables:
        theirs = person.table(table.name)
        for field in ("key", "unique", "references", "additive", "triggers", "derives"):
            assert getattr(table, field) == getattr(theirs, field), (table.name, field)
        assert set(table.public) <= set(theirs.public), table.name
        assert theirs.event_time in (table.event_time, None), table.name


def test_the_draft_says_what_a_person_wrote(discovered: Discovered) -> None:
    assert_equal(discovered.app, load(EXAMPLE).apps[0])


def test_every_doubt_stands_in_the_text_twice(discovered: Discovered) -> None:
    """Where it is about something, and in the list at the end."""
    body, _, listed = discovered.text.partition("# Unsure, to be looked at by a person:")
    assert len(discovered.draft.doubts) >= 10
    assert body.count("# unsure:") == len(discovered.draft.doubts) - len(discovered.draft.remarks)
    assert listed.count("\n# - ") == len(discovered.draft.doubts)
    assert any(STAFF in d.where and "belong to no workflow" in d.why for d in discovered.draft.doubts)


def test_no_personal_value_leaves_the_database(discovered: Discovered) -> None:
    with psycopg.connect(discovered.desk.superuser_dsn(DATABASE)) as admin:
        rows = admin.execute("SELECT name, email FROM desk.customers LIMIT 500").fetchall()
    texts = discovered.text + "".join(f.read_text() for f in (discovered.folder / "checks").iterdir())
    assert not [r for r in rows if r[0] in texts or r[1] in texts]


def test_totals_that_always_held_are_found(discovered: Discovered) -> None:
    assert {(t.parent, t.column, t.child, t.only) for t in discovered.seen.totals} == {
        ("desk.orders", "total", "desk.order_items", None),
        ("desk.orders", "paid", "desk.payments", None),
        ("desk.products", "received", "desk.deliveries", "applied"),
    }


def test_the_catalogue_of_a_person_fits_but_for_the_staff_and_the_journal(discovered: Discovered) -> None:
    app = load(EXAMPLE).apps[0]
    with databases.connect(discovered.desk.dsn(DATABASE, CAPTURER, discovered.passwords), purpose="test") as connection:
        facts = database.facts(connection)
    with databases.connect(discovered.desk.dsn(DATABASE, OWNER, discovered.passwords), purpose="test") as connection:
        owned = database.owned(connection, [t.name for t in app.tables])
    reality = Reality(
        platform=live.facts(platform()), database=facts, installer=OWNER, capturer=CAPTURER, recoverer=RECOVERER,
        owned=owned,
    )  # fmt: skip
    found = [f for f in audit(app, reality) if f.severity is not Severity.NOTE]
    # The fake's credentials are no secrets of anybody: they are missing, and said to be.
    assert {(f.object, f.severity) for f in found if "credential" not in f.what} == {
        (f"role {STAFF}", Severity.WARNING)
    }


def test_a_person_s_text_is_kept_line_by_line(discovered: Discovered, tmp_path: Path) -> None:
    whole = (EXAMPLE / "catalog.yaml").read_text()
    content = yaml.safe_load(whole)
    del content["apps"][0]["workflows"][4], content["apps"][0]["tables"][7]
    content["apps"][0]["detectors"] = [d for d in content["apps"][0]["detectors"] if "bulk" not in str(d)]
    theirs = "# mine\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100) + "# my last word\n"
    merged = render.merge(theirs, "order-desk", discovered.draft)
    assert set(merged.added) >= {"workflows[tidy-up]", "tables[desk.tidy_ups]"}
    kept = iter(merged.text.splitlines())
    assert all(line in kept for line in theirs.splitlines())
    for name in ("checks", "canary"):
        (tmp_path / name).symlink_to(EXAMPLE / name)
    (tmp_path / "catalog.yaml").write_text(merged.text)
    app = load(tmp_path).apps[0]
    assert {w.key for w in app.workflows} == set(WORKFLOW_ROLES)
    assert app.table("desk.tidy_ups").key == ("id",)
    assert render.merge(merged.text, "order-desk", discovered.draft).added == ()
    assert render.merge(whole, "order-desk", discovered.draft).added == ()


def test_the_drafted_suites_pass_on_clean_data_and_fail_on_wrecked(discovered: Discovered) -> None:
    """Clean also means: after more of every kind of legitimate work than there was when the draft was made."""
    desk = Desk(discovered.desk, discovered.passwords)
    checks = discovered.folder / "checks"
    capturer = discovered.desk.dsn(DATABASE, CAPTURER, discovered.passwords)
    one_of_each(desk)
    clean = suites.run(capturer, checks)
    assert clean.passed, clean.failed
    for _ in range(12):
        desk.handle(desk.world.order(), version="faults/order-intake.bad.json")
    wrecked = suites.run(capturer, checks)
    assert {"desk.orders", "desk.order_items"} <= {f.table for f in wrecked.failed}
