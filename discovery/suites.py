"""The first suite of a table, from its shape and its profile. Pure: JSON values as `checks/` holds them.

What it states held for every row that was looked at, with room for what is to come: bounds are widened, the number of
rows may halve. Values of a column that is about a person never appear.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from discovery import guesses
from discovery.facts import ColumnFact, ForeignKey, TableFact
from discovery.names import dotted, quoted
from discovery.profile import ColumnProfile, TableProfile
from discovery.sums import Total

ENOUGH_ROWS = 20
"""Fewer rows say nothing about bounds and sets."""
ROOM = 2
"""Bounds are widened by this many times the span seen."""
FLOOR_SHARE = 0.5
YEARS_BACK = 5

Expectation = dict[str, Any]


def suite(
    table: TableFact,
    profile: TableProfile,
    *,
    name: str,
    references: Sequence[ForeignKey] = (),
    unique: Sequence[Sequence[str]] = (),
    totals: Sequence[Total] = (),
    masked: Collection[str] = (),
    now: str = "",
) -> dict[str, Any]:
    """The suite. ``references`` and ``unique`` are the relations and business keys beside those that the database
    enforces; ``masked`` columns hold personal data; ``now`` is the database's time in ISO form."""
    expectations: list[Expectation] = [
        _of("expect_table_columns_to_match_set", column_set=[c.name for c in table.columns], exact_match=False)
    ]
    if profile.looked >= ENOUGH_ROWS:
        floor = int(profile.rows * FLOOR_SHARE)
        expectations.append(_of("expect_table_row_count_to_be_between", min_value=floor))
    keys = [k for k in (table.key, *table.unique, *unique) if k]
    expectations += [_of("expect_column_values_to_not_be_null", column=c) for c in _never_empty(table, profile)]
    for key in dict.fromkeys(tuple(k) for k in keys):
        expectations.append(_unique(key))
    pointers = {c for r in (*table.foreign_keys, *references) for c in r.columns} | {c for k in keys for c in k}
    for column in table.columns:
        seen = profile.column(column.name)
        if seen is not None and column.name not in masked and column.name not in pointers:
            expectations += _values(table, column, seen, profile, now)
    expectations += [_reference(table, r) for r in dict.fromkeys((*table.foreign_keys, *references))]
    expectations += [_total(table, t) for t in totals if t.parent == table.name]
    return {"name": name, "table": table.name, "expectations": expectations}


def _of(kind: str, **kwargs: Any) -> Expectation:
    return {"type": kind, "kwargs": kwargs}


def _never_empty(table: TableFact, profile: TableProfile) -> list[str]:
    """Columns that the database or all rows say are always filled, the key first."""
    found = list(table.key)
    for column in table.columns:
        seen = profile.column(column.name)
        full = seen is not None and seen.nulls == 0 and profile.looked >= ENOUGH_ROWS
        if column.name not in found and (column.not_null or full):
            found.append(column.name)
    return found


def _unique(key: Sequence[str]) -> Expectation:
    if len(key) == 1:
        return _of("expect_column_values_to_be_unique", column=key[0])
    return _of("expect_compound_columns_to_be_unique", column_list=list(key))


def _values(
    table: TableFact, column: ColumnFact, seen: ColumnProfile, profile: TableProfile, now: str
) -> list[Expectation]:
    if profile.looked < ENOUGH_ROWS:
        return []
    if seen.values and not guesses.free_text(column.name):
        return [_of("expect_column_values_to_be_in_set", column=column.name, value_set=list(seen.values))]
    if column.category == "N" and (seen.distinct or 0) >= 3 and isinstance(seen.minimum, Decimal):
        low, high = bounds(seen.minimum, seen.maximum)
        return [_of("expect_column_values_to_be_between", column=column.name, min_value=low, max_value=high)]
    if column.category == "D" and isinstance(seen.minimum, str) and seen.minimum[:4].isdigit():
        return [_time(table, column, seen, now)]
    return []


def bounds(low: Decimal, high: Decimal) -> tuple[int | float, int | float]:
    """Wider bounds: a number that was never negative stays so."""
    span = max(high - low, abs(high), Decimal(1))
    bottom = Decimal(0) if low >= 0 else _rough(low - ROOM * span, ROUND_FLOOR)
    return _number(bottom), _number(_rough(high + ROOM * span, ROUND_CEILING))


def _rough(value: Decimal, rounding: str) -> Decimal:
    """Two digits that count."""
    if value == 0:
        return value
    step = Decimal(10) ** (value.adjusted() - 1)
    return (value / step).to_integral_value(rounding=rounding) * step


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _time(table: TableFact, column: ColumnFact, seen: ColumnProfile, now: str) -> Expectation:
    """Not before a few years before the first one; not in the future, where none ever was."""
    name = quoted(column.name)
    kind = column.type.partition("(")[0].split(" ")[0]
    first = f"{max(int(str(seen.minimum)[:4]) - YEARS_BACK, 1):04d}-01-01"
    zone = "timestamptz" if "with time zone" in column.type else kind
    late = f"{name} > now() + interval '5 minutes' OR " if now and str(seen.maximum)[:19] <= now[:19] else ""
    shown = ", ".join(quoted(c) for c in dict.fromkeys((*table.key, column.name)))
    until = " and now" if late else ""
    return _of(
        "unexpected_rows_expectation",
        unexpected_rows_query=f"SELECT {shown} FROM {{batch}} WHERE {late}{name} < {zone} '{first}'",  # noqa: S608 - quoted
        description=f"{column.name} lies between {first[:4]}{until}"
        if until
        else f"{column.name} is not before {first[:4]}",
    )


def _reference(table: TableFact, reference: ForeignKey) -> Expectation:
    on = " AND ".join(
        f"p.{quoted(to)} = c.{quoted(own)}" for own, to in zip(reference.columns, reference.to, strict=True)
    )
    given = " AND ".join(f"c.{quoted(own)} IS NOT NULL" for own in reference.columns)
    shown = ", ".join(f"c.{quoted(c)}" for c in dict.fromkeys((*table.key, *reference.columns)))
    return _of(
        "unexpected_rows_expectation",
        unexpected_rows_query=(
            f"SELECT {shown} FROM {{batch}} AS c LEFT JOIN {dotted(reference.table)} AS p ON {on} "  # noqa: S608 - quoted
            f"WHERE {given} AND p.{quoted(reference.to[0])} IS NULL"
        ),
        description=f"{', '.join(reference.columns)} is in {reference.table}",
    )


def _total(table: TableFact, total: Total) -> Expectation:
    own, to = quoted(total.reference.columns[0]), quoted(total.reference.to[0])
    shown = ", ".join(f"p.{quoted(c)}" for c in dict.fromkeys((*table.key, total.column)))
    return _of(
        "unexpected_rows_expectation",
        unexpected_rows_query=(
            f"SELECT {shown}, s.total FROM {{batch}} AS p LEFT JOIN {total.subquery('s')} ON s.{own} = p.{to} "  # noqa: S608
            f"WHERE p.{quoted(total.column)} IS DISTINCT FROM coalesce(s.total, 0)"
        ),
        description=total.said,
    )
