"""The first suite of a table: what it states, and what it never gives away."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from discovery.facts import ForeignKey
from discovery.profile import ColumnProfile, TableProfile
from discovery.suites import suite
from tests.discovery.shapes import table

PEOPLE = table("a.people", "id gender n:salary team n:level note", references=())


def drafted(profile: TableProfile, **more: Any) -> dict[str, Any]:
    return suite(PEOPLE, profile, name="people", **more)


def seen(rows: int) -> TableProfile:
    numbers = ColumnProfile(nulls=0, distinct=30, minimum=Decimal(1), maximum=Decimal(90))
    return TableProfile(
        rows=rows,
        looked=rows,
        sampled=False,
        columns={
            "id": ColumnProfile(nulls=0, distinct=rows),
            "gender": ColumnProfile(nulls=0, distinct=2, values=("secret-a", "secret-b")),
            "salary": ColumnProfile(nulls=0, distinct=30, minimum=Decimal(4711), maximum=Decimal(4712)),
            "team": ColumnProfile(nulls=0, distinct=2, values=("red", "blue")),
            "level": numbers,
            "note": ColumnProfile(nulls=3, distinct=1, values=("left at noon",)),
        },
    )


def test_masked_columns_and_free_text_keep_their_values() -> None:
    text = json.dumps(drafted(seen(100), masked={"gender", "salary"}))
    assert not [v for v in ("secret-a", "4711", "4712", "14000", "left at noon") if v in text]
    assert '"value_set": ["red", "blue"]' in text
    assert '"column": "level", "min_value": 0, "max_value": 270' in text


def test_few_rows_say_nothing_about_what_will_come() -> None:
    kinds = {e["type"] for e in drafted(seen(5))["expectations"]}
    assert kinds == {
        "expect_table_columns_to_match_set",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_unique",
    }


def test_keys_of_several_columns_and_relations_are_stated() -> None:
    relation = ForeignKey(columns=("team",), table="a.teams", to=("name",))
    found = drafted(seen(50), unique=[("team", "level")], references=[relation])["expectations"]
    assert {"column_list": ["team", "level"]} in [e["kwargs"] for e in found]
    [query] = [e["kwargs"]["unexpected_rows_query"] for e in found if "unexpected_rows_query" in e["kwargs"]]
    assert query == (
        "SELECT c.id, c.team FROM {batch} AS c LEFT JOIN a.teams AS p ON p.name = c.team "
        "WHERE c.team IS NOT NULL AND p.name IS NULL"
    )
    assert {"min_value": 25} in [e["kwargs"] for e in found]
