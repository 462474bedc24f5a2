"""Each kind of mismatch, seeded alone into a catalogue that fits, is found and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from catalog.models import App
from discovery.audit import audit
from discovery.facts import DatabaseFacts, PlatformFacts, Right, RoleFact, TriggerFact, WorkflowFacts
from discovery.findings import Finding, Reality, Severity, SuiteFacts
from platforms.base import Credential, CredentialState, Entry, EntryKind, Node, Outline
from snapshots.journal.journal import Status, TableStatus
from snapshots.model import Gap
from tests.discovery.shapes import SHOP, table

AT = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = ("public.orders", "public.items", "public.stock")
ALL_OF = {"insert": None, "update": None, "delete": True, "select": True}


def app(**changes: Any) -> App:
    people = {"owner": "ada", "deputy": "grace"}
    content: dict[str, Any] = {
        "key": "shop", "title": "Shop", **people,
        "platform": {"kind": "fake", "url": "env:U", "api_key": "env:K"},
        "database": {"installer": "env:I", "capturer": "env:C", "recoverer": "env:R"},
        "objectives": {"rto_s": 1, "rpo_s": 1},
        "workflows": [
            {"key": "intake", "name": "Intake", "role": "wf_intake", **people,
             "trigger": {"kind": "webhook", "event_key": "body.id"},
             "reads": ["public.stock"], "writes": ["public.orders", "public.items"],
             "steps": [{"name": "write", "node": "Write", "inverse": "reversible"}], "downstream": ["report"]},
            {"key": "report", "name": "Report", "role": "wf_report", **people, "trigger": {"kind": "schedule"},
             "reads": ["public.orders"]},
        ],
        "tables": [{"name": n, "key": ["sku" if n.endswith("stock") else "id"]} for n in TABLES],
        **changes,
    }  # fmt: skip
    return App.model_validate(content)


INTAKE = WorkflowFacts(
    id="1", name="Intake", active=True,
    outline=Outline(
        name="Intake", entries=(Entry(kind=EntryKind.WEBHOOK, node="In", method="POST", path="/in"),),
        nodes=(
            Node(name="Write", kind="sql", sql=(
                "INSERT INTO orders (id, total) VALUES ($1, $2)",
                "INSERT INTO items (id, order_id, price) SELECT $1, $2, level FROM stock",
            )),
        ),
        links=(),
    ),
    credentials=(Credential(id="c", name="db", kind="postgres", state=CredentialState.VALID),),
    events=({"body": {"id": "e1"}}, {"body": {"id": "e2"}}),
)  # fmt: skip
REPORT = WorkflowFacts(
    id="2", name="Report", active=True,
    outline=Outline(
        name="Report", entries=(Entry(kind=EntryKind.SCHEDULE, node="At"),),
        nodes=(Node(name="Read", kind="sql", sql=("SELECT total FROM orders",), calls=("1",)),), links=(),
    ),
)  # fmt: skip
RIGHTS = (
    *(Right(role="rc", table=t, **ALL_OF) for t in TABLES),
    *(Right(role="ca", table=t, select=True, insert=frozenset(), update=frozenset(), delete=False) for t in TABLES),
    *(Right(role="wf_intake", table=t, **ALL_OF) for t in TABLES[:2]),
)
ROLES = tuple(RoleFact(name=n, superuser=False, login=True) for n in ("in", "ca", "rc", "wf_intake", "wf_report"))
DATABASE = replace(
    SHOP, tables={n: t for n, t in SHOP.tables.items() if n in TABLES}, rights=RIGHTS, roles=ROLES, views={}
)
JOURNAL = Status(
    installed=True, gaps=(), last_tick=AT, missing=(),
    tables=tuple(
        TableStatus(table=t, twin=t, rows=0, bytes=0, size_cap_mb=1, complete_since=AT, pieces=1, bytes_per_day=0)
        for t in TABLES
    ),
)  # fmt: skip
FITS = Reality(
    platform=PlatformFacts(kind="fake", workflows=(INTAKE, REPORT)),
    database=DATABASE,
    journal=JOURNAL,
    suites=tuple(SuiteFacts(name=t, table=t, columns=frozenset()) for t in TABLES),
    installer="in", capturer="ca", recoverer="rc", owned=dict.fromkeys(TABLES, True),
)  # fmt: skip


def on_platform(*workflows: WorkflowFacts) -> Reality:
    return replace(FITS, platform=PlatformFacts(kind="fake", workflows=workflows))


def intake(**changes: Any) -> Reality:
    return on_platform(replace(INTAKE, **changes), REPORT)


def reading(*sql: str, **node: Any) -> Reality:
    """Intake with one more node."""
    more = Node(name="More", kind="sql", sql=sql, **node)
    return intake(outline=replace(INTAKE.outline, nodes=(*INTAKE.outline.nodes, more)))


def in_database(**changes: Any) -> Reality:
    return replace(FITS, database=replace(DATABASE, **changes))


def with_table(name: str, **changes: Any) -> Reality:
    return in_database(tables={**DATABASE.tables, name: replace(DATABASE.tables[name], **changes)})


def without(values: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    return tuple(v for v in values if getattr(v, "role", getattr(v, "name", "")) != name)


def edited(path: str, value: Any) -> App:
    """The catalogue with one field changed: ``workflows.0.name``."""
    content: Any = app().model_dump(mode="json", exclude_defaults=True)
    at = content
    *parts, last = path.split(".")
    for part in parts:
        at = at[int(part)] if part.isdigit() else at[part]
    at[last] = value
    return App.model_validate(content)


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One mismatch: a reality, or a catalogue, that does not fit; what must be said about which object."""

    about: str
    says: str
    severity: str = "error"
    reality: Reality = FITS
    make: Callable[[], App] = app


