"""kill -9 between an effect and its record, and what else can go wrong around a recovery. Each ends at the oracle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from console import exits
from drills import faults
from drills.n8n_api import N8nApi
from drills.order_desk import EXAMPLE, definition
from platforms.faulty import Fault, FaultKind
from recovery import session, watch
from recovery.errors import Refused, Relapse
from recovery.steps import resume
from tests.live.wreck import APP, CONTAINED, Injector, Wreck

pytestmark = [pytest.mark.live]

RECOVER = ["recover", "--catalog", str(EXAMPLE), "--yes", "--by", "tester", "--json"]


def reinstate(*arguments: str, timeout_s: float = 900) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "console", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def damaged_orders(wreck: Wreck, n: int) -> list[str]:
    """Old orders whose status bad runs overwrote; not those that bad runs made, which nobody may keep."""
    with wreck.opened() as ctx, ctx.connect("capturer", "test") as connection:
        rows = connection.execute(
            "SELECT DISTINCT id::text FROM reinstate.j_desk__orders "
            "WHERE rj_actor = 'wf_order_intake' AND rj_op = 'U' AND rj_side = 'o' "
            "AND placed_at < now() - interval '30 days' ORDER BY 1 LIMIT %s",
            (n,),
        ).fetchall()
    assert len(rows) == n
    return [r[0] for r in rows]


def others_work(wreck: Wreck) -> None:
    """Staff go on with repaired rows: another column of some, the damaged column of others."""
    ids = damaged_orders(wreck, 40)
    wreck.both("UPDATE desk.orders SET note = 'called back' WHERE id::text = ANY(%(ids)s)", {"ids": ids[:20]})
    wreck.both("UPDATE desk.orders SET status = 'shipped' WHERE id::text = ANY(%(ids)s)", {"ids": ids[20:]})


@pytest.fixture
def oracle_kept(wreck: Wreck) -> Iterator[None]:
    """The judge's database is put back after a test that added legitimate work of its own."""
    wreck.keep_oracle()
    yield
    wreck.restore_oracle()


