"""The report as Markdown: what is said is said, and whatever the record holds stays text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from incidents import record
from incidents.report import markdown
from incidents.report.collect import collect
from incidents.report.escape import code, table, text
from ledger import kinds
from tests.console.report_desk import HASH, Teller

HOSTILE = "<script>x</script> | # *a* _b_ `c` [d](http://evil.example) ![e](f) www.evil.example\n\n# heading\n---\n&lt;"
BARE = {"text", "softbreak"}


@pytest.fixture
def teller(tmp_path: Path) -> Iterator[Teller]:
    made = Teller(tmp_path)
    yield made
    made.ledger.close()


def parsed(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page)


def inline(page: str) -> list[Token]:
    return [child for token in parsed(page) for child in token.children or ()]


def words(page: str) -> str:
    return " ".join(" ".join(c.content for c in inline(page)).split())


@settings(deadline=None)
@given(st.text(max_size=60))
@example(HOSTILE)
@example("1. one")
@example("- one")
@example("+ one\n\n    code")
@example("a\\")
@example("<!-- x")
@example("~~a~~ $x$")
@example("x\u2028# y")
def test_any_text_stays_one_line_of_text_wherever_it_stands(value: str) -> None:
    wanted = " ".join(value.split())
    for before, kind in (("", "paragraph"), ("# ", "heading"), ("- ", "list_item"), ("a: ", "paragraph")):
        page = f"{before}{text(value)}\n\nend\n"
        tokens = parsed(page)
        assert {c.type for c in inline(page)} <= BARE, page
        if wanted:
            assert tokens[0].type.startswith((kind, "bullet_list"))
        said = "".join(c.content for c in inline(page)).removesuffix("end").removeprefix("a: ").removeprefix("a:")
        assert said.strip() == wanted.replace("\x00", "\ufffd")
        opened = [t.type for t in tokens if t.type.endswith("_open")]
        assert opened.count("paragraph_open") + opened.count("heading_open") <= 2


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
@example("a|b", HOSTILE)
def test_any_text_fits_into_one_cell(one: str, two: str) -> None:
    page = "\n".join(table(["A", "#B"], [(text(one), code(two))])) + "\n"
    tokens = parsed(page)
    assert sum(t.type == "td_open" for t in tokens) == 2
    assert {c.type for c in inline(page)} <= {*BARE, "code_inline"}
    assert "html" not in {c.type for c in inline(page)}


@pytest.mark.parametrize(
    "value", ["https://evil.example/x", "www.evil.example", "ann@evil.example", "WWW.evil.example"]
)
def test_nothing_becomes_a_link_of_itself(value: str) -> None:
    assert not re.search(r"://|www\.|@", text(value), re.IGNORECASE)


def test_code_is_for_names_alone() -> None:
    assert code("desk.order_items") == "`desk.order_items`"
    assert code("a`b") == "a\\`b"
    assert code("a | b") == "a \\| b"
    assert code("") == ""


def test_the_report_tells_the_whole_story(teller: Teller) -> None:
    teller.happy()
    page = markdown.report(collect(teller.ledger, teller.incident))
    said = words(page)
    for part in (
        "Customers were billed twice",
        "Recovered, back at work, closed.",
        "A changed version of “intake” wrote wrong data since 2026-11-21 12:00:00 UTC.",
        "3 later writes may have used a damaged value: somebody has to look.",
        "1 row left as they are because of a conflict",
        "Recovery time 16 s 15 min 0 s met",
        "it explains 97% of the damage found",
        "312 of 320 bad rows",
        "12 of 12 legitimate events taken again, once each",
        "sales.orders 2 601 0 51",
        f"Plan {HASH[:12]} approved by ann (identity unproven)",
        "42 checks ran, 0 failed",
        "live version yes intake runs aaaa",
        "The record is whole and unaltered.",
        "Incident closed (resolved): suites passed",
    ):
        assert re.sub(r"\s+", "", part) in re.sub(r"\s+", "", said), part


def test_the_incident_says_where_it_stands_and_what_remains(teller: Teller) -> None:
    teller.opened()
    teller.say(kinds.CONTAIN_PROVEN, workflows=["intake"])
    assert "A recovery has to be planned and approved" in incident(teller)
    teller.planned()
    assert "A plan was made and nobody has approved it yet" in incident(teller)
    shown = {"plan_hash": HASH, "flow_run": "f", "expires_at": "2026-11-21T13:00:00+00:00"}
    teller.say(kinds.PLAN_SHOWN, "R1", **shown)
    assert "waits for approval until 2026-11-21 13:00:00 UTC" in incident(teller)
    teller.say(kinds.PLAN_EXPIRED, "R1", plan_hash=HASH)
    assert "Nobody decided on the plan in time" in incident(teller)
    teller.say(kinds.PLAN_REJECTED, "R1", plan_hash=HASH, by="ann", reason="too many rows")
    assert "The plan was rejected by ann" in incident(teller)
    teller.say(kinds.PLAN_APPROVED, "R1", plan_hash=HASH, by="ann")
    assert "approved and has not been started yet" in incident(teller)
    teller.say(kinds.RECOVERY_STARTED, "R1", mode="both")
    assert "The recovery is still running." in incident(teller)
    record.close(teller.ledger, teller.incident, reason="by hand")
    assert "still running" not in incident(teller)


def incident(teller: Teller) -> str:
    return words(markdown.incident(collect(teller.ledger, teller.incident)))


def test_the_verification_is_the_newest_one(teller: Teller) -> None:
    teller.opened()
    data = collect(teller.ledger, teller.incident)
    assert "No verification is on record yet." in markdown.verification(data)
    failed = [{"suite": "orders", "table": "t", "expectation": "unique", "unexpected": 3}]
    teller.say(kinds.VERIFY_PASSED, "R1", suites={"ran": 9, "failed": []})
    teller.say(kinds.VERIFY_FAILED, "R1", suites={"ran": 8, "failed": failed})
    said = words(markdown.verification(collect(teller.ledger, teller.incident)))
    assert "failed. 8 checks ran, 1 failed." in re.sub(r"\s+", " ", said)
    assert "(3 rows against it)" in said
    assert "9 checks" not in said


def test_no_value_of_the_record_breaks_a_page(teller: Teller) -> None:
    teller.opened(title=HOSTILE, impact=HOSTILE, findings=[{"message": HOSTILE, "table": HOSTILE, "rows": 1}])
    teller.diagnosed(workflow=HOSTILE, evidence=[HOSTILE], bad_version=HOSTILE, point_id=HOSTILE)
    publications = [{"workflow": HOSTILE, "from_version": HOSTILE, "to_version": HOSTILE, "source": HOSTILE}]
    teller.say(
        kinds.PLAN_MADE,
        "R1",
        hash=HOSTILE,
        notes=[HOSTILE],
        conflicts={HOSTILE: 1},
        publications=publications,
        effects=[{"table": HOSTILE, "delete": 1, "update": 1, "insert": 1, "merged": 1}],
    )
    teller.say(kinds.PLAN_REJECTED, "R1", by=HOSTILE, reason=HOSTILE)
    clause = {"name": HOSTILE, "holds": False, "detail": HOSTILE}
    failed = {"suite": HOSTILE, "table": HOSTILE, "expectation": HOSTILE, "unexpected": 3}
    teller.say(kinds.VERIFY_FAILED, "R1", suites={"ran": 1, "failed": [failed, HOSTILE]}, agreement=[clause])
    teller.say(kinds.RESUME_STAGE, "R1", stage=HOSTILE, workflows=[HOSTILE], ok=False)
    teller.say(kinds.OVERRIDE, what=HOSTILE, by=HOSTILE, reason=HOSTILE)
    teller.say(kinds.NOTICE_FAILED, state=HOSTILE, audience=HOSTILE, channel=HOSTILE, subject=HOSTILE, why=HOSTILE)
    teller.say(kinds.RECOVERY_STOPPED, "R1", reason=HOSTILE, state=HOSTILE)
    data = collect(teller.ledger, teller.incident)
    for page in (markdown.report(data), markdown.incident(data), markdown.verification(data)):
        kinds_found = {c.type for c in inline(page)}
        assert kinds_found <= {*BARE, "strong_open", "strong_close", "code_inline"}
        assert not {t.type for t in parsed(page)} & {"html_block", "hr", "fence", "code_block", "blockquote_open"}
        own = {
            "What happened", "What remains", "Goals", "Cause", "Verification", "Notices", "Timeline", "Record",
            "Return to work",
        }  # fmt: skip
        second = [
            after.content
            for t, after in zip(parsed(page), parsed(page)[1:], strict=False)
            if t.tag == "h2" and t.nesting == 1
        ]
        assert {h for h in second if not h.startswith("Recovery R1")} <= own
