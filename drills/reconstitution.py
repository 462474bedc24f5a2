"""How exactly a recovery repaired what was wrong, counted from four dumps. Pure.

*Wrong* is a row that is not as the oracle has it at that moment, one that only one side has included. *Changed by the
recovery* is a row whose wrongness the recovery touched: it was put right, or it is wrong in another way than before,
or it was right (or not there) and is wrong now. What events did in between is in both the app and the oracle, so it
does not count.

- precision = changed rows that were wrong / changed rows
- recall = wrong rows put right / wrong rows

Both are ``None`` where there is nothing to divide by.
"""

from __future__ import annotations

from dataclasses import dataclass

from drills.dumps import Dump, Row
from drills.judge import EXCLUDED_FIELDS, Comparison, compare


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconstitution:
    """Counts of rows."""

    wrong: int
    put_right: int
    changed: int
    changed_wrong: int
    harmed: int
    """Right or absent before, wrong after."""

    @property
    def precision(self) -> float | None:
        return self.changed_wrong / self.changed if self.changed else None

    @property
    def recall(self) -> float | None:
        return self.put_right / self.wrong if self.wrong else None


def count(*, before: Dump, oracle_before: Dump, after: Dump, oracle: Dump) -> Reconstitution:
    """Compare the app with the oracle before and after the recovery."""
    return between(compare(before, oracle_before), compare(after, oracle), before=before, after=after)


def between(earlier: Comparison, later: Comparison, *, before: Dump, after: Dump) -> Reconstitution:
    """The same where the comparisons are made already."""
    was, now = earlier.wrong, later.wrong
    put_right = sum(1 for row in was if row not in now)
    moved = sum(1 for row in was if row in now and _content(before, row) != _content(after, row))
    harmed = sum(1 for row in now if row not in was)
    return Reconstitution(
        wrong=len(was),
        put_right=put_right,
        changed=put_right + moved + harmed,
        changed_wrong=put_right + moved,
        harmed=harmed,
    )


def _content(dump: Dump, row: tuple[str, Row]) -> dict[str, str] | None:
    table, key = row
    found = dump[table].row(key) if table in dump else None
    return None if found is None else {c: v for c, v in found.items() if (table, c) not in EXCLUDED_FIELDS}
