"""The draft as YAML, and what is new in a person's text."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery import render
from discovery.draft import Draft
from discovery.yaml_writer import Doubt, Noted, doubts, items, plain, unsure, written

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12) | st.sampled_from(
    ["yes", "null", "1e3", "2026-01-01", "a: b", "- x", "#", "'", '"', "{", "a\nb", " x", "env:NAME", "~", "=", "!!x"]
)
NAME = st.text("abcdefgh_", min_size=1, max_size=6)
SCALAR = TEXT | st.integers() | st.booleans() | st.none() | st.floats(-10, 10)
TREE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAME, inner, min_size=1, max_size=4)
        | st.builds(lambda v, why: Noted(value=v, unsure=(why,)), inner, st.just("who knows? # really: {x}"))
    ),
    max_leaves=14,
)


@given(st.dictionaries(NAME, TREE, min_size=1, max_size=5))
@settings(max_examples=120, deadline=None)
def test_what_is_written_is_what_is_read(tree: dict[str, Any]) -> None:
    text = "\n".join(written(tree))
    assert yaml.safe_load(text) == plain(tree)
    assert text.count("# unsure: who knows?") == len(list(doubts(tree)))
    assert yaml.safe_load("\n".join(items([tree], 4))) == [plain(tree)]


def draft(**lists: Any) -> Draft:
    app = {"key": "shop", "title": "Shop", **lists}
    return Draft(app=app, suites={}, roles={}, keys={}, writers=(), remarks=(Doubt(where="role x", why="who?"),))


def table(name: str) -> dict[str, Any]:
    return {"name": name, "key": ["id"]}


NEW = draft(
    workflows=[{"key": "b", "name": "B", "trigger": unsure({"kind": "webhook"}, "no run")}],
    tables=[table("a.old"), Noted(value=table("a.new"), unsure=("why",))],
    detectors=Noted(value=[{"key": "d", "table": "a.new"}, {"key": "e", "table": "a.old"}], unsure=("look",)),
)

THEIRS = """\
# about us
apps:
    - key: other
      tables: [{name: a.new}]
    -   key: shop   # ours
        workflows:
        -   name: A   # the first
            key: a
            # and its end

        # tables
        tables:
          - {name: a.old,
             key: [id]}
        title: Shop
# the end
"""


def test_new_entries_stand_behind_the_last_of_their_list_and_nothing_else_changes() -> None:
    merged = render.merge(THEIRS, "shop", NEW)
    assert merged.added == ("workflows[b]", "tables[a.new]", "detectors[d]")
    assert {d.why for d in merged.doubts} == {"no run", "why", "who?"}
    kept = iter(merged.text.splitlines())
    assert all(line in kept for line in THEIRS.splitlines())
    other, shop = yaml.safe_load(merged.text)["apps"]
    assert other == {"key": "other", "tables": [{"name": "a.new"}]}
    assert [w["name"] for w in shop["workflows"]] == ["A", "B"]
    assert [t["name"] for t in shop["tables"]] == ["a.old", "a.new"]
    assert shop["detectors"] == [{"key": "d", "table": "a.new"}]
    assert shop["title"] == "Shop"
    assert render.merge(merged.text, "shop", NEW).added == ()


def test_a_list_on_one_line_is_left_to_the_person() -> None:
    merged = render.merge("apps:\n- key: shop\n  tables: [{name: a.old}]\n", "shop", draft(tables=[table("a.new")]))
    assert merged.added == ()
    assert merged.left == ("tables[a.new]",)


def test_a_file_of_one_app_is_extended_too() -> None:
    merged = render.merge("key: shop\ntables:\n- name: a.old\n", "shop", draft(tables=[table("a.new")]))
    assert [t["name"] for t in yaml.safe_load(merged.text)["tables"]] == ["a.old", "a.new"]


def test_an_app_that_the_text_does_not_have_is_an_error() -> None:
    with pytest.raises(KeyError):
        render.merge("apps:\n- key: x\n", "shop", NEW)
