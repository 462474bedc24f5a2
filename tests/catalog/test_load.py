"""A catalogue is read whole and right, or refused with the line of everything that is wrong."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.errors import CatalogError, Invalid, UnknownApp
from catalog.load import folder, load
from tests.catalog.conftest import SHOP

Write = Callable[..., Path]


def refusal(path: Path) -> Invalid:
    with pytest.raises(Invalid) as caught:
        load(path)
    for problem in caught.value.problems:
        assert "\n" not in str(problem)
        assert re.match(r".+\.yaml:\d+: ", str(problem))
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_valid_catalogue_from_a_folder_or_its_file(write: Write) -> None:
    root = write()
    for path in (root, root / "catalog.yaml", str(root)):
        app = load(path).app("shop")
        assert app.workflow("intake").downstream == ("payment",)
        assert app.dependents(frozenset({"intake"})) == {"intake", "payment"}
        assert folder(path) == root


def test_apps_may_lie_in_files_of_their_own(write: Write) -> None:
    root = write()
    body = "\n".join(line[4:] for line in SHOP.splitlines()[1:])
    (root / "apps").mkdir()
    (root / "apps" / "second.yaml").write_text(
        body.replace("- key: shop", "key: second").replace("y: shop", "y: second")
    )
    assert [a.key for a in load(root).apps] == ["shop", "second"]
    (root / "catalog.yaml").write_text("apps: []\n")
    assert [a.key for a in load(root).apps] == ["second"]
    (root / "apps" / "third.yaml").write_text(body.replace("y: shop", "y: second").replace("title: Shop\n", ""))
    [problem] = refusal(root).problems
    assert (problem.file.name, problem.path) == ("third.yaml", "title")


def test_an_unknown_app_is_told_the_known_ones(write: Write) -> None:
    with pytest.raises(UnknownApp, match=r"app 'shp': not in the catalogue\. Use one of: shop"):
        load(write()).app("shp")


@pytest.mark.parametrize(
    ("swap", "line", "path", "says"),
    [
        (("title: Shop", "titel: Shop"), "titel: Shop", "titel", "unknown name. Remove it, or did you mean `title:`?"),
        (("    deputy: grace\n    platform", "    platform"), "- key: shop", "deputy", "required, but not given"),
        (("rto_s: 60", "rto_s: soon"), "rto_s: soon", "objectives.rto_s", "input should be a valid integer"),
        (("kind: fake", "kind: zapier"), "kind: zapier", "platform.kind", "input should be 'n8n', 'node-red', "),
        (("- key: intake", "- key: In take"), "In take", "workflows[0].key", "should match pattern"),
        (("[payment]\n", "[paymnt]\n"), "downstream: [paymnt]", "workflows[0].downstream[0]", "no workflow 'paymnt'"),
        (("[[intake], [payment]]", "[[intake], [pay]]"), "[pay]", "resume_order[1][0]", "no workflow 'pay'"),
        (("[[intake], [payment]]", "[[intake], [intake]]"), "resume_order", "resume_order[1][0]", "named twice"),
        (("shop.items.qty", "shop.itms.qty"), "itms", "workflows[0].writes[1]", "table 'shop.itms' is not declared"),
        (("[shop.orders.total]", "[orders]"), "reads: [orders]", "workflows[1].reads[0]", "'orders' names no table"),
        (
            ("role: wf_payment", "role: wf_intake"),
            "role: wf_intake",
            "workflows[1].role",
            "already role of workflows[0]",
        ),
        (("key: payment", "key: intake"), "- key: intake", "workflows[1].key", "already key of workflows[0]"),
        (("intake.json", "gone.json"), "canary/gone.json", "workflows[0].canary.event", "no readable file"),
        (
            ("duplicates, table: shop.orders", "duplicates, table: shop.x"),
            "shop.x",
            "detectors[0].table",
            "not declared",
        ),
        ((", columns: [ref]", ""), "key: twice", "detectors[0]", "a duplicates detector needs `columns:`"),
        (("kind: duplicates", "kind: rule"), "key: twice", "detectors[0]", "a rule detector needs `sql:`"),
        (
            ("duplicates, table: shop.orders", "volume-drift, table: shop.items"),
            "key: twice",
            "detectors[0]",
            "event_time",
        ),
        (("to: [id]", "to: [id, x]"), "to: [id, x]", "tables[1].references[0]", "do not pair up"),
        (
            ("table: shop.orders, to", "table: shop.gone, to"),
            "shop.gone",
            "tables[1].references[0].table",
            "not declared",
        ),
        (
            ("name: shop.items", "name: shop.orders"),
            "- name: shop.orders",
            "tables[1].name",
            "already name of tables[0]",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    write: Write, swap: tuple[str, str], line: str, path: str, says: str
) -> None:
    problem = next(p for p in refusal(write(*swap)).problems if p.path == f"apps[0].{path}")
    assert says in str(problem)
    assert line in problem.file.read_text().splitlines()[problem.line - 1]


def test_the_line_is_that_of_the_second_of_two_equal_lines(write: Write) -> None:
    [problem] = refusal(write("role: wf_payment", "role: wf_intake")).problems
    assert problem.line == SHOP.splitlines().index("        role: wf_payment") + 1


def test_every_problem_is_reported_in_reading_order(write: Write) -> None:
    error = refusal(write("    title: Shop\n", "", "rto_s: 60", "rto_s: x", "role: wf_payment", "rle: wf_payment"))
    assert [p.path for p in error.problems] == [
        "apps[0].title", "apps[0].objectives.rto_s", "apps[0].workflows[1].role", "apps[0].workflows[1].rle",
    ]  # fmt: skip
    assert str(error).endswith("(3 more)")


def test_a_secret_written_into_the_catalogue_is_refused_and_not_repeated(write: Write) -> None:
    error = refusal(write('api_key: "env:SHOP_KEY"', "api_key: hunter2-hunter2"))
    assert "a secret must be a reference" in str(error)
    assert "hunter2" not in str(error)


def test_a_key_given_twice_is_refused(write: Write) -> None:
    [problem] = refusal(write("    title: Shop\n", "    title: Shop\n    title: Other\n")).problems
    assert (problem.line, problem.path, problem.cause) == (4, "apps[0].title", "this key is given twice")


def test_a_cycle_needs_an_order_to_resume_in(write: Write) -> None:
    cycle = ("reads: [shop.orders.total]", "downstream: [intake]")
    assert load(write(*cycle)).apps
    error = refusal(write(*cycle, "    resume_order: [[intake], [payment]]\n", ""))
    assert {p.path for p in error.problems} == {"apps[0].workflows[0].downstream", "apps[0].workflows[1].downstream"}
    assert "depends on itself through others" in str(error)
    assert "downstream of itself" in str(refusal(write("downstream: [payment]", "downstream: [intake]")))


@pytest.mark.parametrize("content", ["[1]", '"text"', "{"])
def test_a_canary_must_be_a_json_object(write: Write, content: str) -> None:
    root = write()
    (root / "canary" / "intake.json").write_text(content)
    assert "JSON" in str(refusal(root))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("apps:\n  - key: shop\n   title: x\n", 3, "not valid YAML"),
        ("apps: [\n", 2, "not valid YAML"),
        ("", 1, "the file is empty"),
        ("- a\n- b\n", 1, "a mapping is expected here"),
        ("apps: nothing\n", 1, "a list is expected here"),
        ("apps: []\n", 1, "no app is described"),
        ("apps: []\nsecrets: x\n", 2, "unknown name"),
        ("apps:\n  - !!python/object/apply:os.system ['true']\n", 2, "could not determine a constructor"),
        ("apps:\n  - !!int soon\n", 2, "not a int as its tag says"),
        ("apps:\n  - !!bool soon\n", 2, "not a bool as its tag says"),
        ("apps:\n  - just text\n", 2, "input should be a valid dictionary"),
        ("apps: &a\n  - *a\n", 1, "input should be a valid dictionary"),
        ("a: \x01\n", 1, "not valid YAML"),
    ],
)
def test_malformed_yaml_is_one_line_with_its_place(write: Write, text: str, line: int, says: str) -> None:
    problem = refusal(write(text=text)).problems[0]
    assert (problem.line, says in str(problem)) == (line, True), str(problem)


def test_no_file_and_no_text_are_refused(tmp_path: Path) -> None:
    assert "no such file" in str(refusal(tmp_path))
    (tmp_path / "catalog.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in str(refusal(tmp_path))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_whatever_is_cut_or_mangled_the_answer_is_a_catalogue_or_lines(tmp_path: Path, data: st.DataObject) -> None:
    """No input may end in a traceback."""
    start = data.draw(st.integers(0, len(SHOP)))
    end = data.draw(st.integers(start, min(len(SHOP), start + 40)))
    text = (
        SHOP[:start] + data.draw(st.sampled_from(["", ":", "- ", "[", "{", "null", "*x", "\t", "!!int "])) + SHOP[end:]
    )
    (tmp_path / "catalog.yaml").write_text(text)
    (tmp_path / "canary").mkdir(exist_ok=True)
    (tmp_path / "canary" / "intake.json").write_text("{}")
    with contextlib.suppress(CatalogError):
        load(tmp_path)
