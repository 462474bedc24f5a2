"""What `reinstate undo` says about steps that left the rows, in lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recovery.compensation import Outcome
    from recovery.plan import Compensation
    from recovery.undo_outside import Outside


def about(outside: Outside, *, compensate: bool) -> Iterator[str]:
    """What the runs did outside their rows, and what becomes of it."""
    if outside.unreachable:
        yield f"outside the rows: not known, the platform cannot be asked ({outside.unreachable})"
    for run in outside.unknown:
        yield f"outside the rows: not known of run {run}, which the platform does not have; look at it by hand"
    for one in outside.compensations:
        step = named(one)
        match one.action:
            case "do" if compensate:
                yield f"outside the rows: {step}: taken back after the undo ({one.kind})"
            case "do":
                yield f"outside the rows: {step}: stays; --compensate takes it back ({one.kind})"
            case "settled":
                yield f"outside the rows: {step}: {one.why}"
            case _:
                why = one.why or "it cannot be taken back"
                yield f"outside the rows: {step}: by hand ({why}): {one.manual or 'nobody wrote down how'}"


def outcomes(taken: Iterable[tuple[Compensation, Outcome]]) -> list[str]:
    """How each inverse ended."""
    lines = []
    for one, outcome in taken:
        hand = "" if outcome.taken_back else f"; by hand: {one.manual or 'nobody wrote down how'}"
        why = f" ({outcome.error})" if outcome.error else ""
        lines.append(f"{named(one)}: {outcome.status}{why}{hand}")
    return lines


def named(one: Compensation) -> str:
    item = "" if one.item is None else f", item {one.item}"
    return f"{one.step} of run {one.run_id} of {one.workflow}{item}"
