"""What was written after each of several positions, added up by the database: what the journal holds may be millions
of transactions, what comes here is a few lines for each position.

Transactions that were unseen by the same positions go together. A transaction is in one such class, so numbers of
transactions of several classes add up. Nearly always the class is how many of the positions end at or below its number
(:data:`_QUERY`, ``later``); only of those that were open at a position, the positions are listed (``odd``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg import Connection, sql

from snapshots import position
from snapshots.journal import shape
from snapshots.model import Position

RUNS = 20
"""So many runs are listed for each position; the others are counted."""

_WRITTEN = """
SELECT {name}::text AS table_name, rj_xid AS xid, rj_actor::text AS actor, rj_run AS run,
       count(*) FILTER (WHERE NOT (rj_op = 'U' AND rj_side = 'o')) AS rows
FROM {twin} WHERE {when} GROUP BY rj_xid, rj_actor, rj_run
"""
"""An update counts once, although it leaves two images."""

_QUERY = """
WITH written AS ({written}), placed AS MATERIALIZED (
    SELECT w.*, w.xid = ANY ({bad}::xid8[]) AS bad, width_bucket(w.xid, {ends}::xid8[]) AS later,
           CASE WHEN width_bucket(w.xid, {ends}::xid8[]) <> width_bucket(w.xid, {begins}::xid8[])
                THEN ARRAY(SELECT p.number::int - 1
                           FROM unnest({snapshots}::text[]) WITH ORDINALITY AS p(snapshot, number)
                           WHERE NOT pg_visible_in_snapshot(w.xid, p.snapshot::pg_snapshot)) END AS odd
    FROM written w
), by_run AS MATERIALIZED (
    SELECT later, odd, actor, run, sum(rows)::bigint AS rows, count(DISTINCT xid) AS transactions,
           array_agg(DISTINCT table_name) AS tables, bool_or(bad) AS bad,
           count(*) OVER (PARTITION BY actor, run) AS classes
    FROM placed WHERE run <> '' GROUP BY later, odd, actor, run
), most AS (
    SELECT r.*, row_number() OVER (PARTITION BY later, odd
                                   ORDER BY rows DESC, actor COLLATE "C", run COLLATE "C") AS rank,
           count(*) OVER (PARTITION BY later, odd) AS in_all
    FROM by_run r WHERE classes = 1
)
SELECT later, odd, actor, run, rows, transactions, tables, bad, in_all FROM most WHERE rank <= {runs}
UNION ALL
SELECT later, odd, actor, run, rows, transactions, tables, bad, NULL FROM by_run WHERE classes > 1
UNION ALL
SELECT later, odd, actor, NULL, sum(rows)::bigint, count(DISTINCT xid),
       CASE WHEN grouping(table_name) = 0 THEN ARRAY[table_name] END, bad, NULL
