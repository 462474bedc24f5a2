"""The run's name in a statement: as text, and as PostgreSQL and the journal see it."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.models import Table
from discovery.tagging import tagged
from snapshots import database
from snapshots.journal import install, journal
from tests.conftest import AppDb

RUN = "{{ $execution.id }}"
CTE = "run AS MATERIALIZED (SELECT set_config('reinstate.run', '{{ $execution.id }}', true))"

WHERE = "WHERE EXISTS (SELECT FROM run)"
EDITS = [
    ("UPDATE t SET a = 1 WHERE id = $1 OR b;", f"WITH {CTE}\nUPDATE t SET a = 1 {WHERE} AND (id = $1 OR b);"),
    ("UPDATE t SET a = (SELECT 1 WHERE x)", f"WITH {CTE}\nUPDATE t SET a = (SELECT 1 WHERE x)\n{WHERE}"),
    ("=DELETE FROM t WHERE id = {{ $json.id }} RETURNING id",
     f"=WITH {CTE}\nDELETE FROM t {WHERE} AND (id = {{{{ $json.id }}}}) RETURNING id"),
    ("INSERT INTO t (a, b) VALUES ($1, lower($2)) ON CONFLICT (a) DO NOTHING",
     f"WITH {CTE}\nINSERT INTO t (a, b) SELECT $1, lower($2) FROM run ON CONFLICT (a) DO NOTHING"),
    ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x ORDER BY 1",
     f"WITH {CTE}, x AS (SELECT 1) INSERT INTO t SELECT * FROM x\n{WHERE}\nORDER BY 1"),
    ("INSERT INTO t SELECT a FROM s WHERE a > 1 ON CONFLICT (a) DO UPDATE SET a = 1 WHERE t.a < 5",
     f"WITH {CTE}\nINSERT INTO t SELECT a FROM s {WHERE} AND (a > 1)"
     " ON CONFLICT (a) DO UPDATE SET a = 1 WHERE t.a < 5"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), EDITS)
def test_a_statement_gets_the_tag_and_keeps_its_words(before: str, after: str) -> None:
    assert tagged(before, RUN) == (after, "")


BY_HAND = [
    ("INSERT INTO t VALUES (1), (2)", "several rows"),
    ("INSERT INTO t VALUES (DEFAULT, 2)", "DEFAULT"),
    ("INSERT INTO t DEFAULT VALUES", "in no brackets"),
    ("INSERT INTO t SELECT 1 UNION SELECT 2", "unites"),
    ("UPDATE t SET a = 1; DELETE FROM t", "several statements"),
    ("MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", "MERGE"),
    ("SELECT book(1)", "SELECT"),
    ("WITH run AS (SELECT 1) DELETE FROM t USING run", "another meaning"),
    ("UPDATE t SET a = ${x}", "placeholders"),
    ("UPDATE t SET a = 'x", "cannot be parsed"),
]


@pytest.mark.parametrize(("text", "why"), BY_HAND)
def test_what_has_another_shape_is_left_to_a_person(text: str, why: str) -> None:
    after, said = tagged(text, RUN)
    assert after is None
    assert why in said


def test_a_platform_without_a_name_for_runs_gets_no_tags() -> None:
    assert tagged("DELETE FROM t", None)[0] is None


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_text_breaks_a_tag(text: str) -> None:
    after, why = tagged(text, RUN)
    assert (after is None) == bool(why)


@pytest.mark.postgres
def test_the_journal_sees_the_tag_of_every_shape(app_db: AppDb) -> None:
    """Each runs as it stands, and what it wrote carries the run, also where its last part does nothing."""
    with psycopg.connect(app_db.installer) as owner:
        owner.execute("CREATE TABLE public.t (a int PRIMARY KEY, b text, c uuid, d timestamptz)")
        owner.execute("CREATE TABLE public.u (a int)")
        owner.execute("INSERT INTO public.t VALUES (1, 'x'), (2, 'y')")
    with database.connect(app_db.installer, purpose="test") as owner:
        specs = database.tables(owner, [Table(name="public.t", key=("a",))])
        owner.commit()
        install.install(owner, specs, capturer="capturer", recoverer="recoverer")
    statements = [
        "INSERT INTO t (a, b, c, d) VALUES (10, 'new', '00000000-0000-4000-8000-000000000000', 'now') RETURNING a",
        "INSERT INTO t (a, b) SELECT a + 100, b FROM t WHERE a < 3",
        "UPDATE t SET b = 'z' WHERE a = 1",
        "DELETE FROM t WHERE a = 2",
        "WITH n AS (INSERT INTO t VALUES (50, 'n') RETURNING a) UPDATE u SET a = 0 FROM n WHERE u.a = n.a",
        "UPDATE t SET b = b",
    ]
    with psycopg.connect(app_db.installer, autocommit=True) as app:
        for number, statement in enumerate(statements):
            after, why = tagged(statement, f"run-{number}")
            assert after is not None, why
            app.execute(after.encode())
    with database.connect(app_db.recoverer, purpose="test") as reader:
        runs = {t.run for t in journal.transactions(reader, since=journal.status(reader).tables[0].complete_since)}
    assert runs == {f"run-{n}" for n in range(len(statements))}
