"""The report: complete, self-contained, escaped, without values of rows, and honest about what failed."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from incidents import record
from incidents.errors import UnknownIncident
from incidents.report.collect import collect
from incidents.report.render import render, write
from ledger import Ledger, kinds, steps

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
VOID = {"meta", "br", "link", "img", "hr", "input"}
HASH = "c" * 64


class Page(HTMLParser):
    """Parses strictly: every element that opens closes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


class Teller:
    """Writes the ledger of an incident, a second per entry."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.ledger = Ledger(folder / "ledger", clock=self._tick)
        self.incident = ""

    def _tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def say(self, kind: str, /, recovery: str | None = None, step: str | None = None, **body: Any) -> None:
        self.ledger.append(kind, app="desk", incident=self.incident, recovery=recovery, step=step, body=body)

    def opened(self, **fields: Any) -> None:
        given = {"severity": "sev1", "title": "Orders with wrong totals", "workflows": ["intake"], **fields}
        self.incident = record.open_incident(self.ledger, "desk", **given).id

    def diagnosed(self, **fields: Any) -> None:
        run = {"workflow": "intake", "run_id": "7", "why": "bad-version", "xids": [1]}
        self.say(
            kinds.INCIDENT_DIAGNOSED,
            **{
                "workflow": "intake",
                "bad_version": "b" * 64,
                "good_version": "a" * 64,
                "published_at": START.isoformat(),
                "first_bad_at": START.isoformat(),
                "bad_runs": [run, run, {**run, "why": "entangled"}],
                "point_id": "P7",
                "confidence": 0.97,
                "evidence": ["312 of 320 bad rows were written by version bbbb"],
                "unattributed": [],
                **fields,
            },
        )

    def step(self, name: str, kind: str, status: steps.Status, **detail: Any) -> None:
        steps.intent(self.ledger, "R1", name, app="desk", incident=self.incident, body={"kind": kind, "title": name})
        body = {"seconds": 2.5, "detail": detail}
        steps.outcome(self.ledger, "R1", name, app="desk", incident=self.incident, status=status, body=body)

    def planned(self) -> None:
        self.say(
            kinds.PLAN_MADE,
            "R1",
            hash=HASH,
            mode="both",
            policy="non-conflicting-only",
            effects=[{"table": "sales.orders", "delete": 2, "update": 600, "insert": 0, "merged": 50}],
            conflicts={"later-same-column": 4},
            suspects=3,
            events=[{}] * 12,
            carried_xids=[9],
            notes=["run 8 has no event key"],
            steps=[
                {"id": "undo", "kind": "undo", "title": "Undo the damage"},
                {"id": "replay", "kind": "replay", "title": "Replay the events"},
                {"id": "resume", "kind": "resume", "title": "Resume"},
            ],
        )

    def happy(self) -> None:
        self.opened(impact="Customers were billed twice", findings=[{"message": "12 twice", "table": "t", "rows": 12}])
        self.say(kinds.CONTAIN_PROVEN, workflows=["intake", "stock"], seconds=1.1, stopped_runs=["5"])
        self.diagnosed()
        self.planned()
        self.say(kinds.PLAN_APPROVED, "R1", plan_hash=HASH, by="ann", reason="checked", identity_proven=False)
        goals = {"rto_s": 900, "rpo_s": 0}
        self.say(
            kinds.RECOVERY_STARTED, "R1", mode="both", flow_run="f-1", objectives=goals, versions={"n8n": "2.40.7"}
        )
        table = {"delete": 2, "update": 601, "insert": 0, "merged": 51}
        left = [{"table": "sales.orders", "key": ["jane.doe@h.test"], "kind": "referenced"}]
        self.step("undo", "undo", "done", tables={"sales.orders": table}, conflicts={"later-same-column": 4}, left=left)
        self.step("replay", "replay", "done", events=12, replayed=11, already_there=1)
        clause = {"name": "live version", "holds": True, "detail": "intake runs aaaa"}
        self.say(kinds.VERIFY_PASSED, "R1", suites={"ran": 42, "failed": []}, agreement=[clause])
        self.step("resume", "resume", "done")
        self.say(kinds.RESUME_STAGE, "R1", stage=1, workflows=["intake", "stock"], ok=True)
        self.say(kinds.RECOVERY_FINISHED, "R1", state="resumed", data_loss_s=0)
        record.close(self.ledger, self.incident, reason="suites passed")


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