FROM placed GROUP BY GROUPING SETS ((later, odd, bad, actor), (later, odd, bad, actor, table_name))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Row changes by one actor (and, listed apart, one run). ``bad``: the incident's diagnosis blames them."""

    actor: str
    run: str | None
    rows: int
    transactions: int
    tables: tuple[str, ...]
    bad: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What was written after one position. ``tables`` and ``actors`` count what nobody blames, ``damage`` the rest;
    ``runs`` are the largest of ``runs_in_all``, blamed or not."""

    tables: dict[str, int] = field(default_factory=dict)
    actors: tuple[Written, ...] = ()
    damage: int = 0
    runs: tuple[Written, ...] = ()
    runs_in_all: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """One line of the answer: ``places`` are the positions that had not seen the transactions of class ``kind``.
    Without a run and with ``tables`` it is about one table, without either about all of the actor's. ``in_all``: so
    many runs has the class that are in no other, this one among them."""

    kind: tuple[int, tuple[int, ...]]
    places: frozenset[int]
    written: Written
    in_all: int | None


def after(
    conn: Connection[Any], places: Sequence[Position], tables: Sequence[str], bad: Collection[int] = ()
) -> tuple[Work, ...]:
    """What journaled transactions wrote to ``tables`` after each of ``places`` (of this server), in their order (any of
    our roles); those before all of them are not looked at. ``bad`` are the transactions that are blamed."""
    if not places:
        return ()
    lines = _lines(conn, places, tables, bad)
    return tuple(_work([line for line in lines if number in line.places]) for number in range(len(places)))


def _lines(
    conn: Connection[Any], places: Sequence[Position], tables: Sequence[str], bad: Collection[int]
) -> list[_Line]:
    since = min(places, key=lambda p: p.at)
    parts = [
        sql.SQL(_WRITTEN).format(
            name=sql.Literal(t.name), twin=sql.Identifier("reinstate", t.twin), when=position.after(since)
        )
        for t in shape.stored(conn).values()
        if t.name in tables
    ]
    if not parts:
        return []
    by_end = sorted(range(len(places)), key=lambda number: _bounds(places[number])[1])
    query = sql.SQL(_QUERY).format(
        written=sql.SQL(" UNION ALL ").join(parts),
        bad=_array(sorted(bad)),
        ends=_array(_bounds(places[number])[1] for number in by_end),
        begins=_array(sorted(_bounds(place)[0] for place in places)),
        snapshots=sql.Literal([place.snapshot for place in places]),
        runs=sql.Literal(RUNS),
    )
    return [
        _Line(
            kind=(later, tuple(odd or ())),
            places=frozenset(by_end[:later] if odd is None else odd),
            written=Written(
                actor=actor, run=run, rows=rows, transactions=number, tables=tuple(named or ()), bad=blamed
            ),
            in_all=in_all,
        )
        for later, odd, actor, run, rows, number, named, blamed, in_all in conn.execute(query).fetchall()
    ]


def _bounds(place: Position) -> tuple[int, int]:
    """The oldest transaction that was open, and the first that had not begun."""
    lowest, highest, _ = place.snapshot.split(":")
    return int(lowest), int(highest)


def _array(numbers: Iterable[int]) -> sql.Literal:
    """Text of an array, which the database reads once and not for each row."""
    return sql.Literal(f"{{{','.join(map(str, numbers))}}}")


def _work(lines: Sequence[_Line]) -> Work:
    runs = _merged(line.written for line in lines if line.written.run)
    whole = {line.kind: line.in_all for line in lines if line.in_all is not None}
    parts = {(w.actor, w.run) for line in lines if line.in_all is None and (w := line.written).run}
    by_actor = [w for line in lines if not (w := line.written).run and not w.bad]
    tables: dict[str, int] = {}
    for written in by_actor:
        for table in written.tables:
            tables[table] = tables.get(table, 0) + written.rows
    # Lines about one table say which tables those are, and nothing else that the lines about all do not say.
    actors = _merged(replace(w, rows=0, transactions=0) if w.tables else w for w in by_actor)
    return Work(
        tables=dict(sorted(tables.items(), key=lambda t: (-t[1], t[0]))),
        actors=actors,
        damage=sum(w.rows for line in lines if not (w := line.written).run and w.bad and w.tables),
        runs=runs[:RUNS],
        runs_in_all=sum(whole.values()) + len(parts),
    )


def _merged(parts: Iterable[Written]) -> tuple[Written, ...]:
    """One entry for each actor and run, the largest first."""
    made: dict[tuple[str, str | None], Written] = {}
    for part in parts:
        known = made.get((part.actor, part.run))
        made[part.actor, part.run] = part if known is None else replace(
            known,
            rows=known.rows + part.rows,
            transactions=known.transactions + part.transactions,
            tables=tuple({*known.tables, *part.tables}),
            bad=known.bad or part.bad,
        )  # fmt: skip
    found = (replace(w, tables=tuple(sorted(w.tables))) for w in made.values())
    return tuple(sorted(found, key=lambda w: (-w.rows, w.actor, w.run or "")))
