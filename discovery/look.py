"""One look at a platform and a database: everything a draft is made of. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from discovery import database, platform, profile, relations, sums
from discovery.errors import NothingFound
from discovery.facts import DatabaseFacts, ForeignKey, PlatformFacts
from discovery.profile import TableProfile
from discovery.sums import Total
from discovery.uses import WorkflowUse, uses
from platforms.base import Platform

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was seen. ``held`` are relations that no constraint states and every row meets; ``broken`` those that names
    suggest and rows contradict. ``now`` is the database's time."""

    platform: PlatformFacts
    database: DatabaseFacts
    uses: tuple[WorkflowUse, ...]
    others: tuple[WorkflowUse, ...]
    """Workflows that touch no table of this database."""
    tables: tuple[str, ...]
    profiles: Mapping[str, TableProfile] = field(default_factory=dict)
    held: Mapping[str, tuple[ForeignKey, ...]] = field(default_factory=dict)
    broken: Mapping[str, tuple[ForeignKey, ...]] = field(default_factory=dict)
    totals: tuple[Total, ...] = ()
    now: str = ""


def look(conn: psycopg.Connection[Any], live: Platform, *, say: Say = lambda _: None) -> Seen:
    """Look at all workflows of the platform and at the tables that they touch; rows from one snapshot.

    Raises ``NothingFound`` where no workflow touches a table, ``PlatformError``, and ``psycopg.Error``.
    """
    return at_database(conn, platform.facts(live, say), say=say)


def at_database(conn: psycopg.Connection[Any], seen: PlatformFacts, *, say: Say = lambda _: None) -> Seen:
    """The database's half, for workflows that were read already."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        known = database.facts(conn)
        found = [uses(w, known) for w in seen.workflows]
        names = relations.app_tables(found, known)
        if not names:
            raise NothingFound(
                f"database {known.name}: none of the {len(found)} workflows uses a table of it; check that platform "
                "and database belong together, and that the role may see the tables"
            )
        tables = [known.tables[n] for n in names]
        profiles = profile.profile(conn, tables, say)
        held: dict[str, tuple[ForeignKey, ...]] = {}
        broken: dict[str, tuple[ForeignKey, ...]] = {}
        for table in tables:
            judged = [(r, profile.holds(conn, table, r)) for r in relations.possible_references(table, tables)]
            held[table.name] = tuple(r for r, fits in judged if fits)
            broken[table.name] = tuple(r for r, fits in judged if fits is False)
        say("looking for totals that hold")
        every = {t.name: (*t.foreign_keys, *held[t.name]) for t in tables}
        totals = sums.totals(conn, {t.name: t for t in tables}, profiles, every)
        row = conn.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::text").fetchone()
    mine = [u for u in found if u.tables]
    return Seen(
        platform=seen,
        database=known,
        uses=tuple(mine),
        others=tuple(u for u in found if u not in mine),
        tables=names,
        profiles=profiles,
        held=held,
        broken=broken,
        totals=tuple(totals),
        now=row[0] if row else "",
    )
