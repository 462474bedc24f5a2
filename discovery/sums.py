"""Totals that hold: a number in a row that always is the sum over the rows that refer to it. Role: capturer.

Found by trying: every number of the parent against sums of numbers, and of products of two, over the children. Only
what holds for every row, in tables small enough to be read in full, is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import psycopg
from psycopg import sql

from discovery.facts import ForeignKey, TableFact
from discovery.names import dotted, quoted
from discovery.profile import TIME_LIMIT_S, WHOLE_ROWS, TableProfile

ENOUGH_PARENTS = 20
ENOUGH_VALUES = 3
MOST_TERMS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """``parent.column`` is the sum of ``term`` over the rows of ``child`` that refer to it (and meet ``only``)."""

    parent: str
    column: str
    child: str
    reference: ForeignKey
    term: str
    only: str | None = None

    @property
    def said(self) -> str:
        """In words."""
        where = f" that are {self.only}" if self.only else ""
        return f"{self.column} is the sum of {self.term} over the {self.child.partition('.')[2]}{where}"

    def subquery(self, alias: str) -> str:
        """The sums by reference, to be joined."""
        own = quoted(self.reference.columns[0])
        only = f" WHERE {quoted(self.only)}" if self.only else ""
        source = f"FROM {dotted(self.child)}{only}"
        return f"(SELECT {own}, sum({self.term}) AS total {source} GROUP BY {own}) AS {alias}"


def totals(
    conn: psycopg.Connection[Any],
    tables: Mapping[str, TableFact],
    profiles: Mapping[str, TableProfile],
    references: Mapping[str, Sequence[ForeignKey]],
) -> list[Total]:
    """Every total that holds now. ``references`` are those of each child, enforced or not."""
    found: list[Total] = []
    for child in sorted(references):
        for reference in references[child]:
            if not _affordable(profiles, child, reference) or reference.table not in tables:
                continue
            parent = tables[reference.table]
            candidates = list(_candidates(parent, tables[child], reference, references))[: MOST_TERMS * 4]
            if candidates:
                found += _holding(conn, parent, reference, candidates)
    return found


def _affordable(profiles: Mapping[str, TableProfile], child: str, reference: ForeignKey) -> bool:
    looked = [profiles.get(t) for t in (child, reference.table)]
    small = all(p is not None and not p.sampled and 0 < p.looked < WHOLE_ROWS for p in looked)
    return small and len(reference.columns) == 1 and child != reference.table


def _candidates(
    parent: TableFact, child: TableFact, reference: ForeignKey, references: Mapping[str, Sequence[ForeignKey]]
) -> Iterator[Total]:
    """Sums of flagged rows first: where all rows are flagged so far, the flag is what makes a row count. Then sums of
    one number before products: the simpler of two that hold is the better guess."""
    numbers = [c.name for c in child.columns if _counts(child, c.name, references)]
    flags: list[str | None] = [*(c.name for c in child.columns if c.category == "B"), None]
    terms = [quoted(n) for n in numbers] + [f"{quoted(a)} * {quoted(b)}" for a, b in combinations(numbers, 2)]
    for column in (c.name for c in parent.columns if _counts(parent, c.name, references)):
        for only in flags:
            for term in terms[:MOST_TERMS]:
                yield Total(
                    parent=parent.name, column=column, child=child.name, reference=reference, term=term, only=only
                )


def _counts(table: TableFact, column: str, references: Mapping[str, Sequence[ForeignKey]]) -> bool:
    fact = table.column(column)
    refers = any(column in r.columns for r in references.get(table.name, ()))
    return fact is not None and fact.category == "N" and column not in table.key and not refers


def _holding(
    conn: psycopg.Connection[Any], parent: TableFact, reference: ForeignKey, candidates: Sequence[Total]
) -> list[Total]:
    """Those of the candidates that hold for every parent, one for each column of it: one scan of both tables."""
    terms = list(dict.fromkeys((c.term, c.only) for c in candidates))
    sums = ", ".join(
        f"coalesce(sum({term}){f' FILTER (WHERE {quoted(only)})' if only else ''}, 0) AS s{n}"
        for n, (term, only) in enumerate(terms)
    )
    own, to = quoted(reference.columns[0]), quoted(reference.to[0])
    asked = ", ".join(
        f"count(*) FILTER (WHERE p.{quoted(c.column)} IS DISTINCT FROM "
        f"coalesce(s.s{terms.index((c.term, c.only))}, 0)), "
        f"count(DISTINCT p.{quoted(c.column)}) FILTER (WHERE s.{own} IS NOT NULL)"
        for c in candidates
    )
    query = (
        f"SELECT count(s.{own}), {asked} FROM {dotted(parent.name)} AS p LEFT JOIN "  # noqa: S608 - quoted names
        f"(SELECT {own}, {sums} FROM {dotted(candidates[0].child)} GROUP BY {own}) AS s ON s.{own} = p.{to}"
    )
    try:
        with conn.transaction():
            conn.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(f"{TIME_LIMIT_S}s")))
            row = conn.execute(query.encode()).fetchone()
    except psycopg.Error:
        return []
    if row is None or row[0] < ENOUGH_PARENTS:
        return []
    found: dict[str, Total] = {}
    for candidate, wrong, values in zip(candidates, row[1::2], row[2::2], strict=True):
        if wrong == 0 and values >= ENOUGH_VALUES:
            found.setdefault(candidate.column, candidate)
    return list(found.values())
