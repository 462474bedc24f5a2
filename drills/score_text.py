"""A scorecard in words: lines for a terminal, Markdown for an artifact."""

from __future__ import annotations

from collections.abc import Sequence

from drills.scorecard import Scorecard

Line = tuple[str, str, str]


def headline(card: Scorecard) -> str:
    """One sentence: which drill, and how it ended."""
    ended = "passed" if card.passed else f"FAILED for {len(card.reasons)} reasons"
    if len(card.reasons) == 1:
        ended = "FAILED for one reason"
    return f"drill {card.drill} ({card.scenario}): {ended}, after {card.seconds:.0f} s"


def figures(card: Scorecard) -> Sequence[Line]:
    """(figure, measured, target) in the order in which they are read."""
    return (
        ("detected after", _s(card.detect_s), ""),
        ("contained after that", _s(card.contain_s), _at_most(card.contain_target_s)),
        ("diagnosed", _s(card.diagnose_s), ""),
        ("recovery", _s(card.recover_s), ""),
        ("of which verification", _s(card.verify_s), ""),
        ("in all (RTO)", _s(card.total_s), _at_most(card.rto_s)),
        ("work lost (RPO)", _s(card.loss_s), _at_most(card.rpo_s)),
        ("events lost", _of(card.events_lost, card.events), "0"),
        ("edits of damaged rows lost", _of(card.edits_lost, card.edits), "0"),
        ("wrong fields left", _n(card.wrong_fields_after), "0"),
        ("wrong rows put right", _of(card.rows_put_right, card.rows_wrong), "all"),
        ("precision", _share(card.precision), "100%"),
        ("recall", _share(card.recall), "100%"),
        ("replay", _share(card.replay_success), "100%"),
        ("compensations", _share(card.compensation_success), "100%, if any"),
        ("negative control", control(card), "left alone"),
    )


def control(card: Scorecard) -> str:
    """What became of the negative control."""
    if card.control is None:
        return "did not run"
    acted = card.control.get("acted")
    return f"acted upon: {acted}" if acted else f"left alone, {card.control.get('events')} events"


def markdown(card: Scorecard) -> str:
    """The card as Markdown, escaped: an artifact of the flow run."""
    parts = [f"# {'Passed' if card.passed else 'Failed'}: {_cell(card.title)}", "", _cell(headline(card))]
    if card.reasons:
        parts += ["", "## Why it failed", "", *(f"- {_cell(r)}" for r in card.reasons)]
    if card.note:
        parts += ["", f"> {_cell(card.note)}"]
    parts += ["", "## Figures", "", "| figure | measured | target |", "| --- | --- | --- |"]
    parts += [f"| {_cell(a)} | {_cell(b)} | {_cell(c)} |" for a, b, c in figures(card)]
    parts += ["", "## Stages", "", "| stage | seconds | |", "| --- | --- | --- |"]
    for stage in card.stages:
        parts.append(f"| {_cell(stage['name'])} | {stage['seconds']:.1f} | {_cell(stage.get('error') or '')} |")
    if card.steps:
        parts += ["", "## Steps of the recovery", "", "| step | seconds |", "| --- | --- |"]
        parts += [f"| {_cell(name)} | {took:.1f} |" for name, took in card.steps.items()]
    return "\n".join(parts) + "\n"


def _cell(text: object) -> str:
    escaped = str(text)
    for character in "\\`*_[]<>|#":
        escaped = escaped.replace(character, f"\\{character}")
    return " ".join(escaped.split())


def _s(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.1f} s"


def _n(value: float | None) -> str:
    return "not judged" if value is None else f"{value:,}"


def _of(part: int | None, whole: int | None) -> str:
    return "not judged" if part is None else f"{part:,} of {whole or 0:,}"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _at_most(value: float | None) -> str:
    return "" if value is None else f"at most {value:.0f} s"
