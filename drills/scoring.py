"""Scoring a drill: the figures from the sandbox's ledger and the judge, and every reason against the card. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from drills.reconstitution import Reconstitution
from drills.scorecard import Control, Observed, Scorecard
from ledger import kinds
from ledger.entry import Entry
from ledger.metrics import Metrics, measure
from recovery import compensated

COLUMNS: Final = 5
"""So many columns are named where fields are wrong."""
CONTROL_EVENTS: Final = 100
"""A negative control with less traffic than that proves little."""


def score(seen: Observed) -> Scorecard:
    """The card, with every reason against it."""
    entries = list(seen.entries)
    took = measure(entries)
    planned, done = _replay(entries)
    begun, compensated = _compensations(entries)
    card = Scorecard(
        drill=seen.drill,
        scenario=seen.scenario,
        title=seen.title,
        app=seen.app,
        at=seen.at,
        passed=False,
        seconds=round(seen.seconds, 1),
        rto_s=seen.rto_s,
        rpo_s=seen.rpo_s,
        contain_target_s=seen.contain_target_s,
        incident=next((e.incident for e in entries if e.incident), None),
        recovery=next((e.recovery for e in reversed(entries) if e.recovery), None),
        plan_hash=next((str(e.body.get("plan_hash")) for e in entries if e.kind == kinds.PLAN_APPROVED), None),
        detect_s=took.detect_s,
        contain_s=took.contain_s,
        diagnose_s=took.diagnose_s,
        recover_s=took.recover_s,
        verify_s=took.verify_s,
        total_s=took.total_s if took.recovered_at is not None else None,
        loss_s=_loss(took, seen.verdict),
        steps=took.steps,
        replay_events=planned,
        replay_success=_ratio(done, planned),
        compensations=begun,
        compensation_success=_ratio(compensated, begun),
        control=asdict(seen.control) if seen.control else None,
        stages=tuple(asdict(s) for s in seen.stages),
        versions=dict(seen.versions),
        note=seen.note,
    )
    card = replace(card, **_judged(seen.verdict), **_rows(seen.rows))
    found = _against(seen, card, entries)
    reasons, red = tuple(text for _, text in found), tuple(code for code, _ in found)
    return replace(card, passed=not found, reasons=reasons, red=red)


Reason = tuple[str, str]


def _against(seen: Observed, card: Scorecard, entries: Sequence[Entry]) -> list[Reason]:
    """Everything that keeps the card from being green: (code, sentence)."""
    found: list[Reason] = [("stage", f"{s.name} failed: {s.error}") for s in seen.stages if s.error]
    found += _control(seen.control)
    if card.rows_wrong == 0:
        found.append(("no-damage", "the fault did no damage, so the drill proves nothing"))
    found += _too_small(seen)
    found += _times(card)
    found += _outcome(seen, entries)
    found += _work(seen, card)
    return found


def _control(control: Control | None) -> list[Reason]:
    if control is None:
        return [("control-missing", "the negative control did not run, so the drill proves nothing")]
    found = []
    if control.acted is not None:
        found.append(("control-acted", f"the product acted upon the negative control: {control.acted}"))
    if control.wrong_fields:
        where = _where(control.wrong_by_column)
        found.append(("control-harm", f"{control.wrong_fields} fields were wrong after the negative control{where}"))
    if control.acted is None and control.events < CONTROL_EVENTS:
        needed = f"needed at least {CONTROL_EVENTS}"
        found.append(("control-small", f"the negative control had only {control.events} events, {needed}"))
    return found


OWN: Final = frozenset(
    {
        "legit_events_lost", "legit_edits_lost", "wrong_fields_after", "contain_s", "live_version_is_known_good",
        "active_set_restored", "suites_passed", "canary_passed", "resumed",
    }
)  # fmt: skip
"""Figures of :mod:`drills.needed` with a reason of their own here."""


def _too_small(seen: Observed) -> list[Reason]:
    if seen.verdict is None:
        return []
    return [
        ("too-small", f"the drill was too small to count: {name} is {seen.verdict.get(name)}, needed {wanted}")
        for name, (wanted, reached) in seen.needed.items()
        if name not in OWN and not (name in seen.verdict and reached(seen.verdict[name]))
    ]


def _times(card: Scorecard) -> list[Reason]:
    if card.incident is None:
        return [("not-detected", "nothing was detected: no incident was opened")]
    found: list[Reason] = []
    if card.contain_s is None:
        found.append(("not-contained", "the incident was not contained: no pause was proven"))
    elif card.contain_target_s is not None and card.contain_s > card.contain_target_s:
        allowed = f"allowed are {card.contain_target_s:.0f} s"
        found.append(("contain-late", f"containment took {card.contain_s:.1f} s, {allowed}"))
    if card.total_s is not None and card.rto_s is not None and card.total_s > card.rto_s:
        found.append(("rto", f"the recovery took {card.total_s:.0f} s in all, the objective is {card.rto_s:.0f} s"))
    if card.rpo_s is not None and card.loss_s is None and card.events_lost:
        found.append(("rpo", f"work was lost and nobody knows how much, the objective is {card.rpo_s:.0f} s"))
    elif card.rpo_s is not None and card.loss_s is not None and card.loss_s > card.rpo_s:
        found.append(("rpo", f"up to {card.loss_s:.0f} s of work were lost, the objective is {card.rpo_s:.0f} s"))
    return found


def _outcome(seen: Observed, entries: Sequence[Entry]) -> list[Reason]:
    found: list[Reason] = []
    finished = [e for e in entries if e.kind == kinds.RECOVERY_FINISHED]
    if not finished or finished[-1].body.get("state") != kinds.RESUMED:
        state = finished[-1].body.get("state") if finished else "not finished"
        found.append(("not-recovered", f"the app was not brought back to work: the recovery is {state}"))
    if any(e.kind == kinds.RELAPSE for e in entries):
        found.append(("relapse", "the app relapsed after it was resumed"))
    proofs = [e for e in entries if e.kind in (kinds.VERIFY_PASSED, kinds.VERIFY_FAILED)]
    if not proofs or proofs[-1].kind == kinds.VERIFY_FAILED:
        found.append(("unverified", "the restored state was not verified"))
    if _asked(entries, "canary") and not _canary_passed(entries):
        found.append(("canary", "the canary did not pass"))
    for name, code, text in (
        ("live_version_is_known_good", "version", "the live version is not the known-good one"),
        ("active_set_restored", "active", "not the same workflows are active as before"),
    ):
        if seen.state.get(name) is not True:
            found.append((code, text))
    return found


def _work(seen: Observed, card: Scorecard) -> list[Reason]:
    found: list[Reason] = []
    if card.replay_success is not None and card.replay_success < 1:
        found.append(("replay", f"only {card.replay_success:.0%} of {card.replay_events} events were replayed"))
    if card.compensation_success is not None and card.compensation_success < 1:
        share = f"{card.compensation_success:.0%} of {card.compensations}"
        found.append(("compensation", f"only {share} compensations succeeded"))
    if seen.verdict is None or seen.rows is None:
        return [*found, ("not-judged", "nobody compared the app with the oracle")]
    for value, code, text in (
        (card.events_lost, "events-lost", "legitimate events were lost"),
        (card.edits_lost, "edits-lost", "legitimate edits of damaged rows were lost"),
        (card.wrong_fields_after, "fields-wrong", "fields are not as the oracle has them"),
    ):
        if value is None:
            found.append((code, f"it was not judged how many {text}"))
        elif value:
            where = _where(seen.verdict.get("wrong_by_column", {})) if code == "fields-wrong" else ""
            found.append((code, f"{value} {text}{where}"))
    if card.precision is not None and card.precision < 1:
        found.append(("precision", f"precision is {card.precision:.1%}: {card.rows_harmed} right rows were changed"))
    if card.recall is not None and card.recall < 1:
        left = (card.rows_wrong or 0) - (card.rows_put_right or 0)
        found.append(("recall", f"recall is {card.recall:.1%}: {left} wrong rows were not put right"))
    return found


def _where(columns: Mapping[str, int]) -> str:
    """The columns with most wrong fields, never a value: that may be personal."""
    most = sorted(columns.items(), key=lambda pair: (-pair[1], pair[0]))[:COLUMNS]
    return f" ({', '.join(f'{name} {n}' for name, n in most)})" if most else ""


def _judged(verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    names = {
        "events": "legit_events", "events_lost": "legit_events_lost", "edits": "legit_edits_on_damaged_rows",
        "edits_lost": "legit_edits_lost", "wrong_fields_after": "wrong_fields_after",
    }  # fmt: skip
    return {ours: (verdict or {}).get(theirs) for ours, theirs in names.items()}


def _rows(rows: Reconstitution | None) -> dict[str, Any]:
    if rows is None:
        return {}
    return {
        "rows_wrong": rows.wrong,
        "rows_put_right": rows.put_right,
        "rows_changed": rows.changed,
        "rows_harmed": rows.harmed,
        "precision": rows.precision,
        "recall": rows.recall,
    }


def _loss(took: Metrics, verdict: Mapping[str, Any] | None) -> float | None:
    if took.data_loss_s is not None:
        return took.data_loss_s
    lost = (verdict or {}).get("legit_events_lost")
    return None if lost is None else 0.0 if lost == 0 else took.total_s


def _replay(entries: Sequence[Entry]) -> tuple[int | None, int]:
    """Events of the last plan, and those that had their effect."""
    plans = [e for e in entries if e.kind == kinds.PLAN_MADE]
    if not plans:
        return None, 0
    ended = [
        e.body.get("detail", {})
        for e in entries
        if e.kind == kinds.STEP_OUTCOME and e.step == "replay" and e.body.get("status") == "done"
    ]
    done = ended[-1] if ended else {}
    names = ("replayed", "already_there", "refused_as_before")
    return len(plans[-1].body.get("events", ())), sum(int(done.get(n, 0)) for n in names)


def _compensations(entries: Sequence[Entry]) -> tuple[int, int]:
    """How many steps outside the rows were to be taken back, and were."""
    known = compensated.fold(e for e in entries if e.kind in compensated.KINDS).values()
    return len(known), sum(past.taken_back for past in known)


def _asked(entries: Sequence[Entry], kind: str) -> bool:
    plans = [e for e in entries if e.kind == kinds.PLAN_MADE]
    return bool(plans) and any(s.get("kind") == kind for s in plans[-1].body.get("steps", ()))


def _canary_passed(entries: Sequence[Entry]) -> bool:
    return any(
        e.kind == kinds.STEP_OUTCOME and e.step == "canary" and e.body.get("detail", {}).get("passed") for e in entries
    )


def _ratio(part: int, whole: int | None) -> float | None:
    return part / whole if whole else None
