"""The example app on a real PostgreSQL: its workflows' SQL with its roles, against the oracle and the suites."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from catalog.load import load
from drills import dumps
from drills.events import Event, Kind, World, look
from drills.judge import compare
from drills.oracle import Oracle
from drills.order_desk import DATABASE, EXAMPLE, JUDGE, ORACLE, WORKFLOW_ROLES, OrderDesk
from drills.senders import STAFF_SQL, _statement
from estate import secrets
from tests.conftest import PgServer

pytestmark = pytest.mark.postgres

WORKFLOW_OF = {
    Kind.ORDER: "order-intake", Kind.PAYMENT: "payment", Kind.STATUS: "status-change", Kind.TIDY: "tidy-up",
}  # fmt: skip
SEED = 7
TWICE = "faults/stock-sync.twice.json"


@pytest.fixture(scope="module")
def prepared(pg: PgServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderDesk]:
    home = tmp_path_factory.mktemp("desk")
    desk = OrderDesk(superuser_dsn=pg.superuser_dsn, n8n_url="http://127.0.0.1:1", n8n_key="unused", home=home)
    desk.prepare()
    yield desk
    for database in (DATABASE, ORACLE, "order_desk_template"):
        pg.drop_database(database)


class Desk:
    """The app without n8n: runs the statements of its workflow files as their roles, one transaction each."""

    def __init__(self, desk: OrderDesk, passwords: dict[str, str]) -> None:
        self.known = secrets.read(desk.driver_file)
        self.product = secrets.read(desk.secrets_file)
        self.dsn = {r: desk.dsn(DATABASE, r, passwords) for r in (*WORKFLOW_ROLES.values(), "desk_staff", JUDGE)}
        self.world: World = look(self.known["DRIVER_DB_JUDGE"], SEED)
        self.log: list[Event] = []

    def handle(self, event: Event, *, version: str | None = None, run: str = "17") -> None:
        """As the app would: a webhook's event by its workflow, a person's by SQL."""
        if event.kind in WORKFLOW_OF:
            key = WORKFLOW_OF[event.kind]
            self.run_workflow(key, version or f"workflows/{key}.json", [run, json.dumps(event.body)])
        else:
            with psycopg.connect(self.dsn["desk_staff"]) as connection:
                statement, values = _statement(event)
                connection.execute(statement.encode(), values)

    def run_workflow(self, key: str, file: str, arguments: list[str]) -> None:
        with psycopg.connect(self.dsn[WORKFLOW_ROLES[key]], autocommit=True) as connection:
            for node in json.loads((EXAMPLE / file).read_text(encoding="utf-8"))["nodes"]:
                if node["type"] == "n8n-nodes-base.postgres":
                    query = node["parameters"]["query"]
                    # A workflow without a tag has the event as its first parameter.
                    values = arguments if "reinstate.run" in query else arguments[1:]
                    names = re.sub(r"\$(\d)", lambda m: f"%(p{m[1]})s", query.replace("%", "%%"))
                    connection.execute(names.encode(), {f"p{i}": v for i, v in enumerate(values, 1)})

    def sync(self, file: str = "workflows/stock-sync.json") -> None:
        """The schedule's next run."""
        self.run_workflow("stock-sync", file, ["17"])

    def legit(self, event: Event) -> Event:
        self.handle(event)
        self.log.append(event)
        return event

    def wrong_fields(self, folder: Path) -> dict[str, int]:
        with Oracle(self.known["DRIVER_DB_ORACLE"]) as oracle:
            oracle.apply(self.log)
        live = dumps.take(self.known["DRIVER_DB_JUDGE"], folder / "live")
        return compare(live, dumps.take(self.known["DRIVER_DB_ORACLE"], folder / "oracle")).by_column()


@pytest.fixture
def desk(prepared: OrderDesk) -> Desk:
    return Desk(prepared, prepared.reset_databases())


def one_of_each(desk: Desk) -> None:
    world = desk.world
    first, second = desk.legit(world.order()), desk.legit(world.order())
    desk.legit(world.payment(first.row, world.total(first)))
    desk.legit(world.status(first.row, "packed"))
    desk.legit(world.payment(second.row, world.total(second) / 2))
    for kind in (Kind.NOTE, Kind.TAG, Kind.ATTRIBUTE):
        desk.legit(world.staff_edit(kind, second.row))
    target = world.targets[0]
    desk.legit(world.staff_edit(Kind.STAFF_STATUS, target.id, world.another_status(target)))
    desk.legit(world.delivery())
    desk.legit(world.tidy_up())
    desk.sync()


def test_good_versions_do_what_the_oracle_says(desk: Desk, tmp_path: Path) -> None:
    one_of_each(desk)
    assert desk.wrong_fields(tmp_path) == {}


def test_a_second_replay_of_an_order_shows_in_stock_only(desk: Desk, tmp_path: Path) -> None:
    order = desk.legit(desk.world.order())
    desk.handle(order)
    assert desk.wrong_fields(tmp_path) == {"desk.products.stock": len(order.body["items"])}


