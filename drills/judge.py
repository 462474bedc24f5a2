"""The judge: compares the app's database with the oracle, field by field, and counts what was lost.

Three dumps: before the recovery, after it, and the oracle. What is wrong before is measured against the oracle as it
stood at that moment, because events go on arriving in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from drills.dumps import Dump, Row, TableDump
from drills.events import Event

EXCLUDED_FIELDS = (("desk.orders", "updated_at"), ("desk.products", "updated_at"))
"""The only fields that are not compared: the clock of the last write, which no replay can bring back."""
EXAMPLES = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class WrongField:
    """One field that is not as the oracle has it. ``None``: the row does not exist on that side."""

    table: str
    key: str
    column: str
    found: str | None
    expected: str | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two databases field by field. ``wrong`` holds all columns of each wrong row: column -> (found, expected);
    for a row that only one side has, every column counts as wrong."""

    fields: int
    wrong: dict[tuple[str, Row], dict[str, tuple[str | None, str | None]]] = field(repr=False)
    missing: frozenset[tuple[str, Row]] = frozenset()
    """Rows that the oracle has and the app has not."""

    @property
    def wrong_fields(self) -> int:
        return sum(len(columns) for columns in self.wrong.values())

    def examples(self, limit: int = EXAMPLES) -> list[WrongField]:
        """Some of the wrong fields, from every table and column that has any."""
        seen: Counter[tuple[str, str]] = Counter()
        found = [
            (seen.update([(table, column)]) or seen[table, column],
             WrongField(table=table, key=",".join(key), column=column, found=a, expected=b))
            for (table, key), columns in sorted(self.wrong.items())
            for column, (a, b) in columns.items()
        ]  # fmt: skip
        return [wrong for _, wrong in sorted(found, key=lambda pair: pair[0])[:limit]]

    def by_column(self) -> dict[str, int]:
        return dict(Counter(f"{table}.{c}" for (table, _), columns in self.wrong.items() for c in columns))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The judge's numbers; ``document`` is their JSON form."""

    rows_damaged: int
    rows_missing_before: int
    rows_repaired: int
    legit_events: int
    legit_events_lost: int
    legit_edits_on_damaged_rows: int
    legit_edits_lost: int
    overlapping_run_pairs: int
    fields_compared: int
    wrong_fields_after: int
    wrong_by_column: dict[str, int]
    damaged_by_table: dict[str, int]
    examples: Sequence[WrongField]
    lost: Sequence[str]
    excluded_fields: Sequence[str] = tuple(f"{t}.{c}" for t, c in EXCLUDED_FIELDS)

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "excluded_fields_count": len(self.excluded_fields)}


def compare(found: Dump, expected: Dump) -> Comparison:
    """Every field of every row of both, apart from ``EXCLUDED_FIELDS``. A table or column on one side only is wrong
    in all its rows."""
    fields = 0
    wrong: dict[tuple[str, Row], dict[str, tuple[str | None, str | None]]] = {}
    missing: set[tuple[str, Row]] = set()
    empty = TableDump(columns=(), key=(), lines={})
    for table in sorted(found.keys() | expected.keys()):
        ours, theirs = found.get(table, empty), expected.get(table, empty)
        columns = [c for c in dict.fromkeys((*theirs.columns, *ours.columns)) if (table, c) not in EXCLUDED_FIELDS]
        same_shape = ours.columns == theirs.columns
        for key in ours.lines.keys() | theirs.lines.keys():
            fields += len(columns)
            if same_shape and ours.lines.get(key) == theirs.lines.get(key):
                continue
            a, b = ours.row(key), theirs.row(key)
            if a is None:
                missing.add((table, key))
            differing = {c: (a.get(c) if a else None, b.get(c) if b else None) for c in columns}
            if a is not None and b is not None:
                differing = {c: pair for c, pair in differing.items() if pair[0] != pair[1]}
            if differing:
                wrong[table, key] = differing
    return Comparison(fields=fields, wrong=wrong, missing=frozenset(missing))


def overlapping_pairs(bad: Iterable[tuple[datetime, datetime]], good: Iterable[tuple[datetime, datetime]]) -> int:
    """Pairs (bad run, good run) that ran at the same time. Runs are (start, end)."""
    others = list(good)
    return sum(1 for start, end in bad for s, e in others if start < e and s < end)


def judge(
    *,
    before: Dump,
    oracle_before: Dump,
    after: Dump,
    oracle: Dump,
    events: Sequence[Event],
    pairs: int,
) -> Verdict:
    """The verdict over a drill. ``events`` are all events the app took responsibility for, in order of acceptance."""
    was, now = compare(before, oracle_before), compare(after, oracle)
    damaged = {row: columns for row, columns in was.wrong.items() if row not in was.missing}
    edits = [e for e in events if e.edits and ("desk.orders", (e.row,)) in damaged]
    lost = [e for e in events if _lost(e, now)]
    lost_keys = {e.key for e in lost}
    return Verdict(
        rows_damaged=len(damaged),
        rows_missing_before=len(was.missing),
        rows_repaired=sum(1 for row in damaged if row not in now.wrong),
        legit_events=len(events),
        legit_events_lost=len(lost),
        legit_edits_on_damaged_rows=len(edits),
        legit_edits_lost=sum(1 for e in edits if e.key in lost_keys),
        overlapping_run_pairs=pairs,
        fields_compared=now.fields,
        wrong_fields_after=now.wrong_fields,
        wrong_by_column=now.by_column(),
        damaged_by_table=dict(Counter(table for table, _ in damaged)),
        examples=now.examples(),
        lost=sorted(lost_keys)[:EXAMPLES],
    )


def _lost(event: Event, now: Comparison) -> bool:
    """Whether anything the event did is missing or not as the oracle has it."""
    for table, key, column in event.cells():
        columns = now.wrong.get((table, (key,)))
        if columns and (column == "*" or column in columns):
            return True
    return False