TRIGGER = TriggerFact(name="touch", function="f", before=True, row=True, enabled=True, body="")
SEEDS = [
    Seed(about="workflow intake", says="no workflow named", reality=on_platform(REPORT)),
    Seed(about="workflow intake", says="2 workflows named",
         reality=on_platform(INTAKE, replace(INTAKE, id="3"), REPORT)),
    Seed(about="workflow intake", says="not active", severity="note", reality=intake(active=False)),
    Seed(about="workflow intake", says="says schedule, the definition webhook",
         make=lambda: edited("workflows.0.trigger", {"kind": "schedule", "replay": "discard"})),
    Seed(about="workflow report", says="webhook that the catalogue does not mention", severity="warning",
         make=lambda: edited("workflows.1.trigger", {"kind": "manual"}),
         reality=on_platform(INTAKE, replace(REPORT, outline=replace(REPORT.outline, entries=INTAKE.outline.entries)))),
    Seed(about="workflow intake", says="no `event_key:`", severity="warning",
         make=lambda: edited("workflows.0.trigger", {"kind": "webhook"})),
    Seed(about="workflow intake", says="`event_key: body.key` is missing in 2 of its last 2",
         make=lambda: edited("workflows.0.trigger.event_key", "body.key")),
    Seed(about="workflow intake", says="missing in 1 of its last 2", severity="warning",
         reality=intake(events=({"body": {"id": 1}}, {"body": {}}))),
    Seed(about="workflow intake", says="credential 'db' is unreadable",
         reality=intake(credentials=(replace(INTAKE.credentials[0], state=CredentialState.UNREADABLE),))),
    Seed(about="workflow intake", says="names node 'Gone'", make=lambda: edited("workflows.0.steps.0.node", "Gone")),
    Seed(about="workflow intake", says="writes public.stock.level, which its `writes:` does not list",
         severity="warning", reality=reading("UPDATE stock SET level = 1 WHERE sku = $1")),
    Seed(about="workflow report", says="reads public.orders, which its `reads:` does not list", severity="warning",
         make=lambda: edited("workflows.1.reads", [])),
    Seed(about="workflow intake", says="`writes:` lists public.stock, which its definition does not write",
         severity="warning", make=lambda: edited("workflows.0.writes", [*TABLES])),
    Seed(about="workflow report", says="lists public.items, which its definition does not read", severity="note",
         make=lambda: edited("workflows.1.reads", ["public.orders", "public.items"])),
    Seed(about="workflow intake", says="it writes public.extra, which the catalogue does not name",
         reality=replace(reading("DELETE FROM extra"), database=replace(
             DATABASE, tables={**DATABASE.tables, "public.extra": table("public.extra", "id")}))),
    Seed(about="workflow intake", says="only named at run time", severity="note",
         reality=reading("SELECT * FROM {{ $json.t }}")),
    Seed(about="workflow intake", says="calls workflow 'Other'", severity="warning", reality=reading(calls=("Other",))),
    Seed(about="workflow intake", says="report calls it and is not among", severity="note",
         make=lambda: edited("workflows.0.downstream", [])),
    Seed(about="workflow 'Stranger'", says="writes public.items",
         reality=on_platform(INTAKE, REPORT, replace(INTAKE, id="9", name="Stranger"))),
    Seed(about="workflow intake", says="needs an ingress", severity="warning",
         make=lambda: edited("workflows.0.trigger.during_pause", "reject")),
    Seed(about="workflow intake", says="the ingress cannot serve it", severity="warning",
         make=lambda: edited("ingress", {}), reality=intake(outline=replace(INTAKE.outline, entries=(
             Entry(kind=EntryKind.WEBHOOK, node="In"),)))),
    Seed(about="table public.items", says="has no such table", reality=in_database(
        tables={n: t for n, t in DATABASE.tables.items() if n != "public.items"})),
    Seed(about="table public.orders", says="`additive:` names column paid",
         make=lambda: edited("tables.0.additive", ["paid"])),
    Seed(about="table public.orders", says="`event_time:` names column at",
         make=lambda: edited("tables.0.event_time", "at")),
    Seed(about="table public.orders", says="has no trigger gone",
         make=lambda: edited("tables.0.triggers", {"gone": "fire"})),
    Seed(about="table public.orders", says="its trigger touch",
         reality=with_table("public.orders", triggers=(TRIGGER,))),
    Seed(about="table public.stock", says="nothing enforces", severity="warning",
         make=lambda: edited("tables.2.key", ["level"])),
    Seed(about="table public.lines", says="it refers to public.orders and is not declared", severity="warning",
         reality=in_database(tables={**DATABASE.tables, "public.lines": replace(
             DATABASE.tables["public.items"], name="public.lines")})),
    Seed(about="role wf_intake", says="there is no such role", reality=in_database(roles=without(ROLES, "wf_intake"))),
    Seed(about="role wf_intake", says="writes as a superuser", reality=in_database(roles=(
        *without(ROLES, "wf_intake"), RoleFact(name="wf_intake", superuser=True, login=True)))),
    Seed(about="role wf_intake", says="it may not write public.orders", severity="warning",
         reality=in_database(rights=without(RIGHTS, "wf_intake"))),
    Seed(about="role wf_intake", says="its rights are withdrawn", severity="note", reality=replace(
        in_database(rights=without(RIGHTS, "wf_intake")), fenced=frozenset({"wf_intake"}))),
    Seed(about="role wf_report", says="it may write public.stock, which `writes:`", severity="warning",
         reality=in_database(rights=(*RIGHTS, Right(role="wf_report", table="public.stock", **ALL_OF)))),
    Seed(about="role wf_intake", says="it owns public.orders", reality=with_table("public.orders", owner="wf_intake")),
    Seed(about="role temp", says="no workflow has it", severity="warning",
         reality=in_database(rights=(*RIGHTS, Right(role="temp", table="public.stock", **ALL_OF)))),
    Seed(about="role ca", says="the capturer may not read", reality=in_database(rights=without(RIGHTS, "ca"))),
    Seed(about="role rc", says="the recoverer may not write", reality=in_database(rights=without(RIGHTS, "rc"))),
    Seed(about="role in", says="does not own public.items", reality=replace(FITS, owned={"public.items": False})),
    Seed(about="journal", says="not installed", reality=replace(FITS, journal=replace(JOURNAL, installed=False))),
    Seed(about="table public.items", says="not journaled",
         reality=replace(FITS, journal=replace(JOURNAL, missing=("public.items",)))),
    Seed(about="journal of public.orders", says="misses changes since", reality=replace(FITS, journal=replace(
        JOURNAL, gaps=(Gap(table="public.orders", kind="trigger", detail="off", at=AT, until=None),)))),
    Seed(about="table public.orders", says="no suite", severity="warning",
         reality=replace(FITS, suites=FITS.suites[1:])),
    Seed(about="suite public.orders", says="has no column paid", reality=replace(FITS, suites=(
        *FITS.suites[1:], SuiteFacts(name="public.orders", table="public.orders", columns=frozenset({"paid"}))))),
    Seed(about="platform fake", says="lists no runs", severity="note",
         reality=replace(FITS, limits=("It lists no runs.",))),
]  # fmt: skip


def test_what_fits_has_no_finding() -> None:
    assert audit(app(), FITS) == []


@pytest.mark.parametrize("seed", SEEDS, ids=lambda s: f"{s.about}: {s.says}")
def test_a_seeded_mismatch_is_found(seed: Seed) -> None:
    found = audit(seed.make(), seed.reality)
    matching = [f for f in found if f.object == seed.about and seed.says in f.what]
    assert matching, [str(f) for f in found]
    assert matching[0].severity == seed.severity
    assert matching[0].next


def test_the_worst_comes_first_and_parts_out_of_reach_are_left_out() -> None:
    broken = replace(
        FITS, journal=replace(JOURNAL, installed=False), limits=("It lists no runs.",), suites=FITS.suites[1:]
    )
    found: list[Finding] = audit(app(), broken)
    assert [f.severity for f in found] == [Severity.ERROR, Severity.WARNING, Severity.NOTE]
    nothing = Reality(platform=None, database=None)
    assert audit(app(), nothing) == []
    assert isinstance(DATABASE, DatabaseFacts)
