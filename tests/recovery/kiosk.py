"""A small app for the tests of this room: two workflows in a fake platform that write, each as its own role and tagged
with its run, to a real journaled database; a person who edits; and what must be there afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from catalog.models import App
from checks import detectors
from checks.model import SuiteReport
from ledger import Ledger
from platforms.base import Platform, Run
from platforms.fake import FakePlatform
from platforms.faulty import Fault, Faulty
from platforms.retrying import Retrying
from recovery import session, watch
from recovery.context import AppContext
from recovery.plan import Plan
from recovery.protect import protect
from snapshots import database, position
from snapshots import roles as product_roles
from snapshots.journal import install as journal_install
from snapshots.model import Position
from snapshots.store.store import Store
from tests.conftest import AppDb

TABLES = ("kiosk.orders", "kiosk.stock", "kiosk.payments")
ROLES = {"intake": "wf_intake", "payment": "wf_kiosk_payment"}
CLERK = "clerk"
SCHEMA = """
CREATE SCHEMA kiosk;
CREATE TABLE kiosk.orders (
    id text PRIMARY KEY, total numeric(12, 2) NOT NULL, status text NOT NULL DEFAULT 'new', note text, class text
);
CREATE TABLE kiosk.stock (sku text PRIMARY KEY, level int NOT NULL);
CREATE TABLE kiosk.payments (id text PRIMARY KEY, order_id text REFERENCES kiosk.orders (id), amount numeric(12, 2));
CREATE FUNCTION kiosk.classify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE kiosk.orders SET class = CASE WHEN NEW.total >= 100 THEN 'large' ELSE 'small' END
    WHERE id = NEW.id AND class IS DISTINCT FROM CASE WHEN NEW.total >= 100 THEN 'large' ELSE 'small' END;
    RETURN NULL;
END $$;
CREATE TRIGGER orders_classify AFTER INSERT OR UPDATE ON kiosk.orders
    FOR EACH ROW EXECUTE FUNCTION kiosk.classify();
GRANT USAGE ON SCHEMA kiosk TO wf_intake, wf_kiosk_payment, clerk;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA kiosk TO wf_intake, wf_kiosk_payment, clerk;
INSERT INTO kiosk.orders (id, total, status) SELECT 'h' || n, 10 * n, 'sent' FROM generate_series(1, 9) n;
INSERT INTO kiosk.stock VALUES ('tea', 100), ('jam', 100);
"""
PEOPLE = {"owner": "ada", "deputy": "grace"}
Event = Mapping[str, Any]


def app_model(**changes: Any) -> App:
    """The catalogue's entry. ``changes`` replace top-level fields."""
    webhook = {"kind": "webhook", "event_key": "body.event"}
    values: dict[str, Any] = {
        "key": "kiosk",
        "title": "Kiosk",
        **PEOPLE,
        "platform": {"kind": "fake", "url": "env:KIOSK_URL", "api_key": "env:KIOSK_KEY"},
        "database": {"installer": "env:KIOSK_I", "capturer": "env:KIOSK_C", "recoverer": "env:KIOSK_R"},
        "objectives": {"rto_s": 60, "rpo_s": 60},
        "workflows": [
            {
                "key": "intake",
                "name": "Intake",
                "role": "wf_intake",
                "trigger": webhook,
                "downstream": ["payment"],
                "writes": ["kiosk.orders", "kiosk.stock"],
                "canary": {"event": "canary.json", "expect": CANARY},
                **PEOPLE,
            },
            {
                "key": "payment",
                "name": "Payment",
                "role": "wf_kiosk_payment",
                "trigger": webhook,
                "writes": ["kiosk.orders.status", "kiosk.payments"],
                **PEOPLE,
            },
        ],
        "tables": [
            {"name": "kiosk.orders", "triggers": {"orders_classify": "suppress"}, "derives": ["kiosk.orders"]},
            {"name": "kiosk.stock", "additive": ["level"]},
            {"name": "kiosk.payments"},
        ],
        "detectors": [
            {"key": "totals", "kind": "rule", "table": "kiosk.orders", "sql": "r.total < 1000"},
            {"key": "statuses", "kind": "rule", "table": "kiosk.orders", "sql": "r.status <> 'lost'"},
        ],
        "resume_order": [["intake"], ["payment"]],
        "containment": {"drain_s": 1.0, "settle_s": 0.1, "timeout_s": 3.0},
        "caps": {"max_deleted_share": 0.9},
    }
    return App.model_validate({**values, **changes})


CANARY = "SELECT 'the canary wrote no order' AS wrong WHERE NOT EXISTS (SELECT FROM kiosk.orders WHERE id = 'canary')"


def definition(name: str, how: str) -> dict[str, Any]:
    """A workflow whose one node behaves as ``how`` says."""
    node = {"name": "Work", "type": "work", "typeVersion": 1, "parameters": {"how": how}}
    return {"name": name, "nodes": [node], "connections": {}, "settings": {}}


def order(event: str, **body: Any) -> Event:
    return {"body": {"event": event, "total": 20, "sku": "tea", "qty": 1, **body}, "headers": {}, "query": {}}


