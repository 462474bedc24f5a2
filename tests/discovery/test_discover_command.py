"""`reinstate discover` and `reinstate check` as commands: what they write, what they leave alone, how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from catalog.load import load
from checks import suites
from console import exits, main
from discovery import database, profile
from estate import secrets
from platforms import registry
from platforms.base import Permanent
from platforms.fake import FakePlatform
from snapshots import database as databases
from tests.conftest import AppDb

pytestmark = pytest.mark.postgres

SCHEMA = """
    CREATE TABLE public.orders (id serial PRIMARY KEY, number text NOT NULL, "madeBy" text, total numeric NOT NULL);
    CREATE TABLE public.lines (id serial PRIMARY KEY, order_id int NOT NULL, price numeric NOT NULL);
    INSERT INTO public.orders (number, "madeBy", total)
    SELECT 'N-' || g, CASE WHEN g % 3 = 0 THEN 'web' ELSE 'desk' END, g FROM generate_series(1, 300) g;
    INSERT INTO public.lines (order_id, price) SELECT id, total FROM public.orders;
"""
NEW = (
    "discover",
    "--app",
    "corner-shop",
    "--platform",
    "n8n",
    "--url",
    "env:U",
    "--key",
    "env:K",
    "--database",
    "env:D",
)


def definition(name: str, *statements: str) -> dict[str, Any]:
    hook = {"name": "In", "type": "n8n-nodes-base.webhook", "parameters": {"path": name, "httpMethod": "POST"}}
    nodes = [
        {"name": f"Node {n}", "type": "n8n-nodes-base.postgres",
         "parameters": {"operation": "executeQuery", "query": text},
         "credentials": {"postgres": {"id": "1", "name": "app"}}} for n, text in enumerate(statements)
    ]  # fmt: skip
    return {"name": name, "nodes": [hook, *nodes], "connections": {}, "settings": {}}


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> FakePlatform:
    made = FakePlatform()
    made.add(
        definition(
            "Take order",
            "INSERT INTO orders (number, total) VALUES ($1, $2)",
            "INSERT INTO lines (order_id, price) VALUES ($1, $2)",
        ),
        active=True,
    )
    for kind in ("n8n", "fake"):
        monkeypatch.setitem(registry.FACTORIES, kind, lambda *_: made)
    return made


@pytest.fixture
def home(app_db: AppDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with psycopg.connect(app_db.installer) as owner:
        owner.execute(SCHEMA)
    folder = tmp_path / "home"
    secrets.write(folder / secrets.FILE, {"U": "http://127.0.0.1:1", "K": "key", "D": app_db.installer})
    monkeypatch.setenv("REINSTATE_HOME", str(folder))
    monkeypatch.delenv("REINSTATE_CATALOG", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*arguments: str) -> tuple[int, str]:
        code = main.run(list(arguments))
        shown = capsys.readouterr()
        return code, shown.out or shown.err

    return ran


def test_a_dry_run_writes_nothing_and_makes_no_password(platform: FakePlatform, home: Path, run: Run) -> None:
    before = (home / secrets.FILE).read_bytes()
    code, out = run(*NEW, "--passwords", "--dry-run", "--json")
    assert code == exits.OK
    assert "catalog.yaml" in json.loads(out)["files"]
    assert (home / secrets.FILE).read_bytes() == before
    assert sorted(p.name for p in home.parent.iterdir()) == ["home"]


def test_files_are_written_once_and_then_beside(platform: FakePlatform, home: Path, run: Run) -> None:
    assert run(*NEW, "--out", "shop", "--passwords")[0] == exits.OK
    shop = home.parent / "shop"
    theirs = (shop / "catalog.yaml").read_text().replace("nobody yet", "Ada")
    (shop / "catalog.yaml").write_text(theirs)
    (shop / "checks" / "orders.json").write_text('{"mine": true}')
    roles, kept = (shop / "roles.sql").read_text(), (home / secrets.FILE).read_text()
    assert (shop / "roles.sql").stat().st_mode & 0o077 == 0
    assert run(*NEW, "--out", "shop", "--passwords")[0] == exits.OK
    assert (shop / "catalog.yaml").read_text() == theirs
    assert (shop / "checks" / "orders.json").read_text() == '{"mine": true}'
    assert load(shop / "catalog.discovered.yaml").apps[0].key == "corner-shop"
    assert json.loads((shop / "checks.discovered" / "orders.json").read_text())["table"] == "public.orders"
    # The same passwords again, until somebody has run roles.sql.
    assert (home / secrets.FILE).read_text() == kept
    assert {line.split("'")[0] for line in (shop / "roles.discovered.sql").read_text().splitlines()} == {
        line.split("'")[0] for line in roles.splitlines()
    }


def test_an_app_in_a_file_of_its_own_is_extended_beside_it(
    platform: FakePlatform, home: Path, app_db: AppDb, run: Run
) -> None:
    assert run(*NEW, "--out", "drafts")[0] == exits.OK
    secrets.write(home / secrets.FILE, {f"CORNER_SHOP_DB_{r.upper()}": app_db.dsn(r) for r in
                                        ("installer", "capturer", "recoverer")})  # fmt: skip
    with psycopg.connect(app_db.installer) as owner:
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO capturer")
        owner.execute("CREATE TABLE public.notes (id int PRIMARY KEY, order_id int REFERENCES public.orders)")
        owner.execute("GRANT SELECT ON public.notes TO capturer")
    described = yaml.safe_load((home.parent / "drafts" / "catalog.yaml").read_text())["apps"][0]
    shops = home.parent / "shops"
    (shops / "apps").mkdir(parents=True)
    (shops / "catalog.yaml").write_text("apps: []\n")
    part = shops / "apps" / "corner.yaml"
    part.write_text(yaml.safe_dump({**described, "suites": "quality"}, sort_keys=False))
    before = part.read_bytes()
    code, out = run("discover", "-c", str(shops), "--json")
    assert (code, json.loads(out)["added"]) == (exits.OK, ["tables[public.notes]"])
    assert part.read_bytes() == before
    assert sorted(str(p.relative_to(shops)) for p in shops.rglob("*.*")) == [
        "apps/corner.yaml", "catalog.yaml", "corner.yaml", "quality/notes.json", "roles.sql", "run-tags.md",
    ]  # fmt: skip
    assert load(shops).apps[0].suites == "quality"
    assert "public.notes" in (shops / "corner.yaml").read_text()


def test_suites_of_odd_names_and_sets_run(platform: FakePlatform, home: Path, app_db: AppDb, run: Run) -> None:
    assert run(*NEW)[0] == exits.OK
    folder = home.parent / "checks"
    drafted = json.loads((folder / "orders.json").read_text())["expectations"]
    assert {"column": "madeBy", "value_set": ["desk", "web"]} in [e["kwargs"] for e in drafted]
    assert suites.run(app_db.installer, folder).passed
    with psycopg.connect(app_db.installer) as owner:
        owner.execute("""UPDATE public.orders SET "madeBy" = 'nobody' WHERE id = 1""")
        owner.execute("DELETE FROM public.orders WHERE id > 100")
    failed = suites.run(app_db.installer, folder).failed
    assert {(f.table, f.expectation) for f in failed} == {
        ("public.orders", "expect_column_values_to_be_in_set"),
        ("public.orders", "expect_table_row_count_to_be_between"),
        ("public.lines", "unexpected_rows_expectation"),
    }


def test_tables_of_a_superuser_are_given_to_the_installer_alone(
    platform: FakePlatform, home: Path, app_db: AppDb, run: Run
) -> None:
    with psycopg.connect(app_db.superuser) as admin:
        admin.execute("ALTER TABLE public.orders OWNER TO CURRENT_USER")
        admin.execute("GRANT SELECT ON public.orders TO installer")
    assert run(*NEW)[0] == exits.OK
    text = (home.parent / "roles.sql").read_text()
    assert "ALTER TABLE public.orders OWNER TO corner_shop_installer;" in text
    assert "GRANT postgres" not in text
    assert 'GRANT "postgres"' not in text
    with psycopg.connect(app_db.superuser) as admin:
        admin.execute(text.encode())
        admin.rollback()


@pytest.mark.usefixtures("platform", "home")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["discover"], exits.USAGE, "--platform"),
        (["discover", "-c", "x", "--platform", "n8n"], exits.USAGE, "either"),
        ([*NEW[:5], "--url", "http://x", "--key", "env:K", "--database", "env:D"], exits.USAGE, "--url"),
        ([NEW[0], *NEW[3:]], exits.USAGE, "--app"),
        (["discover", "--app", "Corner Shop", *NEW[3:]], exits.USAGE, "corner-shop"),
        ([*NEW[:-1], "env:NOWHERE"], exits.CATALOGUE, "NOWHERE"),
        (["check", "-c", "nowhere.yaml"], exits.CATALOGUE, "no such file"),
    ],
)
def test_bad_use_is_one_line(run: Run, arguments: list[str], code: int, says: str) -> None:
    assert run(*arguments)[0] == code
    assert says in run(*arguments)[1]


def test_a_platform_that_uses_no_table_has_nothing_to_describe(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = FakePlatform()
    empty.add(definition("Ping"))
    monkeypatch.setitem(registry.FACTORIES, "n8n", lambda *_: empty)
    code, said = run(*NEW)
    assert (code, "none of the 1 workflows uses a table" in said) == (exits.NOTHING, True)


def test_check_says_what_is_out_of_reach_and_goes_on(
    platform: FakePlatform, home: Path, app_db: AppDb, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*NEW)[0] == exits.OK
    secrets.write(home / secrets.FILE, {f"CORNER_SHOP_DB_{r.upper()}": app_db.dsn(r) for r in
                                        ("installer", "capturer", "recoverer")})  # fmt: skip
    code, out = run("check", "--json")
    found = {(f["severity"], f["object"]) for f in json.loads(out)["findings"]}
    assert code == exits.REFUSED
    assert {("error", "journal"), ("error", "role wf_take_order"), ("error", "role recoverer")} <= found

    def down(*_: Any) -> Any:
        raise Permanent("n8n refuses the key; give another")

    monkeypatch.setattr(platform, "health", down)
    with psycopg.connect(app_db.superuser) as admin:
        admin.execute("ALTER ROLE capturer NOLOGIN")
    try:
        code, out = run("check", "--json")
    finally:
        with psycopg.connect(app_db.superuser) as admin:
            admin.execute("ALTER ROLE capturer LOGIN")
    found = {(f["severity"], f["object"]) for f in json.loads(out)["findings"]}
    assert code == exits.REFUSED
    assert {("error", "platform"), ("error", "database as capturer")} <= found


def test_a_large_table_is_sampled_and_a_slow_one_described_by_its_shape(
    home: Path, app_db: AppDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "WHOLE_ROWS", 100)
    monkeypatch.setattr(profile, "SAMPLE_ROWS", 60)
    with databases.connect(app_db.installer, purpose="test") as owner:
        tables = database.facts(owner).tables
        sampled = profile.profile(owner, [tables["public.orders"]])["public.orders"]
        assert sampled.sampled
        assert 0 < sampled.looked <= 120
        owner.rollback()
        monkeypatch.setattr(profile, "TIME_LIMIT_S", 0.2)
        with psycopg.connect(app_db.installer) as other:
            other.execute("LOCK TABLE public.orders")
            found = profile.profile(owner, [tables["public.orders"], tables["public.lines"]])
    assert found["public.orders"].problem == "it took too long"
    assert found["public.lines"].problem is None
