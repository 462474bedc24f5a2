"""The one story of the logic path, told on every live platform: two versions under live traffic, the bad one published,
detected, contained, rolled back, read back, its events replayed, everything resumed, traffic served by the good one.

A platform takes part by implementing :class:`Stage` (``logic_stage.py``; see ``n8n_story.py``), as a session fixture in
``conftest.py`` and as a line in :data:`STAGES`. :class:`Story` is a small shop of its own on that stage: database,
least-privilege roles, journal, catalogue, product home, traffic. :func:`tell` is the story; ``test_logic_kills.py``
lets Reinstate die all along the same one.

The shop has three workflows, each behind a POST with a JSON body. None is idempotent: an event that runs twice leaves
two rows.

- ``intake`` ``{"event", "total", "damages"}``. *good* inserts ``(event, total)`` into ``orders``. *bad* inserts the
  total a hundredfold and sets ``status = 'lost'`` on the order whose ``event`` is ``damages``.
- ``confirm`` ``{"event", "order_event"}`` inserts both into ``receipts``.
- ``audit`` does what ``confirm`` does, and is switched off all the time: a resume must leave it so.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg
import pytest
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from estate import ports, secrets
from platforms.base import Platform
from recovery import history, session, setup, watch
from recovery.context import AppContext, open_app
from recovery.handling import Caught
from recovery.plan import Plan
from recovery.protect import protect
from tests.live.logic_ingress import serving
from tests.live.logic_stage import STAGES, WORKFLOWS, How, Stage, statement
from tests.live.logic_traffic import EVERY_S, Traffic

__all__ = ["STAGES", "WORKFLOWS", "How", "Stage", "Story", "eventually", "staged", "statement", "tell"]

APP = "shop"
INSTALLER, CAPTURER, RECOVERER, CLERK = "story_installer", "story_capturer", "story_recoverer", "story_clerk"
PEOPLE = {"owner": "ada", "deputy": "grace"}
SETTLE_S = 0.3
T = TypeVar("T")


def eventually(look: Callable[[], T], what: str, *, within_s: float = 180.0) -> T:
    """The first true result of ``look``."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"it did not happen in {within_s:.0f} s: {what}"
        time.sleep(0.05)
    return found