def paid(event: str, order_id: str) -> Event:
    return {"body": {"event": event, "order": order_id}, "headers": {}, "query": {}}


@dataclass
class Kiosk:
    """The running app. ``expected`` is filled by the tests' own bookkeeping: what every legitimate event gives once."""

    db: AppDb
    home: Path
    fake: FakePlatform = field(init=False)
    app: App = field(default_factory=app_model)
    platform: Platform = field(init=False)
    ids: dict[str, str] = field(init=False)
    since: Position = field(init=False)
    tagged: bool = True

    def __post_init__(self) -> None:
        self.fake = FakePlatform({"Intake": self.intake, "Payment": self.payment})
        self.faults()
        self.ids = {
            "intake": self.fake.add(definition("Intake", "good"), active=True),
            "payment": self.fake.add(definition("Payment", "good"), active=True),
        }
        (self.home / "checks").mkdir(parents=True)
        suite = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "total"}}
        content = {"name": "orders", "table": "kiosk.orders", "expectations": [suite]}
        (self.home / "checks" / "orders.json").write_text(json.dumps(content))
        (self.home / "canary.json").write_text(json.dumps(order("canary", order="canary")["body"]))

    def faults(self, *faults: Fault) -> None:
        """From now on the product meets the platform with these faults."""
        self.platform = Retrying(Faulty(self.fake, faults), first_wait_s=0.001, longest_wait_s=0.002)

    def open(self) -> AppContext:
        """A context as a new process has it."""
        return AppContext(
            home=self.home,
            catalog_path=self.home,
            app=self.app,
            platform=self.platform,
            ledger=Ledger(self.home / "ledger.sqlite"),
            store=Store(str(self.home / "store")),
        )

    @contextmanager
    def opened(self, *_: Any, **__: Any) -> Iterator[AppContext]:
        """Stands for ``open_app``."""
        yield self.open()

    def configure(self, **changes: Any) -> None:
        self.app = app_model(**changes)

    # What the workflows do

    def intake(self, content: Mapping[str, Any], event: Event, run: str) -> dict[str, Any]:
        body, how = event["body"], content["nodes"][0]["parameters"]["how"]
        order_id = body.get("order", f"o-{body['event']}")
        factor, times = (100, 2) if how == "bad" else (1, 1)
        with self.transaction("wf_intake", run) as db:
            db.execute("UPDATE kiosk.stock SET level = level - %s WHERE sku = %s", (body["qty"] * times, body["sku"]))
        if body.get("fail") == how or how == body.get("refused", "-"):
            raise ValueError("refused on purpose")
        with self.transaction("wf_intake", run) as db:
            db.execute("INSERT INTO kiosk.orders (id, total) VALUES (%s, %s)", (order_id, body["total"] * factor))
            if how == "bad":
                db.execute("UPDATE kiosk.orders SET status = 'lost' WHERE id = %s", (body.get("damages", "h1"),))
        return {"Work": [{"id": order_id}]}

    def payment(self, _content: Mapping[str, Any], event: Event, run: str) -> dict[str, Any]:
        body = event["body"]
        with self.transaction("wf_kiosk_payment", run) as db:
            row = db.execute(
                "UPDATE kiosk.orders SET status = 'paid' WHERE id = %s RETURNING total", (body["order"],)
            ).fetchone()
            if row is None:
                raise ValueError(f"no order {body['order']}")
            db.execute("INSERT INTO kiosk.payments VALUES (%s, %s, 20)", (f"p-{body['event']}", body["order"]))
        return {"Work": [{"id": body["order"]}]}

    @contextmanager
    def transaction(self, role: str, run: str | None) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.db.dsn(role)) as connection:
            if run is not None and self.tagged:
                connection.execute("SELECT set_config('reinstate.run', %s, true)", (run,))
            yield connection

    def clerk(self, statement: str) -> None:
        """A person edits by hand."""
        with self.transaction(CLERK, None) as db:
            db.execute(statement.encode())

    # What happens to it

    def call(self, workflow: str, event: Event) -> Run:
        return self.fake.call(self.ids[workflow], event)

    def publish(self, workflow: str, how: str) -> None:
        self.fake.save(self.ids[workflow], definition(workflow.capitalize(), how))
        self.fake.activate(self.ids[workflow])

    def protect(self) -> None:
        ctx = self.open()
        assert protect(ctx).verified
        with ctx.connect("capturer", "test") as connection:
            self.since = position.current(connection)

    def wreck(self) -> str:
        """Good traffic, then a bad version with good work in between, detected, contained and diagnosed. Returns the
        incident."""
        self.protect()
        self.call("intake", order("1", total=30, sku="jam"))
        self.call("payment", paid("p1", "o-1"))
        self.publish("intake", "bad")
        self.call("intake", order("2", damages="h1"))
        self.call("intake", order("3", damages="h2", total=120, qty=3))
        self.clerk("UPDATE kiosk.orders SET note = 'by hand' WHERE id = 'h1'")
        self.call("payment", paid("p2", "o-2"))
        self.clerk("UPDATE kiosk.orders SET note = 'call back' WHERE id = 'o-3'")
        self.call("intake", order("3", damages="h3", total=120, qty=3))
        self.clerk("UPDATE kiosk.stock SET level = level + 10 WHERE sku = 'tea'")
        return self.caught()

    def caught(self) -> str:
        ctx = self.open()
        with ctx.connect("capturer", "test") as connection:
            findings = detectors.run(connection, ctx.app, since=self.since)
        assert findings
        found = watch.handle(ctx, findings, since=self.since)
        assert found.diagnosis is not None, found.undiagnosed
        return found.incident

    def plan(self, incident: str, **how: str) -> Plan:
        """Made, recorded, approved and started."""
        asked: dict[str, Any] = {"mode": "both", "policy": "refuse", "point": None, **how}
        recovery = session.plan(self.home, "kiosk", incident=incident, **asked)
        made = session.load(self.home, "kiosk", recovery)
        assert session.approve(self.home, "kiosk", made, by="tester", reason="test")
        session.started(self.home, "kiosk", made)
        return made

    def run(self, plan: Plan, *, until: str | None = None) -> None:
        """The steps as the flow runs them; up to and without the step ``until``."""
        for step in plan.steps:
            if step.id == until:
                return
            session.step(self.home, "kiosk", plan.recovery_id, step.id)

    def recover(self, incident: str, **how: str) -> dict[str, Any]:
        plan = self.plan(incident, **how)
        self.run(plan)
        return session.finished(self.home, "kiosk", plan)

    def go_on(self, incident: str) -> dict[str, Any]:
        """A new process continues the interrupted recovery."""
        with self.opened() as ctx:
            recovery = session.interrupted(ctx, incident)
        plan = session.load(self.home, "kiosk", recovery)
        session.started(self.home, "kiosk", plan)
        self.run(plan)
        return session.finished(self.home, "kiosk", plan)

    # What is there

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        with psycopg.connect(self.db.capturer) as connection:
            return {
                "orders": connection.execute(
                    "SELECT id, total, status, note, class FROM kiosk.orders ORDER BY id"
                ).fetchall(),
                "stock": connection.execute("SELECT sku, level FROM kiosk.stock ORDER BY sku").fetchall(),
                "payments": connection.execute(
                    "SELECT id, order_id, amount FROM kiosk.payments ORDER BY id"
                ).fetchall(),
            }

    def may_write(self, workflow: str) -> bool:
        with psycopg.connect(self.db.capturer) as connection:
            row = connection.execute(
                "SELECT has_table_privilege(%s, 'kiosk.orders', 'UPDATE')", (ROLES[workflow],)
            ).fetchone()
        return bool(row and row[0])

    def live(self, workflow: str) -> str | None:
        """What the workflow's live version does."""
        version = self.fake.live_version(self.ids[workflow])
        return None if version is None else str(version.definition["nodes"][0]["parameters"]["how"])

    @property
    def copies(self) -> list[str]:
        """Private entries left in the platform."""
        return [w.id for w in self.fake._workflows.values() if w.entry_of is not None]