def test_the_bad_version_does_all_the_damage_of_the_scenario(desk: Desk, tmp_path: Path) -> None:
    for _ in range(8):
        order = desk.world.order()
        desk.handle(order, version="faults/order-intake.bad.json")
        desk.log.append(order)
    wrong = desk.wrong_fields(tmp_path)
    assert wrong["desk.orders.status"] >= 600
    assert wrong["desk.orders.priority"] >= wrong["desk.orders.status"]
    assert wrong["desk.orders.total"] > wrong["desk.orders.reference"] > 0
    assert wrong["desk.order_items.order_id"] > 0
    assert wrong["desk.products.stock"] > 8


def test_the_harmless_version_writes_what_the_good_one_writes(desk: Desk, tmp_path: Path) -> None:
    order = desk.world.order()
    desk.handle(order, version="faults/order-intake.harmless.json")
    desk.log.append(order)
    assert desk.wrong_fields(tmp_path) == {}


def test_the_schedule_that_books_twice_shows_in_stock_and_in_what_was_received(desk: Desk, tmp_path: Path) -> None:
    deliveries = [desk.world.delivery() for _ in range(20)]
    for delivery in deliveries:
        desk.handle(delivery)
        desk.log.append(delivery)
    desk.sync(TWICE)
    assert broken(desk, "booked-twice") == 0  # booked once so far, though not ticked off
    desk.sync(TWICE)
    products = len({d.body["sku"] for d in deliveries})
    assert broken(desk, "booked-twice") == products
    with psycopg.connect(desk.known["DRIVER_DB_JUDGE"]) as judge:
        opened = judge.execute("SELECT count(*) FROM desk.deliveries WHERE NOT applied").fetchone()
    assert opened == (20,)
    wrong = desk.wrong_fields(tmp_path)
    assert wrong == {"desk.products.stock": products, "desk.products.received": products, "desk.deliveries.applied": 20}


def test_the_clean_up_with_a_wrong_filter_takes_far_too_much(desk: Desk, tmp_path: Path) -> None:
    recalled = desk.legit(desk.world.staff_edit(Kind.NOTE, desk.world.recalled[0]))
    for _ in range(8):
        tidied = desk.world.tidy_up()
        desk.handle(tidied, version="faults/tidy-up.delete.json")
        desk.log.append(tidied)
    with psycopg.connect(desk.known["DRIVER_DB_JUDGE"]) as judge:
        gone = judge.execute("SELECT 1 FROM desk.orders WHERE id = %s", [recalled.row]).fetchone()
        stray = "FROM desk.order_items AS i WHERE NOT EXISTS (SELECT FROM desk.orders AS o WHERE o.id = i.order_id)"
        left = judge.execute(f"SELECT count(*) {stray}").fetchone()
    assert gone is None
    assert left is not None
    assert left[0] > 2000
    wrong = desk.wrong_fields(tmp_path)
    assert wrong["desk.orders.note"] > 2000
    assert wrong["desk.status_changes.id"] == wrong["desk.orders.id"]
    assert wrong["desk.tidy_ups.removed"] == 8


@pytest.mark.parametrize("file", ["workflows/tidy-up.json", "faults/tidy-up.harmless.json"])
def test_tidying_every_region_takes_away_few(desk: Desk, tmp_path: Path, file: str) -> None:
    for _ in range(8):
        tidied = desk.world.tidy_up()
        desk.handle(tidied, version=file)
        desk.log.append(tidied)
    assert desk.wrong_fields(tmp_path) == {}
    with psycopg.connect(desk.known["DRIVER_DB_JUDGE"]) as judge:
        removed = judge.execute(
            "SELECT sum(removed), count(*) FROM desk.tidy_ups WHERE requested_at > now() - interval '1 hour'"
        ).fetchone()
    assert removed is not None
    assert 20 <= removed[0] < 100
    assert removed[1] == 8


def test_the_harmless_stock_sync_books_once(desk: Desk, tmp_path: Path) -> None:
    desk.legit(desk.world.delivery())
    desk.sync("faults/stock-sync.harmless.json")
    desk.sync("faults/stock-sync.harmless.json")
    assert desk.wrong_fields(tmp_path) == {}


