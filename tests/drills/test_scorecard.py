"""A scorecard must be able to go red: each reason on its own turns a green drill red, and says so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills import score_files, score_text, scoring
from drills.dumps import Dump, TableDump
from drills.errors import NoSuchDrill
from drills.reconstitution import Reconstitution, count
from drills.scorecard import Control, Observed, Stage, read
from drills.scoring import score
from ledger import Ledger, kinds
from ledger.entry import Entry

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PLAN = {
    "plan_hash": "p1",
    "events": [{"key": "a"}, {"key": "b"}],
    "steps": [{"id": "undo", "kind": "undo"}, {"id": "replay", "kind": "replay"}, {"id": "canary", "kind": "canary"}],
}


CHARGE = {"workflow": "payment", "run": "7", "step_name": "charge", "key": "k"}


def entry(seq: int, kind: str, after_s: float, /, step: str | None = None, **body: Any) -> Entry:
    recovery = "R1" if kind not in (kinds.INCIDENT_OPENED, kinds.CONTAIN_PROVEN, kinds.INCIDENT_DIAGNOSED) else None
    return Entry(
        seq=seq, at=NOON + timedelta(seconds=after_s), kind=kind, app="order-desk", incident="INC-1",
        recovery=recovery, step=step, body=body, prev_hash="", hash="",
    )  # fmt: skip


def done(seq: int, step: str, after_s: float, seconds: float, **detail: Any) -> Entry:
    return entry(seq, kinds.STEP_OUTCOME, after_s, step=step, status="done", seconds=seconds, detail=detail)


ENTRIES = (
    entry(1, kinds.INCIDENT_OPENED, 1, workflows=["order-intake"]),
    entry(2, kinds.CONTAIN_PROVEN, 3, workflows=["order-intake"]),
    entry(3, kinds.INCIDENT_DIAGNOSED, 4, first_bad_at=NOON.isoformat()),
    entry(4, kinds.PLAN_MADE, 5, **PLAN),
    entry(5, kinds.PLAN_APPROVED, 5, plan_hash="p1"),
    entry(6, kinds.RECOVERY_STARTED, 6),
    entry(7, kinds.COMPENSATION_BEGUN, 6, **CHARGE, attempt=1),
    entry(8, kinds.COMPENSATION_ENDED, 7, **CHARGE, status="done", seconds=0.1),
    done(9, "undo", 7, 0.4),
    done(10, "replay", 20, 12.5, replayed=1, already_there=1),
    entry(11, kinds.VERIFY_PASSED, 22),
    done(12, "verify", 22, 2.0),
    done(13, "canary", 23, 0.5, passed=["order-intake"]),
    entry(14, kinds.RECOVERY_FINISHED, 30, state="resumed"),
)
VERDICT = {
    "rows_damaged": 700, "legit_events": 500, "legit_events_lost": 0, "legit_edits_on_damaged_rows": 60,
    "legit_edits_lost": 0, "wrong_fields_after": 0,
}  # fmt: skip
ROWS = Reconstitution(wrong=700, put_right=700, changed=700, changed_wrong=700, harmed=0)
GREEN = Observed(
    drill="DRILL-20261121-0001",
    scenario="bad-version",
    title="A bad version",
    app="order-desk",
    at=NOON.isoformat(),
    seconds=84.2,
    rto_s=300.0,
    rpo_s=0.0,
    contain_target_s=3.0,
    stages=(Stage(name="judge", seconds=5.0),),
    control=Control(acted=None, events=400, wrong_fields=0),
    entries=ENTRIES,
    verdict=VERDICT,
    rows=ROWS,
    state={"live_version_is_known_good": True, "active_set_restored": True},
    needed={"rows_damaged": ("at least 600", lambda n: n >= 600), "resumed": ("True", lambda v: v is True)},
)
Spoil = Callable[[Observed], Observed]


def judged(**figures: Any) -> Spoil:
    return lambda seen: replace(seen, verdict={**VERDICT, **figures})


def without(kind: str, step: str | None = None) -> Spoil:
    kept = [e for e in ENTRIES if e.kind != kind or (step is not None and e.step != step)]
    return lambda seen: replace(seen, entries=kept)


def instead(kind: str, changed: Entry, step: str | None = None) -> Spoil:
    kept = [changed if e.kind == kind and step in (None, e.step) else e for e in ENTRIES]
    return lambda seen: replace(seen, entries=kept)


def control(**changes: Any) -> Spoil:
    return lambda seen: replace(seen, control=replace(GREEN.control, **changes))  # type: ignore[type-var]


def rows(**changes: Any) -> Spoil:
    return lambda seen: replace(seen, rows=replace(ROWS, **changes))


def state(**changes: Any) -> Spoil:
    return lambda seen: replace(seen, state={**GREEN.state, **changes})


FAILED = entry(8, kinds.COMPENSATION_ENDED, 7, **CHARGE, status="failed", seconds=0.1)
SPOILT: dict[str, tuple[Spoil, str]] = {
    "stage": (lambda s: replace(s, stages=(Stage(name="judge", seconds=1.0, error="it is late"),)), "judge failed: it"),
    "control-missing": (lambda s: replace(s, control=None), "did not run"),
    "control-acted": (control(acted="it contained payment"), "it contained payment"),
    "control-harm": (
        control(wrong_fields=3, wrong_by_column={"desk.orders.note": 3}),
        "3 fields were wrong after the negative control (desk.orders.note 3)",
    ),
    "control-small": (control(events=12), "only 12 events"),
    "no-damage": (rows(wrong=0, put_right=0, changed=0, changed_wrong=0), "did no damage"),
    "too-small": (judged(rows_damaged=599), "rows_damaged is 599, needed at least 600"),
    "not-detected": (lambda s: replace(s, entries=()), "no incident was opened"),
    "not-contained": (without(kinds.CONTAIN_PROVEN), "no pause was proven"),
    "contain-late": (lambda s: replace(s, contain_target_s=1.5), "containment took 2.0 s, allowed are 2 s"),
    "rto": (lambda s: replace(s, rto_s=29.0), "took 30 s in all, the objective is 29 s"),
    "rpo": (judged(legit_events_lost=1), "up to 30 s of work were lost, the objective is 0 s"),
    "not-recovered": (without(kinds.RECOVERY_FINISHED), "the recovery is not finished"),
    "relapse": (lambda s: replace(s, entries=(*ENTRIES, entry(15, kinds.RELAPSE, 31))), "relapsed"),
    "unverified": (without(kinds.VERIFY_PASSED), "not verified"),
    "canary": (without(kinds.STEP_OUTCOME, step="canary"), "canary did not pass"),
    "version": (state(live_version_is_known_good=False), "live version"),
    "active": (state(active_set_restored=False), "active as before"),
    "replay": (instead(kinds.STEP_OUTCOME, done(10, "replay", 20, 1.0, replayed=1), "replay"), "only 50% of 2 events"),
    "compensation": (instead(kinds.COMPENSATION_ENDED, FAILED), "only 0% of 1 compensations"),
    "not-judged": (lambda s: replace(s, verdict=None), "nobody compared"),
    "events-lost": (judged(legit_events_lost=2), "2 legitimate events were lost"),
    "edits-lost": (judged(legit_edits_lost=1), "1 legitimate edits"),
    "fields-wrong": (
        judged(wrong_fields_after=7, wrong_by_column={"b": 2, "a": 5}),
        "7 fields are not as the oracle has them (a 5, b 2)",
    ),
    "precision": (rows(changed=705, harmed=5), "5 right rows were changed"),
    "recall": (rows(put_right=690), "10 wrong rows were not put right"),
}
"""By code: what spoils a green drill, and what is said then."""


def test_a_drill_without_fault_is_green() -> None:
    card = score(GREEN)
    assert (card.passed, card.reasons, card.red) == (True, (), ())
    assert (card.detect_s, card.contain_s, card.diagnose_s, card.recover_s, card.verify_s, card.total_s) == (
        1.0, 2.0, 3.0, 24.0, 2.0, 30.0,
    )  # fmt: skip
    assert (card.loss_s, card.precision, card.recall) == (0.0, 1.0, 1.0)
    assert (card.replay_events, card.replay_success, card.compensation_success) == (2, 1.0, 1.0)
    assert (card.incident, card.recovery, card.plan_hash) == ("INC-1", "R1", "p1")
    assert card.steps["replay"] == 12.5


@pytest.mark.parametrize("code", sorted(SPOILT))
def test_each_reason_alone_turns_it_red_and_says_why(code: str) -> None:
    spoil, said = SPOILT[code]
    card = score(spoil(GREEN))
    assert not card.passed
    assert code in card.red
    assert said in card.reasons[card.red.index(code)]


def test_every_reason_there_is_has_been_tried() -> None:
    source = Path(scoring.__file__).read_text("utf-8")
    codes = set(re.findall(r'\(\s*"([a-z]+(?:-[a-z]+)*)",\s*f?"', source))
    codes |= set(re.findall(r'"(?:live_version_is_known_good|active_set_restored)", "([a-z]+)"', source))
    codes |= set(re.findall(r'\(card\.[a-z_]+, "([a-z-]+)"', source))
    assert codes - {"replayed"} == set(SPOILT)


NEEDS_MORE = {"not-detected", "not-judged", "rto", "contain-late"}
"""Takes away what others are measured from, or is measured only once something else was reached."""


@given(st.sets(st.sampled_from(sorted(set(SPOILT) - NEEDS_MORE)), min_size=1, max_size=3))
def test_no_reason_hides_another_and_reasons_match_their_codes(codes: set[str]) -> None:
    """Those that spoil the same part of the drill cannot be combined: the last one wins."""
    seen = GREEN
    parts: dict[str, str] = {}
    for code in sorted(codes):
        before, seen = seen, SPOILT[code][0](seen)
        changed = [f for f in ("stages", "control", "entries", "verdict", "rows", "state")
                   if getattr(before, f) is not getattr(seen, f)]  # fmt: skip
        for part in changed:
            parts[part] = code
    card = score(seen)
    assert set(parts.values()) <= set(card.red)
    assert len(card.red) == len(card.reasons)
    assert not card.passed


def test_a_loss_that_a_recovery_recorded_counts() -> None:
    finished = entry(14, kinds.RECOVERY_FINISHED, 30, state="resumed", data_loss_s=120.0)
    card = score(instead(kinds.RECOVERY_FINISHED, finished)(GREEN))
    assert (card.loss_s, card.red) == (120.0, ("rpo",))


DONE = (kinds.COMPENSATION_BEGUN, kinds.COMPENSATION_ENDED)


def test_without_compensations_or_events_there_is_no_share() -> None:
    plan = entry(4, kinds.PLAN_MADE, 5, plan_hash="p1", events=[], steps=[])
    kept = [plan if e.kind == kinds.PLAN_MADE else e for e in ENTRIES if e.step != "replay" and e.kind not in DONE]
    card = score(replace(GREEN, entries=kept))
    assert (card.replay_success, card.compensation_success, card.passed) == (None, None, True)


def test_a_card_survives_its_file_and_the_ledger_has_it(tmp_path: Path) -> None:
    card = score(SPOILT["recall"][0](GREEN))
    file = score_files.keep(tmp_path, card)
    assert file.stat().st_mode & 0o777 == 0o600
    assert score_files.load(tmp_path, card.drill).document() == card.document()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (scored,) = ledger.entries()
        assert (scored.kind, scored.body["drill"], scored.body["passed"]) == ("drill.scored", card.drill, False)


def test_a_card_of_a_later_release_can_be_read() -> None:
    assert read({**json.loads(json.dumps(score(GREEN).document())), "new": 1}).passed


def test_history_is_kept_in_order_and_what_is_no_card_is_passed_over(tmp_path: Path) -> None:
    for number, at in ((2, NOON), (1, NOON + timedelta(days=1))):
        score_files.keep(tmp_path, score(replace(GREEN, drill=f"DRILL-20261121-000{number}", at=at.isoformat())))
    (tmp_path / "scorecards" / "DRILL-20261121-0007.json").write_text("{", "utf-8")
    (tmp_path / "drills" / "DRILL-20261122-0012").mkdir(parents=True)
    assert [c.drill for c in score_files.listing(tmp_path)] == ["DRILL-20261121-0002", "DRILL-20261121-0001"]
    assert score_files.number(score_files.next_id(tmp_path)) == 13
    with pytest.raises(NoSuchDrill, match="DRILL-20261121-0001"):
        score_files.load(tmp_path, "DRILL-1")


def test_the_card_in_words_is_escaped_and_says_why() -> None:
    spoilt = replace(GREEN, stages=(Stage(name="plan|x", seconds=1.0, error="<script>"),), note="a note")
    card = score(spoilt)
    text = score_text.markdown(card)
    assert "# Failed: A bad version" in text
    assert "<script>" not in text
    assert "plan\\|x" in text
    assert score_text.headline(card).endswith("FAILED for one reason, after 84 s")
    assert "passed" in score_text.headline(score(GREEN))
    assert {a: b for a, b, _ in score_text.figures(card)}["negative control"] == "left alone, 400 events"


def table(*lines: tuple[str, str, str]) -> Dump:
    content = {(line[0],): "\t".join(line).encode() for line in lines}
    return {"desk.orders": TableDump(columns=("id", "status", "updated_at"), key=("id",), lines=content)}


RIGHT = table(("1", "new", "t"), ("2", "paid", "t"), ("3", "new", "t"))
WRONG = table(("1", "hold", "t"), ("3", "new", "t"), ("9", "new", "t"))  # changed, missing, right, too many


@pytest.mark.parametrize(
    ("after", "counts"),
    [
        (RIGHT, (3, 3, 3, 3, 0)),
        (WRONG, (3, 0, 0, 0, 0)),
        (table(("1", "lost", "t"), ("2", "paid", "t2"), ("3", "new", "t")), (3, 2, 3, 3, 0)),
        (table(("1", "new", "t"), ("2", "paid", "t"), ("3", "hold", "t")), (3, 3, 4, 3, 1)),
    ],
    ids=["all-put-right", "nothing-done", "one-wrong-in-another-way", "a-right-row-harmed"],
)
def test_precision_and_recall_are_counted_from_the_dumps(after: Dump, counts: tuple[int, ...]) -> None:
    found = count(before=WRONG, oracle_before=RIGHT, after=after, oracle=RIGHT)
    assert (found.wrong, found.put_right, found.changed, found.changed_wrong, found.harmed) == counts
    assert found.recall == counts[1] / 3
    assert found.precision == (counts[3] / counts[2] if counts[2] else None)


STATUS = st.sampled_from(["new", "paid", "hold", None])


@given(st.lists(st.tuples(STATUS, STATUS, STATUS, STATUS), min_size=1, max_size=6))
def test_shares_stay_between_nothing_and_all(cells: list[tuple[str | None, ...]]) -> None:
    dumps = [table(*((str(n), row[i], "t") for n, row in enumerate(cells) if row[i])) for i in range(4)]  # type: ignore[misc]
    found = count(before=dumps[0], oracle_before=dumps[1], after=dumps[2], oracle=dumps[3])
    for share in (found.precision, found.recall):
        assert share is None or 0 <= share <= 1
    assert (found.recall == 1 and found.harmed == 0) <= (dumps[2] == dumps[3])