def expected() -> dict[str, list[tuple[Any, ...]]]:
    """What :meth:`Kiosk.wreck` must have left once it is recovered: each event and each edit, exactly once."""
    orders: dict[str, tuple[Any, ...]] = {
        f"h{n}": (f"h{n}", Decimal(10 * n), "sent", None, "small") for n in range(1, 10)
    }
    orders["h1"] = ("h1", Decimal(10), "sent", "by hand", "small")
    orders["o-1"] = ("o-1", Decimal(30), "paid", None, "small")
    orders["o-2"] = ("o-2", Decimal(20), "paid", None, "small")
    orders["o-3"] = ("o-3", Decimal(120), "new", "call back", "large")
    return {
        "orders": [orders[k] for k in sorted(orders)],
        "stock": [("jam", 99), ("tea", 100 - 1 - 3 + 10)],
        "payments": [("p-p1", "o-1", Decimal(20)), ("p-p2", "o-2", Decimal(20))],
    }


def passing(*_: Any, **__: Any) -> SuiteReport:
    """Stands for the suites where they are not what is tested (loading Great Expectations takes ten seconds)."""
    return SuiteReport(passed=True, ran=1, failed=(), seconds=0.0, snapshot=None)


def install(db: AppDb) -> None:
    """Schema, roles and journal, as an operator would."""
    for role in (*ROLES.values(), CLERK):
        db.role(role)
    with psycopg.connect(db.installer) as connection:
        connection.execute(SCHEMA.encode())
    with psycopg.connect(db.superuser) as connection:
        sql = product_roles.sql(database=db.name, tables=TABLES, workflow_roles=tuple(ROLES.values()))
        connection.execute(sql.encode())
    with database.connect(db.installer, purpose="test") as connection:
        specs = database.tables(connection, app_model().tables)
        connection.rollback()
        journal_install.install(connection, specs, capturer="capturer", recoverer="recoverer")


def narrowed(plan: Plan, kinds: Sequence[str]) -> Plan:
    """The plan without steps of other kinds."""
    return plan.model_copy(update={"steps": tuple(s for s in plan.steps if s.kind in kinds)})
