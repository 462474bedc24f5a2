"""The kiosk: made and wrecked once per session, copied per test."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from checks import suites
from recovery import delivery, outline, publishing, session
from recovery.plan import Plan
from tests.conftest import AppDb, PgServer, drop_app_db, make_app_db
from tests.recovery import kiosk as scene

TEMPLATE, COPY = "kiosk_template", "kiosk"


@dataclass
class Kept:
    """Kiosks put aside, by name: database, home (ledger, store) and the platform's memory."""

    made: AppDb
    folder: Path
    platforms: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    notes: dict[str, tuple[str, Plan | None]] = field(default_factory=dict)

    def database(self, source: str, target: str) -> AppDb:
        server = self.made.server
        server.drop_database(target)
        with psycopg.connect(server.superuser_dsn(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER installer").format(
                    sql.Identifier(target), sql.Identifier(source)
                )
            )
        return replace(self.made, name=target)

    def keep(self, name: str, kiosk: scene.Kiosk, incident: str, plan: Plan | None) -> None:
        self.database(kiosk.db.name, f"kiosk_{name}")
        shutil.copytree(kiosk.home, self.folder / name)
        fake = kiosk.fake
        self.platforms[name] = copy.deepcopy((fake._workflows, fake._runs.by_id, fake._count)), kiosk.ids, kiosk.since
        self.notes[name] = incident, plan

    def restore(self, name: str, kiosk: scene.Kiosk) -> tuple[str, Plan | None]:
        """Turn ``kiosk`` into the one that was put aside."""
        self.database(f"kiosk_{name}", kiosk.db.name)
        shutil.rmtree(kiosk.home)
        shutil.copytree(self.folder / name, kiosk.home)
        state, ids, kiosk.since = self.platforms[name]
        kiosk.ids = dict(ids)
        kiosk.fake._workflows, kiosk.fake._runs.by_id, kiosk.fake._count = copy.deepcopy(state)
        kiosk.fake._runs._numbers = itertools.count(1 + max(map(int, kiosk.fake._runs.by_id), default=0))
        return self.notes[name]


@pytest.fixture(scope="session")
def kept(pg: PgServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    made = make_app_db(pg, TEMPLATE)
    scene.install(made)
    aside = Kept(made, tmp_path_factory.mktemp("kept"))
    yield aside
    for name in (COPY, *(f"kiosk_{n}" for n in aside.notes)):
        pg.drop_database(name)
    drop_app_db(made)


@pytest.fixture
def kiosk(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[scene.Kiosk]:
    """A fresh kiosk, and a product that does not wait longer than an in-memory platform needs."""
    db = replace(kept.made, name=COPY)
    if not kept.notes.keys() & set(request.fixturenames):
        kept.database(TEMPLATE, COPY)
    for name, role in (("KIOSK_I", "installer"), ("KIOSK_C", "capturer"), ("KIOSK_R", "recoverer")):
        monkeypatch.setenv(name, db.dsn(role))
    made = scene.Kiosk(db, tmp_path / "home")
    monkeypatch.setattr(session, "open_app", made.opened)
    monkeypatch.setattr(suites, "run", scene.passing)
    monkeypatch.setattr(outline, "STAGE_WATCH_S", 0.0)
    monkeypatch.setattr(outline, "FINAL_WATCH_S", 0.0)
    monkeypatch.setattr(publishing, "LIVE_S", 0.2)
    monkeypatch.setattr(delivery, "LOOKUP_S", 0.3)
    yield made
    made.fake.close()


Make = Callable[[], tuple[str, Plan | None]]


def once(kept: Kept, name: str, kiosk: scene.Kiosk, make: Make) -> tuple[str, Plan | None]:
    if name not in kept.notes:
        incident, plan = make()
        kept.keep(name, kiosk, incident, plan)
    return kept.restore(name, kiosk)


@pytest.fixture
def wrecked(kept: Kept, kiosk: scene.Kiosk) -> str:
    """The kiosk after :meth:`~tests.recovery.kiosk.Kiosk.wreck`: the incident."""
    return once(kept, "wrecked", kiosk, lambda: (kiosk.wreck(), None))[0]


@pytest.fixture
def planned(kept: Kept, kiosk: scene.Kiosk, request: pytest.FixtureRequest) -> Plan:
    """Wrecked, and the recovery of both halves planned, approved and started."""

    def make() -> tuple[str, Plan | None]:
        incident = request.getfixturevalue("wrecked")
        return incident, kiosk.plan(incident)

    plan = once(kept, "planned", kiosk, make)[1]
    assert plan is not None
    return plan


@pytest.fixture
def undone(kept: Kept, kiosk: scene.Kiosk, request: pytest.FixtureRequest) -> Plan:
    """The same, with every step before the replay done."""

    def make() -> tuple[str, Plan | None]:
        plan = request.getfixturevalue("planned")
        kiosk.run(plan, until="replay")
        return plan.incident_id, plan

    plan = once(kept, "undone", kiosk, make)[1]
    assert plan is not None
    return plan
