"""The kiosk: made once per session, copied per test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from checks import suites
from recovery import outline, resuming, session
from recovery.steps import replay
from tests.conftest import AppDb, PgServer, drop_app_db, make_app_db
from tests.recovery import kiosk as scene

TEMPLATE, COPY = "kiosk_template", "kiosk"


@pytest.fixture(scope="session")
def kiosk_template(pg: PgServer) -> Iterator[AppDb]:
    made = make_app_db(pg, TEMPLATE)
    scene.install(made)
    yield made
    drop_app_db(made)


@pytest.fixture
def kiosk(kiosk_template: AppDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[scene.Kiosk]:
    """A fresh kiosk, and a product that does not wait longer than an in-memory platform needs."""
    server = kiosk_template.server
    server.drop_database(COPY)
    with psycopg.connect(server.superuser_dsn(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER installer").format(
                sql.Identifier(COPY), sql.Identifier(TEMPLATE)
            )
        )
    db = replace(kiosk_template, name=COPY)
    for name, role in (("KIOSK_I", "installer"), ("KIOSK_C", "capturer"), ("KIOSK_R", "recoverer")):
        monkeypatch.setenv(name, db.dsn(role))
    made = scene.Kiosk(db, tmp_path / "home")
    monkeypatch.setattr(session, "open_app", made.opened)
    monkeypatch.setattr(suites, "run", scene.passing)
    monkeypatch.setattr(outline, "STAGE_WATCH_S", 0.0)
    monkeypatch.setattr(outline, "FINAL_WATCH_S", 0.0)
    monkeypatch.setattr(resuming, "LIVE_S", 0.2)
    monkeypatch.setattr(replay, "LOOKUP_S", 0.3)
    yield made
    made.fake.close()
    server.drop_database(COPY)
