"""Detectors that point at single rows: duplicates, orphans, partial writes, broken rules, deleted rows.

Each function gives a query of the violating rows that exist live now: the key as ``rj_key`` (text array) and
``rj_first``, by which they are ordered.
"""

from __future__ import annotations

from psycopg import sql

from catalog.models import Reference
from checks.delta import Twin, changed, columns, given, same, texts, trusted
from snapshots.model import Position
from snapshots.position import after


def duplicates(
    twin: Twin, business_key: tuple[str, ...], since: Position, before: sql.Composable | None
) -> sql.Composed:
    """Changed rows beyond the first of their business key. An unchanged row comes first, else the one changed first;
    rows with a NULL in the business key are never alike."""
    return sql.SQL(
        "WITH changed AS MATERIALIZED ({changed}), "
        "touched AS (SELECT DISTINCT {r_business} FROM {live} AS r JOIN changed AS c ON {same_key} WHERE {given}), "
        "alike AS (SELECT {r_key}, c.rj_first, "
        "row_number() OVER (PARTITION BY {r_business} ORDER BY c.rj_first NULLS FIRST, {r_key}) AS rj_rank "
        "FROM {live} AS r JOIN touched AS g ON {same_business} LEFT JOIN changed AS c ON {same_key}) "
        "SELECT {text} AS rj_key, a.rj_first FROM alike AS a WHERE a.rj_rank > 1 AND a.rj_first IS NOT NULL"
    ).format(
        changed=changed(twin, since, before=before),
        live=twin.live,
        r_key=columns("r", twin.key),
        r_business=columns("r", business_key),
        same_key=same("r", twin.key, "c"),
        same_business=same("r", business_key, "g"),
        given=given("r", business_key),
        text=texts("a", twin.key),
    )


def orphans(child: Twin, reference: Reference, since: Position, before: sql.Composable | None) -> sql.Composed:
    """Changed rows that name a parent which does not exist."""
    return sql.SQL(
        "WITH changed AS MATERIALIZED ({changed}) "
        "SELECT {text} AS rj_key, c.rj_first FROM {live} AS r JOIN changed AS c ON {same_key} "
        "WHERE {given} AND NOT EXISTS (SELECT FROM {parent} AS p WHERE {same_parent})"
    ).format(
        changed=changed(child, since, before=before),
        live=child.live,
        text=texts("r", child.key),
        same_key=same("r", child.key, "c"),
        given=given("r", reference.columns),
        parent=sql.Identifier(*reference.table.split(".")),
        same_parent=same("r", reference.columns, "p", reference.to),
    )


def bereft(
    child: str, parent: Twin, reference: Reference, since: Position, before: sql.Composable | None
) -> sql.Composed:
    """Removed parents (in the journal) that live rows of ``child`` still name, with the number of those rows."""
    return sql.SQL(
        "WITH changed AS MATERIALIZED ({changed}), "
        "gone AS (SELECT {key}, {to}, min(c.rj_first) AS rj_first FROM changed AS c JOIN {twin} AS t ON {same_key} "
        "WHERE t.rj_side = 'o' AND {after} AND NOT EXISTS (SELECT FROM {live} AS p WHERE {same_parent}) "
        "GROUP BY {group}) "
        "SELECT {text} AS rj_key, g.rj_first, count(*) AS rj_rows FROM gone AS g JOIN {child} AS r ON {same_child} "
        "GROUP BY {g_key}, g.rj_first"
    ).format(
        changed=changed(parent, since, before=before),
        key=columns("c", parent.key),
        to=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.Identifier("t", c), sql.Identifier(f"rj_to_{i}"))
            for i, c in enumerate(reference.to)
        ),
        group=columns("c", parent.key) + sql.SQL(", ") + columns("t", reference.to),
        twin=parent.journal,
        after=after(since, sql.Identifier("t", "rj_xid")),
        same_key=same("t", parent.key, "c"),
        live=parent.live,
        same_parent=same("p", reference.to, "t"),
        text=texts("g", parent.key),
        child=sql.Identifier(*child.split(".")),
        same_child=same("r", reference.columns, "g", tuple(f"rj_to_{i}" for i in range(len(reference.to)))),
        g_key=columns("g", parent.key),
    )


def partial(parent: Twin, children: Reference, since: Position, before: sql.Composable | None) -> sql.Composed:
    """Changed rows that have no child yet."""
    return sql.SQL(
        "WITH changed AS MATERIALIZED ({changed}) "
        "SELECT {text} AS rj_key, c.rj_first FROM {live} AS r JOIN changed AS c ON {same_key} "
        "WHERE NOT EXISTS (SELECT FROM {child} AS k WHERE {same_child})"
    ).format(
        changed=changed(parent, since, before=before),
        live=parent.live,
        text=texts("r", parent.key),
        same_key=same("r", parent.key, "c"),
        child=sql.Identifier(*children.table.split(".")),
        same_child=same("k", children.columns, "r", children.to),
    )


def rule(twin: Twin, condition: str, since: Position, before: sql.Composable | None) -> sql.Composed:
    """Changed rows for which ``condition`` over ``r`` is false."""
    return sql.SQL(
        "WITH changed AS MATERIALIZED ({changed}) "
        "SELECT {text} AS rj_key, c.rj_first FROM {live} AS r JOIN changed AS c ON {same_key} "
        "WHERE ({condition}) IS FALSE"
    ).format(
        changed=changed(twin, since, before=before),
        live=twin.live,
        text=texts("r", twin.key),
        same_key=same("r", twin.key, "c"),
        condition=trusted(condition),
    )


def deleted(twin: Twin, since: Position) -> sql.Composed:
    """Keys that were deleted and are not there now, each with who deleted it last, in the order of deletion. A
    truncated row counts as deleted; what an undo took away does not."""
    return sql.SQL(
        "SELECT g.rj_actor, g.rj_key FROM (SELECT DISTINCT ON ({key}) {key}, t.rj_actor::text AS rj_actor, {text} AS "
        "rj_key, t.rj_seq FROM {twin} AS t WHERE {after} AND t.rj_op IN ('D', 'T') AND t.rj_side = 'o' "
        "ORDER BY {key}, t.rj_seq DESC) AS g WHERE g.rj_actor NOT IN (SELECT s.value FROM reinstate.setting AS s "
        "WHERE s.name = 'recoverer') "
        "AND NOT EXISTS (SELECT FROM {live} AS r WHERE {same}) ORDER BY g.rj_seq"
    ).format(
        key=columns("t", twin.key),
        text=texts("t", twin.key),
        twin=twin.journal,
        after=after(since, sql.Identifier("t", "rj_xid")),
        live=twin.live,
        same=same("r", twin.key, "g"),
    )
