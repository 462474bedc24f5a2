"""The fence: while a workflow is contained, its database role cannot write, whatever its platform still does.

Raising it revokes the role's write grants on the app's relations and remembers them; lowering gives back exactly
those. A statement that already runs ends as it will; the next one of the same transaction fails. What no revoke
reaches (ownership, PUBLIC, membership, foreign grantors) is named by :func:`leaks`, never assumed away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection, sql

from snapshots import position as positions
from snapshots.errors import Refused
from snapshots.journal.shape import stored
from snapshots.model import Position

ATTEMPTS = 5
_REFUSALS = ("RJ003", "42704", "42501", "42883", "3F000")
"""Ours; unknown role; no right to call; no such function or schema: the journal is not installed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """A write that a fenced role can still do, and ``through`` what."""

    role: str
    table: str
    privilege: str
    through: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """A session of a role with a transaction open. ``since``: its start, by the database's clock."""

    pid: int
    role: str
    state: str
    since: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Quiet:
    """Whether nothing was written for the settle time; what stood in the way if not."""

    quiet: bool
    writers: tuple[Writer, ...]
    last_write: datetime | None
    waited_s: float


def _call(conn: Connection[Any], function: str, role: str, ref: str) -> int:
    statement = sql.SQL("SELECT {}(%s::name, %s)").format(sql.Identifier("reinstate", function))
    for left in range(ATTEMPTS - 1, -1, -1):
        try:
            row = conn.execute(statement, (role, ref)).fetchone()
            conn.commit()
        except psycopg.DatabaseError as error:
            conn.rollback()
            if left and "tuple concurrently updated" in str(error):
                continue  # somebody else granted or altered at the same moment
            if error.sqlstate in _REFUSALS:
                cause = str(error).splitlines()[0]
                raise Refused(f"fence of {role}: {cause}: check role and journal install") from None
            raise
        else:
            return int(row[0]) if row else 0
    raise AssertionError("the last attempt returns or raises")


def raise_(conn: Connection[Any], role: str, ref: str) -> int:
    """Take ``role``'s write grants under the reference ``ref``, an incident (role: recoverer; commits). Idempotent.
    Returns how many grants were taken now. Check :func:`leaks` afterwards. Raises :class:`Refused` for an unknown
    role and for Reinstate's own."""
    return _call(conn, "fence", role, ref)


def lower(conn: Connection[Any], role: str, ref: str) -> int:
    """Give back what ``ref`` took (role: recoverer; commits). Idempotent; nothing while another incident fences the
    role. Returns how many grants were given back."""
    return _call(conn, "unfence", role, ref)


def leaks(conn: Connection[Any], roles: Sequence[str]) -> list[Leak]:
    """Writes that ``roles`` can still do on the app's relations (role: capturer or recoverer). A right it could take
    by ``SET ROLE`` counts: membership without inheritance is no fence."""
    rows = conn.execute(
        """
        WITH member AS (
            SELECT r.oid, r.rolname, r.rolsuper FROM pg_roles r WHERE r.rolname = ANY (%s)
        ), acl AS (
            SELECT c.oid AS relid, x.grantee, x.grantor, x.privilege_type
            FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) x
            WHERE c.oid IN (SELECT relid FROM reinstate.app_relations())
            UNION ALL
            SELECT a.attrelid, x.grantee, x.grantor, x.privilege_type
            FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) x
            WHERE a.attrelid IN (SELECT relid FROM reinstate.app_relations())
        ), able AS (
            SELECT m.oid, m.rolname, m.rolsuper, c.oid AS relid, c.relowner, a.name, p.privilege,
                   has_table_privilege(m.oid, c.oid, p.privilege)
                   OR (p.privilege IN ('INSERT', 'UPDATE') AND has_any_column_privilege(m.oid, c.oid, p.privilege))
                   AS direct
            FROM member m CROSS JOIN reinstate.app_relations() a(relid, name) JOIN pg_class c ON c.oid = a.relid
            CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS p(privilege)
        )
        SELECT b.rolname::text, b.name, b.privilege, CASE
            WHEN b.rolsuper THEN 'superuser'
            WHEN b.oid = b.relowner THEN 'ownership'
            WHEN pg_has_role(b.oid, b.relowner, 'MEMBER') THEN 'membership in the owner ' || b.relowner::regrole
            ELSE coalesce(
                (SELECT CASE WHEN g.grantee = 0 THEN 'PUBLIC'
                             WHEN g.grantee = b.oid THEN 'a grant by ' || g.grantor::regrole
                             ELSE 'membership in ' || g.grantee::regrole END
                 FROM acl g WHERE g.relid = b.relid AND g.privilege_type = b.privilege
                     AND CASE WHEN g.grantee = 0 THEN true ELSE pg_has_role(b.oid, g.grantee, 'MEMBER') END
                 ORDER BY g.grantee <> b.oid, g.grantee LIMIT 1),
                CASE WHEN b.direct THEN 'pg_write_all_data' END) END AS through
        FROM able b
        WHERE b.direct OR pg_has_role(b.oid, b.relowner, 'MEMBER') OR EXISTS (
            SELECT FROM acl g WHERE g.relid = b.relid AND g.privilege_type = b.privilege
                AND CASE WHEN g.grantee = 0 THEN true ELSE pg_has_role(b.oid, g.grantee, 'MEMBER') END)
        ORDER BY 1, 2, 3""",
        (list(roles),),
    ).fetchall()
    return [Leak(role=r[0], table=r[1], privilege=r[2], through=r[3]) for r in rows]


