"""The report: complete, self-contained, escaped, without values of rows, and honest about what failed."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from incidents import record
from incidents.errors import UnknownIncident
from incidents.report.collect import collect
from incidents.report.render import render, write
from ledger import kinds, steps
from tests.console.report_desk import HASH, Page, Teller


@pytest.fixture
def teller(tmp_path: Path) -> Iterator[Teller]:
    made = Teller(tmp_path)
    yield made
    made.ledger.close()


def page(teller: Teller) -> Page:
    return Page(render(collect(teller.ledger, teller.incident)))


def test_the_whole_story_is_on_the_page(teller: Teller) -> None:
    teller.happy()
    text = page(teller).text
    for part in (
        "Recovered, back at work, closed",
        "Customers were billed twice.",
        "A changed version of “intake” wrote wrong data since 2026-11-21 12:00:00 UTC.",
        "explains 97% of the damage",
        "312 of 320 bad rows",
        "2 runs of intake: ran the bad version",
        "1 run of intake: built on rows that had to go",
        "603 rows put right, later legitimate work kept on 51 rows, 12 events taken again",
        "sales.orders 2 601 0 51",
        "12 legitimate events of 12 taken again",
        "1 edit by people carried over",
        "3 later writes may have used a damaged value",
        "A later legitimate edit of the same field was kept (4 rows; values are not shown here)",
        "1 row left as they are",
        "run 8 has no event key",
        "approved by ann",
        "(identity unproven)",
        "42 checks ran, 0 failed",
        "live version yes intake runs aaaa",
        "stage 1: intake, stock resumed",
        "Recovery time 16 s 15 min 0 s met",
        "Data lost 0.0 s 0.0 s met",
        HASH,
        "flow run f-1",
        "n8n 2.40.7",
        "Step undo done after 2.5 s",
        "entry 16",
        "The record was verified",
    ):
        squeezed = re.sub(r"\s+", "", part)
        assert squeezed in re.sub(r"\s+", "", text), part


def test_nothing_outside_the_file_is_needed(teller: Teller) -> None:
    teller.happy()
    text = render(collect(teller.ledger, teller.incident))
    parsed = Page(text)
    assert {tag for tag, _ in parsed.tags} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
    } == set()
    for _, attributes in parsed.tags:
        assert not {"src", "srcset", "action", "background", "poster"} & set(attributes)
        assert attributes.get("href", "#")[:1] == "#"
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|@font-face|https?:|//[a-z]", text)
    [policy] = [a["content"] for t, a in parsed.tags if t == "meta" and a.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_it_adapts_to_paper_and_darkness(teller: Teller) -> None:
    teller.opened()
    text = render(collect(teller.ledger, teller.incident))
    assert "@media print" in text
    assert "@media screen and (prefers-color-scheme: dark)" in text, "paper stays light"


HOSTILE = "<script>alert('x')</script>\"'&<b>{{ 1234567 * 2 }}"


def test_everything_is_escaped(teller: Teller) -> None:
    teller.opened(title=HOSTILE, impact=HOSTILE, findings=[{"message": HOSTILE, "table": HOSTILE, "rows": 1}])
    teller.diagnosed(workflow=HOSTILE, evidence=[HOSTILE], bad_version=HOSTILE, point_id=HOSTILE)
    teller.say(kinds.PLAN_MADE, "R1", hash=HOSTILE, notes=[HOSTILE], conflicts={HOSTILE: 1}, mode=HOSTILE)
    teller.say(kinds.PLAN_APPROVED, "R1", by=HOSTILE, reason=HOSTILE)
    teller.step("x", "undo", "failed", error=HOSTILE, **{HOSTILE: 1})
    clause = {"name": HOSTILE, "holds": False, "detail": HOSTILE}
    failed = {"suite": HOSTILE, "table": HOSTILE, "expectation": HOSTILE, "unexpected": 3}
    teller.say(kinds.VERIFY_FAILED, "R1", suites={"ran": 1, "failed": [failed, HOSTILE]}, agreement=[clause])
    teller.say(kinds.RESUME_STAGE, "R1", stage=HOSTILE, workflows=[HOSTILE], ok=False)
    teller.say(kinds.OVERRIDE, what=HOSTILE, by=HOSTILE, reason=HOSTILE)
    teller.say("unknown.kind", **{"x": HOSTILE})
    text = render(collect(teller.ledger, teller.incident))
    parsed = Page(text)
    assert not {"script", "b"} & {tag for tag, a in parsed.tags if tag == "script" or a}
    assert "<script" not in text
    assert "{{ 1234567 * 2 }}" in parsed.text
    assert "2469134" not in parsed.text


def test_values_of_rows_are_left_out(teller: Teller) -> None:
    teller.happy()
    teller.opened()
    error = "Key (email)=(jane) already exists; Failing row contains (7, jane, 3); jane.doe@h.test"
    teller.step("undo", "undo", "failed", error=error, rows=[["jane"]])
    failed = {
        "suite": "s",
        "table": "t",
        "expectation": "unique",
        "keys": [["jane"]],
        "detail": "jane",
        "unexpected": 1,
    }
    teller.say(kinds.VERIFY_FAILED, "R1", suites={"ran": 1, "failed": [failed]})
    for incident in ("INC-20261121-0001", teller.incident):
        text = render(collect(teller.ledger, incident))
        assert "jane" not in text
    assert "Key (email)=(•••) already exists; Failing row contains (•••); •••" in text


def contained_only(teller: Teller) -> None:
    teller.opened()
    teller.say(kinds.CONTAIN_PROVEN, workflows=["intake"])
    teller.say(kinds.INCIDENT_UNDIAGNOSED, why="two versions explain the damage equally well")


def stopped(teller: Teller) -> None:
    teller.opened()
    teller.planned()
    teller.say(kinds.RECOVERY_STARTED, "R1", mode="both")
    teller.step("undo", "undo", "failed", error="the journal has a gap")
    teller.say(kinds.VERIFY_FAILED, "R1", suites={"ran": 9, "failed": [{"suite": "orders", "unexpected": 2}]})
    teller.say(kinds.RECOVERY_STOPPED, "R1", state="contained", reason="suites failed")


def killed(teller: Teller) -> None:
    teller.opened()
    teller.planned()
    teller.say(kinds.RECOVERY_STARTED, "R1", mode="both")
    steps.intent(teller.ledger, "R1", "undo", app="desk", incident=teller.incident, body={"kind": "undo"})


def one_half(teller: Teller) -> None:
    teller.opened()
    teller.say(kinds.RECOVERY_STARTED, "R1", mode="data")
    teller.say(kinds.RECOVERY_FINISHED, "R1", state="data-restored")


def one_half_then_closed(teller: Teller) -> None:
    one_half(teller)
    record.close(teller.ledger, teller.incident, reason="resumed by hand", by="ann")


def closed_by_hand(teller: Teller) -> None:
    teller.opened()
    record.close(teller.ledger, teller.incident, reason="mended by hand", by="ann")


def unopened(teller: Teller) -> None:
    teller.incident = "INC-1"
    teller.say(kinds.CONTAIN_STARTED, workflows=["intake"])


@pytest.mark.parametrize(
    ("told", "parts"),
    [
        (
            contained_only,
            ["contained; nothing has been recovered yet", "two versions explain", "No recovery is on record"],
        ),
        (
            stopped,
            [
                "stopped before its goal",
                "Ended early: suites failed",
                "the journal has a gap",
                "9 checks ran, 1 failed",
                "No change of data is on record",
                "the plan was",
                "No event was replayed (12 events planned)",
                "not reached",
            ],
        ),
        (killed, ["has begun and has not ended", "no outcome on record", "not measured"]),
        (one_half, ["One half is restored; the app is still paused", "data-restored"]),
        (one_half_then_closed, ["One half was restored; closed by a decision on record"]),
        (closed_by_hand, ["Closed without a recovery on record", "mended by hand"]),
        (unopened, ["Its opening is not on record"]),
    ],
)
def test_what_went_wrong_or_is_missing_is_said(
    teller: Teller, told: Callable[[Teller], None], parts: list[str]
) -> None:
    told(teller)
    text = page(teller).text
    for part in parts:
        assert re.sub(r"\s+", "", part) in re.sub(r"\s+", "", text), part
    assert "back at work" not in text


def test_a_missed_goal_is_called_missed(teller: Teller) -> None:
    teller.opened(objectives={"rto_s": 1, "rpo_s": 60})
    teller.say(kinds.RECOVERY_FINISHED, "R1", state="resumed", data_loss_s=61)
    text = page(teller).text
    assert "Data lost 61 s 60 s missed" in text
    given = collect(teller.ledger, teller.incident, rto_s=500, rpo_s=500)
    assert (given.rto_s, given.rpo_s) == (1, 60)


def test_a_tampered_record_is_never_all_green(teller: Teller, tmp_path: Path) -> None:
    teller.happy()
    (tmp_path / "ledger.head").write_text('{"ledger": "x", "seq": 99, "hash": "y"}')
    text = page(teller).text
    assert "but the record itself is damaged" in text
    assert "replaced as a whole" in text
    assert "The record was verified" not in text


def test_strange_bodies_do_not_keep_the_report_from_being_made(teller: Teller) -> None:
    teller.opened()
    for kind, fields in kinds.BODY_FIELDS.items():
        names = set(re.findall(r"[a-z_]+", fields))
        for value in (None, 3, "text", [None, 3, "x", {}], {"a": {}}):
            teller.say(kind, "R1", "s", **{n: value for n in names if n not in ("kind", "recovery", "step")})
    teller.incident = "INC-20261121-0001"
    assert page(teller).text


def test_an_unknown_incident_is_named(teller: Teller) -> None:
    with pytest.raises(UnknownIncident, match="INC-9"):
        collect(teller.ledger, "INC-9")


def test_it_is_written_whole_and_for_its_owner(teller: Teller, tmp_path: Path) -> None:
    teller.opened()
    data = collect(teller.ledger, teller.incident)
    path = tmp_path / "report.html"
    path.write_text("an older report")
    assert write(data, path) == path
    assert path.read_text() == render(data)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []
