"""Each clause holds when logic and data fit, and says in one line what does not."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from checks import agreement
from checks.model import Clause, ExpectationResult, SuiteReport
from snapshots import fence
from tests.checks.conftest import Journaled, app_of
from tests.checks.shop_platform import IDS, ShopPlatform
from tests.conftest import AppDb

GOOD, BAD = "a" * 64, "b" * 64


@pytest.fixture
def platform() -> ShopPlatform:
    return ShopPlatform(live={"w1": GOOD, "w2": GOOD}, draft={"w1": GOOD, "w2": GOOD})


def live(platform: ShopPlatform, *, paused: bool = False) -> Clause:
    return agreement.live_version(platform.port(), "w1", workflow="intake", planned=GOOD, paused=paused)


def test_the_live_version_is_the_planned_one(platform: ShopPlatform) -> None:
    assert live(platform).holds
    platform.live["w1"] = BAD
    assert not live(platform).holds
    assert "live is bbbbbbbbbbbb, planned is aaaaaaaaaaaa" in live(platform).detail


def test_a_restored_draft_is_no_live_version(platform: ShopPlatform) -> None:
    platform.live["w1"], platform.draft["w1"] = BAD, GOOD
    assert not live(platform).holds
    platform.live["w1"] = None
    assert not live(platform).holds
    assert "runs nothing" in live(platform).detail


def test_while_paused_the_saved_content_counts_and_nothing_may_be_live(platform: ShopPlatform) -> None:
    platform.live["w1"] = None
    assert live(platform, paused=True).holds
    platform.draft["w1"] = BAD
    assert not live(platform, paused=True).holds
    platform.draft["w1"], platform.live["w1"] = GOOD, GOOD
    assert "though it should be paused" in live(platform, paused=True).detail


def test_the_active_set_is_exact(platform: ShopPlatform) -> None:
    assert agreement.active_set(platform.port(), IDS, expected=["payment", "intake"]).holds
    platform.live["w2"] = None
    clause = agreement.active_set(platform.port(), IDS, expected=["intake", "payment"])
    assert (clause.holds, clause.detail) == (False, "payment is not active")
    assert agreement.active_set(platform.port(), IDS, expected=[]).detail == "intake is active"


def test_data_is_undone_when_planning_again_finds_nothing() -> None:
    assert agreement.data_undone(list).holds
    clause = agreement.data_undone(lambda: [f"shop.t{i}: 1 to delete" for i in range(7)])
    assert not clause.holds
    assert clause.detail.endswith("and 2 more")


def test_suites_must_have_run_and_passed() -> None:
    report = SuiteReport(passed=True, ran=3, failed=(), seconds=0, snapshot=None)
    assert agreement.suites(report).holds
    assert not agreement.suites(SuiteReport(passed=True, ran=0, failed=(), seconds=0, snapshot=None)).holds
    failed = ExpectationResult(suite="s", table="t", expectation="e", success=False, detail="t: e broken by 2 rows")
    clause = agreement.suites(SuiteReport(passed=False, ran=3, failed=(failed,), seconds=0, snapshot=None))
    assert (clause.holds, clause.detail) == (False, "t: e broken by 2 rows")


def test_check_flattens_and_drift_filters() -> None:
    yes, no = Clause(name="a", holds=True, detail=""), Clause(name="b", holds=False, detail="")
    assert agreement.check(yes, [no, yes]) == [yes, no, yes]
    assert agreement.drift([yes, no]) == [no]


# Against the database ------------------------------------------------------------------------------------------------


@pytest.fixture
def looking(shop: AppDb) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shop.capturer, autocommit=True) as connection:
        yield connection


@pytest.mark.postgres
def test_schema_has_what_the_workflows_name(shop: AppDb, looking: psycopg.Connection[Any]) -> None:
    assert agreement.schema(looking, app_of()).holds
    with psycopg.connect(shop.installer) as owner:
        owner.execute("ALTER TABLE shop.orders RENAME COLUMN status TO state; ALTER TABLE shop.items RENAME TO lines")
    clause = agreement.schema(looking, app_of())
    assert not clause.holds
    assert "column shop.orders.status of payment does not exist" in clause.detail
    assert "table shop.items of intake does not exist" in clause.detail


@pytest.mark.postgres
def test_roles_may_write_exactly_when_not_fenced(shop: AppDb, looking: psycopg.Connection[Any]) -> None:
    assert agreement.credentials_roles(looking, app_of(), fenced=[]).holds
    clause = agreement.credentials_roles(looking, app_of(), fenced=["wf_intake"])
    assert "role wf_intake is fenced but may INSERT, UPDATE, DELETE on shop.orders" in clause.detail
    with psycopg.connect(shop.installer) as owner:
        owner.execute("REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop FROM wf_intake")
    assert agreement.credentials_roles(looking, app_of(), fenced=["wf_intake"]).holds
    clause = agreement.credentials_roles(looking, app_of(), fenced=[])
    assert "role wf_intake may not write shop.orders" in clause.detail


@pytest.mark.postgres
def test_a_right_on_one_column_is_a_right(shop: AppDb, looking: psycopg.Connection[Any]) -> None:
    with psycopg.connect(shop.installer) as owner:
        owner.execute("REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop FROM wf_payment")
        owner.execute("GRANT UPDATE (status) ON shop.orders TO wf_payment")
    assert agreement.credentials_roles(looking, app_of(), fenced=[]).holds
    assert not agreement.credentials_roles(looking, app_of(), fenced=["wf_payment"]).holds


@pytest.mark.postgres
def test_the_products_own_fence_satisfies_the_clause(journaled: Journaled) -> None:
    with psycopg.connect(journaled.db.recoverer) as recoverer:
        fence.raise_(recoverer, "wf_intake", "test")
        assert agreement.credentials_roles(recoverer, app_of(), fenced=["wf_intake"]).holds
        assert not agreement.credentials_roles(recoverer, app_of(), fenced=[]).holds
        recoverer.rollback()
        fence.lower(recoverer, "wf_intake", "test")
        assert agreement.credentials_roles(recoverer, app_of(), fenced=[]).holds


@pytest.mark.postgres
def test_a_missing_role_is_named(journaled: Journaled) -> None:
    app = app_of()
    stranger = app.workflows[0].model_copy(update={"role": "wf_nobody"})
    app = app.model_copy(update={"workflows": (stranger,)})
    clause = agreement.credentials_roles(journaled.watcher, app, fenced=[])
    assert "role wf_nobody of intake does not exist" in clause.detail


@pytest.mark.postgres
def test_late_writes_are_drift_unless_they_are_the_recoverys(journaled: Journaled, shop: AppDb) -> None:
    def clause(*allowed: int) -> Clause:
        return agreement.no_late_writes(journaled.watcher, roles=["wf_intake"], since=journaled.since, allowed=allowed)

    assert clause().holds
    for role in ("wf_payment", "wf_intake"):
        with psycopg.connect(shop.dsn(role)) as conn:
            row = conn.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
            conn.execute("UPDATE shop.orders SET status = %s WHERE id = 1", (role,))
    assert row is not None
    assert not clause().holds
    assert f"(xid {row[0]})" in clause().detail
    assert clause(row[0]).holds