def writers(conn: Connection[Any], roles: Sequence[str]) -> list[Writer]:
    """Sessions of ``roles`` with an open transaction in this database, oldest first (role: one with pg_monitor).
    Raises :class:`Refused` when the server hides them: silence must not be read as quiet."""
    # Within one transaction the view is cached.
    conn.execute("SELECT pg_stat_clear_snapshot()")
    rows = conn.execute(
        """SELECT pid, usename::text, state, xact_start, backend_type IS NULL FROM pg_stat_activity
           WHERE usename = ANY (%s) AND datname = current_database() AND pid <> pg_backend_pid()
             AND (xact_start IS NOT NULL OR backend_type IS NULL) ORDER BY xact_start, pid""",
        (list(roles),),
    ).fetchall()
    if any(r[4] for r in rows):
        raise Refused(f"role {conn.info.user} may not see the sessions of other roles: grant it pg_monitor")
    return [Writer(pid=r[0], role=r[1], state=r[2] or "", since=r[3]) for r in rows]


def last_write(conn: Connection[Any], roles: Sequence[str], *, since: Position | None = None) -> dict[str, datetime]:
    """Newest journal time per role, of those that wrote (any of our roles). With ``since``, only what committed after
    it is looked at, which an index answers."""
    condition = positions.after(since) if since else sql.SQL("true")
    newest: dict[str, datetime] = {}
    for table in stored(conn).values():
        rows = conn.execute(
            sql.SQL(
                "SELECT rj_actor::text, max(rj_at) FROM {} WHERE rj_actor = ANY (%s::name[]) AND {} GROUP BY 1"
            ).format(sql.Identifier("reinstate", table.twin), condition),
            (list(roles),),
        ).fetchall()
        for role, at in rows:
            newest[role] = max(at, newest.get(role, at))
    return newest


def wait_quiet(
    conn: Connection[Any],
    roles: Sequence[str],
    *,
    since: Position,
    settle_s: float,
    timeout_s: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Quiet:
    """Wait until ``roles`` have no transaction open and wrote nothing for ``settle_s`` (role: recoverer; ends the
    transaction of ``conn``). ``since``: a position from before; what was written later is looked at."""
    start = clock()
    quiet_from: float | None = None
    seen: datetime | None = None
    while True:
        open_now = tuple(writers(conn, roles))
        newest = max(last_write(conn, roles, since=since).values(), default=None)
        conn.rollback()
        now = clock()
        if open_now or newest != seen or quiet_from is None:
            quiet_from, seen = now, newest
        if not open_now and now - quiet_from >= settle_s:
            return Quiet(quiet=True, writers=(), last_write=newest, waited_s=now - start)
        if now - start >= timeout_s:
            return Quiet(quiet=False, writers=open_now, last_write=newest, waited_s=now - start)
        sleep(min(0.05, settle_s / 4) if settle_s else 0.01)