@pytest.mark.usefixtures("oracle_kept")
@pytest.mark.parametrize("step", ["undo", "publish:order-intake"])
def test_killed_between_effect_and_record_the_rerun_ends_at_the_oracle(wreck: Wreck, step: str) -> None:
    killer = Path(__file__).with_name("killed.py")
    died = subprocess.run(
        [sys.executable, str(killer), step, *RECOVER], capture_output=True, text=True, timeout=900, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    others_work(wreck)
    again = reinstate(*RECOVER, "--continue")
    assert again.returncode == exits.OK, again.stderr
    assert json.loads(again.stdout)["state"] == "resumed"
    assert wreck.judge().wrong == {}


def test_two_recoveries_at_once_one_runs_and_one_names_the_holder(wreck: Wreck) -> None:
    first = subprocess.Popen(
        [sys.executable, "-m", "console", *RECOVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        with wreck.opened() as ctx:
            deadline = time.monotonic() + 300
            while not ctx.ledger.entries(incident=wreck.incident, kinds=["recovery.started"]):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        second = reinstate(*RECOVER)
        assert second.returncode == exits.HELD, second.stderr
        assert f"process {first.pid}" in second.stderr
        out, err = first.communicate(timeout=900)
        assert first.returncode == exits.OK, err
        assert json.loads(out)["state"] == "resumed"
    finally:
        if first.poll() is None:
            first.kill()
            first.communicate()
    assert wreck.judge().wrong == {}


@pytest.mark.parametrize("seconds", [-5.0, 5.0])
def test_a_skewed_platform_clock_changes_nothing(wreck: Wreck, faulty: Injector, seconds: float) -> None:
    faulty(Fault(kind=FaultKind.CLOCK_SKEW, times=None, seconds=seconds))
    with wreck.opened() as ctx:
        found, why = watch.diagnose(ctx, wreck.incident, watch.look_again(ctx))
    assert found is not None, why
    wreck.execute(wreck.plan())
    assert wreck.judge().wrong == {}


def test_without_the_journal_the_plan_is_refused_and_says_what_a_diff_would_lose(wreck: Wreck) -> None:
    with wreck.opened() as ctx, ctx.connect("installer", "careless owner") as connection:
        connection.execute("DROP SCHEMA reinstate CASCADE")
        connection.commit()
    refused = reinstate("plan", "--catalog", str(EXAMPLE))
    assert refused.returncode == exits.REFUSED, refused.stderr
    said = [line for line in refused.stderr.splitlines() if line.startswith("reinstate: ")]
    assert len(said) == 1
    assert "journal" in said[0]
    assert "would overwrite" in said[0]


def test_with_a_gap_in_the_journal_the_plan_is_refused_and_says_what_a_diff_would_lose(wreck: Wreck) -> None:
    with wreck.opened() as ctx:
        with ctx.connect("installer", "test") as connection, faults.journal_off(connection, "desk", "orders"):
            time.sleep(0.1)
        with pytest.raises(Refused, match=r"(?s)journal.*desk\.orders.*would overwrite"):
            session.make(ctx, wreck.incident, mode="both", policy="refuse", point=None)


def test_data_and_logic_alone_end_paused_and_resume_once_verified(wreck: Wreck) -> None:
    data = reinstate(*RECOVER, "--mode", "data")
    assert data.returncode == exits.OK, data.stderr
    assert json.loads(data.stdout)["state"] == "data-restored"
    logic = reinstate(*RECOVER, "--mode", "logic")
    assert logic.returncode == exits.OK, logic.stderr
    assert json.loads(logic.stdout)["state"] == "logic-restored"
    with wreck.opened() as ctx:
        assert not any(i.active for i in ctx.infos().values() if i.name in CONTAINED)
    resumed = reinstate("resume", "--catalog", str(EXAMPLE), "--json")
    assert resumed.returncode == exits.OK, resumed.stderr
    assert wreck.judge().wrong == {}
    with wreck.opened() as ctx:
        assert all(i.active for i in ctx.infos().values())


def test_logic_alone_does_not_resume_over_wrong_data(wreck: Wreck) -> None:
    assert reinstate(*RECOVER, "--mode", "logic").returncode == exits.OK
    resumed = reinstate("resume", "--catalog", str(EXAMPLE))
    assert resumed.returncode == exits.NOT_PROVEN, resumed.stderr
    with wreck.opened() as ctx:
        assert not any(i.active for i in ctx.infos().values() if i.name in CONTAINED)


def test_a_relapse_after_the_resume_is_contained_again(wreck: Wreck) -> None:
    plan = wreck.plan()
    for step in plan.steps:
        if step.kind == "watch":
            break
        session.step(EXAMPLE, APP, plan.recovery_id, step.id)
    long_watch = step.model_copy(update={"params": {"watch_s": 240.0}})
    with N8nApi(wreck.desk.n8n_url, wreck.desk.n8n_key) as api:
        ids = {w["name"]: str(w["id"]) for w in api.workflows()}
        api.publish(ids["Order intake"], definition("faults/order-intake.bad.json", api.credentials()))
        with wreck.opened() as ctx, wreck.traffic(), pytest.raises(Relapse):
            resume.watch_act(ctx, plan, long_watch, lambda _: None)
        assert not any(w["active"] for w in api.workflows() if w["name"] in CONTAINED)


def test_no_role_of_the_product_is_a_superuser_or_may_read_the_oracle(wreck: Wreck) -> None:
    with wreck.opened() as ctx:
        for role in ("installer", "capturer", "recoverer"):
            with ctx.connect(role, "test") as connection:
                row = connection.execute(
                    "SELECT rolsuper OR rolcreaterole OR rolbypassrls FROM pg_roles WHERE rolname = session_user"
                ).fetchone()
                assert row == (False,)
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(ctx.dsn(role).replace("/order_desk", "/order_desk_oracle"))
