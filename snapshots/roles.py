"""The SQL an administrator runs once, so that Reinstate never needs a superuser.

Three roles: the *installer* owns (or is a member of the owner of) the app's tables and owns schema ``reinstate``; the
*capturer* reads; the *recoverer* writes the app's tables and calls the few functions that act for the owner. Passwords
are not in it: set them with ``\\password`` of psql, or ask for certificates.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql as pg

from snapshots.database import qualified

INSTALLER, CAPTURER, RECOVERER = "installer", "capturer", "recoverer"


def _create(role: str) -> pg.Composed:
    return pg.SQL(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) THEN"
        " CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION; END IF; END $$"
    ).format(literal=pg.Literal(role), name=pg.Identifier(role))


def sql(
    *,
    database: str,
    tables: Sequence[str],
    installer: str = INSTALLER,
    capturer: str = CAPTURER,
    recoverer: str = RECOVERER,
    owner: str | None = None,
    workflow_roles: Sequence[str] = (),
) -> str:
    """SQL for an administrator of ``database``; it may run again. ``tables`` are ``schema.table``; ``owner`` is the
    role that owns them, if it is not the installer. ``workflow_roles`` (one per workflow: that is how the journal
    knows who wrote) are made where missing; what they may do is the app's business."""
    owner = owner or installer
    ids = {"db": pg.Identifier(database), "owner": pg.Identifier(owner)}
    who = {"i": pg.Identifier(installer), "c": pg.Identifier(capturer), "r": pg.Identifier(recoverer)}
    statements: list[pg.Composable] = [_create(role) for role in (installer, capturer, recoverer, *workflow_roles)]
    if owner != installer:
        statements.append(pg.SQL("GRANT {owner} TO {i}").format(**ids, **who))
    statements += [
        pg.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {db} TO {i}, {c}, {r}").format(**ids, **who),
        pg.SQL("GRANT CREATE ON DATABASE {db} TO {i}").format(**ids, **who),
        # State and age of other sessions: long transactions before an install, writers behind a fence.
        pg.SQL("GRANT pg_monitor TO {i}, {c}, {r}").format(**who),
        pg.SQL(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'reinstate') THEN"
            " CREATE SCHEMA reinstate AUTHORIZATION {i}; END IF; END $$"
        ).format(**who),
    ]
    for schema in sorted({t.split(".", 1)[0] for t in tables}):
        s = {"s": pg.Identifier(schema)}
        on = pg.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {s} ").format(**ids, **s)
        statements += [
            pg.SQL("GRANT USAGE ON SCHEMA {s} TO {i}, {c}, {r}").format(**s, **who),
            pg.SQL("GRANT SELECT ON ALL SEQUENCES IN SCHEMA {s} TO {c}").format(**s, **who),
            pg.SQL("GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {s} TO {r}").format(**s, **who),
            on + pg.SQL("GRANT SELECT ON TABLES TO {c}").format(**who),
            on + pg.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {r}").format(**who),
            on + pg.SQL("GRANT SELECT ON SEQUENCES TO {c}").format(**who),
            on + pg.SQL("GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {r}").format(**who),
        ]
    for table in tables:
        t = {"t": qualified(table)}
        statements += [
            pg.SQL("GRANT SELECT ON {t} TO {c}").format(**t, **who),
            pg.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {t} TO {r}").format(**t, **who),
        ]
    head = (
        f"-- Roles of Reinstate for database {database}. Run once as an administrator, connected to it.\n"
        "-- The journal's own objects are granted by the installer when it is installed.\n"
    )
    return head + ";\n".join(s.as_string(None) for s in statements) + ";\n"