@dataclass
class Story:
    """The shop on a stage. ``home`` is the product's home, ``catalog`` its catalogue's folder."""

    stage: Stage
    home: Path
    catalog: Path
    said: list[str] = field(default_factory=list)
    superuser: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    grants: list[tuple[Any, ...]] = field(default_factory=list)
    """Who may do what with the shop's tables, before anything happened."""

    # Making the shop

    def build(self) -> None:
        """Database, roles, workflows, catalogue, journal: a healthy app that nobody protects yet."""
        self.superuser = self.stage.database()
        self._tables()
        self.stage.prepare(self.dsn)
        self._catalogue()
        with self.opened() as ctx:
            setup.install_roles(ctx, self.superuser)
            setup.install_journal(ctx)
            for key in WORKFLOWS:
                self.ids[key] = ctx.platform.create(self.stage.definition(key, "good")).workflow_id
            for key in ("intake", "confirm"):
                ctx.platform.activate(self.ids[key])
            history.observe(ctx)  # runs before the first look have no version where the platform tells none
        self.grants = self.granted()

    def dsn(self, role: str) -> str:
        """A role's connection string, as an address."""
        at = conninfo_to_dict(self.superuser)
        return f"postgresql://{role}:{quote(f'story-{role}')}@{at['host']}:{at['port']}/{at['dbname']}"

    def _tables(self) -> None:
        schema, workflow_roles = sql.Identifier(self.stage.schema), sorted(set(self.stage.roles.values()))
        with psycopg.connect(self.superuser, autocommit=True) as db:
            for role in (INSTALLER, CAPTURER, RECOVERER, CLERK, *workflow_roles):
                if not db.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
                    made = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                    db.execute(made.format(sql.Identifier(role), sql.Literal(f"story-{role}")))
            name = sql.Identifier(str(conninfo_to_dict(self.superuser)["dbname"]))
            writers = sql.SQL(", ").join(map(sql.Identifier, (CLERK, *workflow_roles)))
            who = {"s": schema, "i": sql.Identifier(INSTALLER), "w": writers, "db": name}
            for line in (
                "CREATE SCHEMA IF NOT EXISTS {s}",
                "GRANT CONNECT ON DATABASE {db} TO {i}, {w}",
                "GRANT USAGE, CREATE ON SCHEMA {s} TO {i}",
                "GRANT USAGE ON SCHEMA {s} TO {w}",
                "CREATE TABLE {s}.orders (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, event text NOT NULL, "
                "total numeric(12, 2) NOT NULL, status text NOT NULL DEFAULT 'new', note text)",
                "CREATE TABLE {s}.receipts (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "
                "event text NOT NULL, order_event text NOT NULL)",
                "ALTER TABLE {s}.orders OWNER TO {i}",
                "ALTER TABLE {s}.receipts OWNER TO {i}",
                "GRANT SELECT, INSERT, UPDATE, DELETE ON {s}.orders, {s}.receipts TO {w}",
                "GRANT USAGE, SELECT ON SEQUENCE {s}.orders_id_seq, {s}.receipts_id_seq TO {w}",
            ):
                db.execute(sql.SQL(line).format(**who))

    def _catalogue(self) -> None:
        """The catalogue's folder and the secrets it refers to."""
        schema, stage = self.stage.schema, self.stage
        (self.catalog / "checks").mkdir(parents=True)
        suite = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "total"}}
        content = {"name": "orders", "table": f"{schema}.orders", "expectations": [suite]}
        (self.catalog / "checks" / "orders.json").write_text(json.dumps(content), "utf-8")

        def workflow(key: str, writes: Sequence[str]) -> dict[str, Any]:
            trigger = {"kind": "webhook", "event_key": "body.event"}
            writes = [f"{schema}.{table}" for table in writes]
            more = {"downstream": ["confirm", "audit"]} if key == "intake" else {}
            named = {"key": key, "name": WORKFLOWS[key], "role": stage.roles[key], "trigger": trigger}
            return {**named, "writes": writes, **more, **PEOPLE}

        app: dict[str, Any] = {
            "key": APP,
            "title": "Shop",
            **PEOPLE,
            "platform": {"kind": stage.kind, "url": "env:STORY_URL", "api_key": "env:STORY_KEY"},
            "database": {r: f"env:STORY_{r.upper()}" for r in ("installer", "capturer", "recoverer")},
            "objectives": {"rto_s": 60, "rpo_s": 60},
            "workflows": [workflow("intake", ["orders"]), *(workflow(k, ["receipts"]) for k in ("confirm", "audit"))],
            "tables": [{"name": f"{schema}.orders"}, {"name": f"{schema}.receipts"}],
            "detectors": [
                {"key": "totals", "kind": "rule", "table": f"{schema}.orders", "sql": "r.total < 1000"},
                {"key": "statuses", "kind": "rule", "table": f"{schema}.orders", "sql": "r.status <> 'lost'"},
            ],
            "resume_order": [["intake"], ["confirm"]],
            "containment": {"settle_s": SETTLE_S},
            "caps": {"max_deleted_share": 0.95},
        }
        if stage.ingress:
            app["ingress"] = {"listen": f"127.0.0.1:{ports.choose()}"}
        (self.catalog / "catalog.yaml").write_text(yaml.safe_dump({"apps": [app]}), "utf-8")
        self.home.mkdir(mode=0o700, parents=True)
        roles = {"INSTALLER": INSTALLER, "CAPTURER": CAPTURER, "RECOVERER": RECOVERER}
        dsns = {f"STORY_{name}": self.dsn(role) for name, role in roles.items()}
        secrets.write(self.home / secrets.FILE, {"STORY_URL": stage.url, "STORY_KEY": stage.api_key, **dsns})

    # Acting

    @contextmanager
    def opened(self) -> Iterator[AppContext]:
        """The app as the product opens it."""
        with open_app(self.catalog, APP, self.home) as ctx:
            yield ctx

    def publish(self, workflow: str, how: How, *, platform: Platform) -> None:
        """A developer publishes a version."""
        platform.save(self.ids[workflow], self.stage.definition(workflow, how))
        platform.activate(self.ids[workflow])

    def protect(self) -> str:
        """A verified point; its id."""
        with self.opened() as ctx:
            point = protect(ctx, say=self.said.append)
        assert point.verified
        return point.id

    @contextmanager
    def traffic(self, *, every_s: float = EVERY_S) -> Iterator[Traffic]:
        """Senders at work, through the ingress where the stage has one."""
        with self.opened() as ctx:
            listen = ctx.app.ingress.listen if ctx.app.ingress else ""
        base = f"http://{listen}" if listen else self.stage.url
        ingress = serving(self.catalog, APP, self.home) if listen else nullcontext()
        addresses = {k: base + self.stage.path(k) for k in ("intake", "confirm")}
        with ingress, Traffic(addresses, every_s=every_s) as senders:
            yield senders

    @contextmanager
    def watched(self) -> Iterator[list[Caught]]:
        """The product's watcher in a thread: what it caught so far."""
        caught: list[Caught] = []
        failed: list[BaseException] = []
        over = threading.Event()

        def look() -> None:
            try:
                with self.opened() as ctx:
                    caught.extend(watch.watch(ctx, stop=over.is_set, say=self.said.append))
            except BaseException as error:  # noqa: BLE001 - told by the test that waits
                failed.append(error)

        watcher = threading.Thread(target=look, name="watcher")
        watcher.start()
        try:
            yield caught
        finally:
            over.set()
            watcher.join(timeout=60)
        assert not failed, failed

    def plan(self, incident: str) -> Plan:
        """Made, recorded, approved and started."""
        recovery = session.plan(
            self.catalog, APP, incident=incident, mode="both", policy="refuse", point=None, say=self.said.append
        )
        made = session.load(self.catalog, APP, recovery)
        assert session.approve(self.catalog, APP, made, by="tester", reason="read it")
        session.started(self.catalog, APP, made)
        return made

    def run(self, plan: Plan, *, before: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
        """All steps as the flow runs them, and the end."""
        for step in plan.steps:
            before(step.id)
            session.step(self.catalog, APP, plan.recovery_id, step.id, say=self.said.append)
        return session.finished(self.catalog, APP, plan)

    def person(self, statement: str, *values: Any) -> int:
        """A clerk edits by hand, ``{s}`` being the schema; the number of rows."""
        with psycopg.connect(self.dsn(CLERK)) as db:
            return db.execute(sql.SQL(statement).format(s=sql.Identifier(self.stage.schema)), values).rowcount

    # Looking

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a query, ``{s}`` being the schema."""
        with psycopg.connect(self.superuser) as db:
            return db.execute(sql.SQL(query).format(s=sql.Identifier(self.stage.schema)), values).fetchall()

    def effects(self) -> dict[str, list[Any]]:
        """Per event what it left: the totals of its orders, an entry for each of its receipts."""
        found: dict[str, list[Any]] = {}
        for event, total in self.ask("SELECT event, total FROM {s}.orders ORDER BY id"):
            found.setdefault(event, []).append(int(total))
        for event, of in self.ask("SELECT event, order_event FROM {s}.receipts ORDER BY id"):
            found.setdefault(event, []).append(of)
        return found

    def granted(self) -> list[tuple[Any, ...]]:
        """Who may do what with the shop's tables."""
        return self.ask(
            "SELECT c.relname::text, x.grantee::regrole::text, x.privilege_type, x.is_grantable "
            "FROM pg_class c, aclexplode(c.relacl) x WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r' "
            "ORDER BY 1, 2, 3",
            self.stage.schema,
        )

    def active(self, ctx: AppContext) -> set[str]:
        return {key for key, info in ctx.infos().items() if info.active}

    def unknown(self, ctx: AppContext) -> set[str]:
        """Events that the record lists for a person: they may have run or not."""
        return {str(e.body.get("event")) for e in ctx.ledger.entries(app=APP, kinds=["event.unknown"])}

    def owed(self, senders: Traffic, unknown: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
        """What is not as it should be: each accepted event has exactly one effect, the right one; or none, and is
        listed as unknown. Empty when all is well."""
        there, wrong = self.effects(), []
        for event, sent in senders.sent.items():
            found = there.pop(event, [])
            listed = any(event in key for key in unknown)
            may_be_none = sent.answer != "accepted" or listed
            if found != [sent.expected] and not (may_be_none and not found):
                wrong.append(f"{event} ({sent.answer}{', unknown' if listed else ''}): {found}, not {sent.expected}")
        return wrong + [f"{event}: {found}, but nobody sent it" for event, found in there.items()]


@contextmanager
def staged(stage: Stage, folder: Path) -> Iterator[Story]:
    """A new shop on ``stage``, gone at the end. The product lives in it: ``REINSTATE_HOME`` is its home."""
    story = Story(stage=stage, home=folder / "home", catalog=folder / "catalog")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("REINSTATE_HOME", str(story.home))
        try:
            story.build()
            yield story
        finally:
            stage.clear()


def tell(stage: Stage, folder: Path) -> Story:
    """The story; the shop as it was left is given back for questions (its workflows are gone)."""
    with staged(stage, folder) as story, story.opened() as ctx, story.traffic() as senders:
        good = ctx.platform.live_version(story.ids["intake"])
        assert good is not None
        eventually(lambda: len(story.effects()) >= 6, "good traffic")
        story.protect()
        with story.watched() as caught:
            begun = datetime.now(UTC)
            eventually(lambda: (ctx.book.looked() or begun) > begun, "the watcher has seen the good version at work")
            story.publish("intake", "bad", platform=ctx.platform)
            eventually(lambda: caught and caught[0].diagnosis, f"contained and diagnosed: {story.said[-5:]}")
        assert caught[0].contained is not None, caught[0].unproven
        assert set(caught[0].contained.workflows) == set(WORKFLOWS)
        assert set(caught[0].contained.active_before) == {"intake", "confirm"}
        assert story.active(ctx) == set()
        lost = story.ask("SELECT event FROM {s}.orders WHERE status = 'lost' ORDER BY id LIMIT 1")[0][0]
        assert story.person("UPDATE {s}.orders SET note = 'called back' WHERE event = %s", lost) >= 1

        plan = story.plan(caught[0].incident)
        assert story.run(plan)["state"] == "resumed"
        live = ctx.platform.live_version(story.ids["intake"])
        assert live is not None
        assert live.hash == good.hash, "read back"
        assert story.active(ctx) == {"intake", "confirm"}
        assert story.granted() == story.grants

        after = time.monotonic()
        eventually(lambda: senders.served(story.effects(), since=after) >= 4, "served by the good version")
        senders.finish()
        eventually(lambda: not story.owed(senders, story.unknown(ctx)), "\n".join(story.owed(senders)))
        assert story.ask("SELECT note FROM {s}.orders WHERE event = %s", lost) == [("called back",)]
        assert story.ask("SELECT count(*) FROM {s}.orders WHERE status = 'lost' OR total >= 1000") == [(0,)]
        return story