def broken(desk: Desk, key: str) -> int:
    """How many rows break a rule of the catalogue."""
    detector = next(d for d in load(EXAMPLE).apps[0].detectors if d.key == key)
    query = f"SELECT count(*) FROM {detector.table} AS r WHERE ({detector.sql}) IS FALSE"
    with psycopg.connect(desk.known["DRIVER_DB_JUDGE"]) as judge:
        row = judge.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_all_but_status_changes_carry_their_run(desk: Desk, prepared: OrderDesk) -> None:
    with psycopg.connect(prepared.superuser_dsn(DATABASE), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.seen (op text, who name, run text)")
        connection.execute("GRANT INSERT ON public.seen TO PUBLIC")
        connection.execute(
            "CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES"
            " (tg_table_name, session_user, current_setting('reinstate.run', true)); RETURN NULL; END $$"
        )
        for name in ("orders", "order_items", "products", "payments", "status_changes", "deliveries", "tidy_ups"):
            connection.execute(
                f"CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON desk.{name}"
                " FOR EACH STATEMENT EXECUTE FUNCTION public.see()"
            )
        one_of_each(desk)
        seen = set(connection.execute("SELECT op, who, coalesce(run, '') FROM public.seen"))
    tagged = {(t, "wf_order_intake", "17") for t in ("orders", "order_items", "products")}
    tagged |= {(t, "wf_payment", "17") for t in ("orders", "payments")}
    tagged |= {(t, "wf_stock_sync", "17") for t in ("deliveries", "products")}
    tagged |= {(t, "wf_tidy_up", "17") for t in ("orders", "order_items", "status_changes", "tidy_ups")}
    assert tagged == {row for row in seen if row[1] not in ("wf_status_change", "desk_staff")}
    assert {row[2] for row in seen - tagged} == {""}


def test_each_role_can_do_its_own_work_only(desk: Desk) -> None:
    for role, statement in (
        ("wf_payment", "UPDATE desk.orders SET total = 0"),
        ("wf_status_change", "UPDATE desk.orders SET paid = 0"),
        ("wf_stock_sync", "DELETE FROM desk.deliveries"),
        ("wf_tidy_up", "UPDATE desk.orders SET note = ''"),
        ("wf_tidy_up", "DELETE FROM desk.payments"),
        ("wf_order_intake", "UPDATE desk.orders SET priority = 0"),
        ("desk_staff", "UPDATE desk.products SET stock = 0"),
        (JUDGE, "UPDATE desk.orders SET note = ''"),
    ):
        with psycopg.connect(desk.dsn[role]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_no_role_the_product_knows_may_open_the_oracle(desk: Desk) -> None:
    addresses = [value for name, value in desk.product.items() if name.startswith("ORDER_DESK_DB_")]
    assert len(addresses) == 3
    for address in addresses:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(address.replace(f"/{DATABASE}", f"/{ORACLE}"))
    assert not any(ORACLE in value for value in desk.product.values())


def test_suites_pass_on_the_seeded_data_and_name_the_damage(desk: Desk) -> None:
    from checks import suites

    clean = suites.run(desk.dsn[JUDGE], EXAMPLE / "checks")
    assert clean.failed == ()
    one_of_each(desk)
    for _ in range(8):
        desk.handle(desk.world.order(), version="faults/order-intake.bad.json")
    found = suites.run(desk.dsn[JUDGE], EXAMPLE / "checks")
    assert {(f.suite, f.expectation) for f in found.failed} == {
        ("orders", "expect_column_values_to_be_unique"),
        ("orders", "unexpected_rows_expectation"),
        ("order_items", "unexpected_rows_expectation"),
    }
    assert len(found.failed) == 4


def test_detectors_sql_and_canary_fit_the_schema(desk: Desk) -> None:
    app = load(EXAMPLE).apps[0]
    canary = app.workflow("order-intake").canary
    assert canary is not None
    body = json.loads((EXAMPLE / canary.event).read_text(encoding="utf-8"))
    with psycopg.connect(desk.dsn[JUDGE], autocommit=True) as connection:
        for detector in app.detectors:
            if detector.sql:
                broken = f"SELECT 1 FROM {detector.table} AS r WHERE NOT ({detector.sql})"
                assert connection.execute(broken.encode()).fetchall() == []
        assert len(connection.execute(canary.expect.encode()).fetchall()) == 1
        event = Event(key="canary", kind=Kind.ORDER, row=body["order_id"], body=body)
        desk.handle(event)
        assert connection.execute(canary.expect.encode()).fetchall() == []
        desk.handle(event, version="faults/order-intake.bad.json")
        assert connection.execute(canary.expect.encode()).fetchall() != []


def test_the_template_is_kept_and_a_reset_forgets_what_happened(
    desk: Desk, prepared: OrderDesk, tmp_path: Path
) -> None:
    one_of_each(desk)
    prepared.prepare()
    fresh = Desk(prepared, prepared.reset_databases())
    assert fresh.wrong_fields(tmp_path) == {}
    for file in (prepared.driver_file, prepared.secrets_file):
        assert file.stat().st_mode & 0o777 == 0o600


def test_every_staff_edit_has_its_statement() -> None:
    assert {*STAFF_SQL, *WORKFLOW_OF, Kind.DELIVERY} == set(Kind)


def test_the_driver_shares_no_code_with_the_product() -> None:
    """Not even by way of another module."""
    source = (
        "import sys, drills.driver\n"
        "rooms = 'recovery checks snapshots ledger platforms catalog incidents flows console'.split()\n"
        "print([m for m in sys.modules if m.split('.')[0] in rooms])"
    )
    answer = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
