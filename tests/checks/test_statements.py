"""Whether definitions still fit the database: judged by its own parser, never by running anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from checks import agreement, statements
from platforms.base import Access, Node, Outline, TableUse
from tests.conftest import AppDb

TABLES = {"shop.orders", "shop.items", "shop.stock"}


@pytest.mark.parametrize(
    ("then", "now", "holds"),
    [
        ("integer", "integer", True),
        ("integer", "bigint", True),
        ("bigint", "integer", False),
        ("bigint", "numeric", True),
        ("integer", "text", False),
        ("real", "double precision", True),
        ("double precision", "real", False),
        ("character varying(10)", "character varying(20)", True),
        ("character varying(20)", "character varying(10)", False),
        ("character varying(20)", "text", True),
        ("text", "character varying(20)", False),
        ("numeric(12,2)", "numeric(14,2)", True),
        ("numeric(12,2)", "numeric(12,4)", False),
        ("numeric(12,2)", "numeric", True),
        ("numeric(12,2)", "text", False),
        ("date", "timestamp with time zone", False),
    ],
)
def test_a_column_holds_what_it_held(then: str, now: str, holds: bool) -> None:
    assert statements.holds(then, now) is holds


def test_placeholders_of_the_platform_are_filled_where_a_value_stands() -> None:
    assert statements.filled("=SELECT {{ $json.id }} + {{ 1 }};") == "SELECT NULL + NULL"
    assert statements.filled("SELECT * FROM {{ $json.table }}_old") is None
    assert statements.filled('SELECT "{{x}}"') is None
    assert statements.filled(" ; ") is None


@pytest.fixture
def looking(shop: AppDb) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shop.capturer) as connection:
        yield connection


def judged(conn: psycopg.Connection[Any], sql: str, path: str = "") -> str | None:
    return statements.judge(conn, sql, path=path, tables=TABLES)


@pytest.mark.postgres
def test_the_parser_tells_what_is_gone_what_does_not_fit_and_what_nobody_can_tell(
    looking: psycopg.Connection[Any],
) -> None:
    assert judged(looking, "UPDATE shop.orders SET total = $1 WHERE id = $2::bigint RETURNING id;") == ""
    assert judged(looking, "WITH r AS (SELECT 1) INSERT INTO shop.stock SELECT 'x', {{ $json.n }}") == ""
    assert "totl" in str(judged(looking, "SELECT totl FROM shop.orders"))
    assert "shop.itemz" in str(statements.judge(looking, "SELECT 1 FROM shop.itemz", path="", tables={"shop.itemz"}))
    assert "do not fit" in str(judged(looking, "SELECT 1 FROM shop.orders WHERE customer = id"))
    assert "types of its columns" in str(judged(looking, "UPDATE shop.orders SET total = now()"))
    for unsure in (
        "SELECT * FROM elsewhere.things",  # another database's
        "SELECT 1; SELECT 2",
        "SELECT * FROM {{ $json.table }}",
        "SELEC 1",
        "SELECT id FROM shop.orders WHERE id = '{{ $json.id }}'",
    ):
        assert judged(looking, unsure) is None, unsure


@pytest.mark.postgres
def test_nothing_is_run(shop: AppDb, looking: psycopg.Connection[Any]) -> None:
    with psycopg.connect(shop.recoverer) as writer:
        assert judged(writer, "DELETE FROM shop.orders") == ""
        assert judged(writer, "DROP TABLE shop.orders") == ""
        assert judged(writer, "SELECT 1; DROP TABLE shop.orders") is None
        writer.commit()
    assert looking.execute("SELECT count(*) FROM shop.orders").fetchone() == (1000,)


@pytest.mark.postgres
def test_the_search_path_of_the_workflows_role_counts(shop: AppDb, looking: psycopg.Connection[Any]) -> None:
    assert statements.search_path(looking, "wf_intake") == ""
    with psycopg.connect(shop.superuser, autocommit=True) as admin:
        admin.execute("ALTER ROLE wf_intake SET search_path = shop, public")
        try:
            path = statements.search_path(looking, "wf_intake")
            assert path == "shop, public"
            assert judged(looking, "SELECT total FROM orders", path) == ""
            assert "totl" in str(judged(looking, "SELECT totl FROM orders", path))
        finally:
            admin.execute("ALTER ROLE wf_intake RESET search_path")


@pytest.mark.postgres
def test_definitions_fit_until_a_column_goes_or_changes_its_type(shop: AppDb, looking: psycopg.Connection[Any]) -> None:
    nodes = (
        Node(
            name="Insert", kind="postgres", tables=(TableUse(table="stock", access=Access.WRITE, columns=("level",)),)
        ),
        Node(name="Read", kind="postgres", sql=("SELECT total FROM shop.orders WHERE id = $1",)),
        Node(name="Off", kind="postgres", sql=("SELECT nothing FROM shop.orders",), disabled=True),
        Node(name="Other", kind="postgres", tables=(TableUse(table="leads", access=Access.READ, schema="crm"),)),
    )
    outlines = {"intake": Outline(name="Intake", entries=(), nodes=nodes, links=())}
    then = {"shop.orders": {"total": "numeric(12,2)"}, "shop.stock": {"level": "integer"}}

    def clause() -> Any:
        fit = statements.fits(looking, outlines, tables=TABLES, roles={"intake": "wf_intake"}, then=then)
        return agreement.definitions(fit)

    assert (clause().holds, clause().detail) == (True, "2 uses of tables fit; 1 cannot be judged without a run")
    with psycopg.connect(shop.installer) as owner:
        owner.execute("ALTER TABLE shop.stock RENAME COLUMN level TO amount")
        owner.execute("ALTER TABLE shop.orders ALTER COLUMN total TYPE text")
    assert clause().detail.split("; ") == [
        "intake, node 'Insert': column shop.stock.level does not exist",
        "intake: shop.orders.total is text, it was numeric(12,2) when all was good",
    ]
    assert "workflow diff" in clause().next
    with psycopg.connect(shop.installer) as owner:
        owner.execute("ALTER TABLE shop.orders RENAME COLUMN total TO sum")
    assert "node 'Read': its SQL names a column that does not exist" in clause().detail
