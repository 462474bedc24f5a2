"""What the supervisor does about one process, from what it sees. Pure; times are seconds on one clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""A process that ran so long has earned a quick restart again."""


class Action(StrEnum):
    """``replace``: what runs has another command line or other settings than it should have."""

    NOTHING = "nothing"
    START = "start"
    ADOPT = "adopt"
    REPLACE = "replace"


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A process now. ``same``: it runs the command line and settings it should. ``code`` is how the last one ended,
    None when it was killed or never ran."""

    alive: bool
    same: bool = True
    code: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What is known of a process. ``since``: when it was started or taken over, None while it is down; ``again``: the
    earliest time of the next start; ``failures``: ends in a row without a steady time between them."""

    since: float | None = None
    again: float = 0.0
    failures: int = 0
    known: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """``died`` says that it was up when it was last seen."""

    action: Action
    memory: Memory
    died: bool = False


def decide(seen: Seen, memory: Memory, now: float) -> Decision:
    """What to do now, and what to remember."""
    if seen.alive and not seen.same:
        return Decision(action=Action.REPLACE, memory=Memory(since=now, known=True))
    if seen.alive:
        if not memory.known:
            return Decision(action=Action.ADOPT, memory=Memory(since=now, known=True))
        return Decision(action=Action.NOTHING, memory=memory)
    if memory.since is not None:
        steady = now - memory.since >= STEADY_S
        failures = 1 if steady else memory.failures + 1
        fallen = replace(memory, since=None, failures=failures, again=now + pause(failures))
        return Decision(action=Action.NOTHING, memory=fallen, died=True)
    if now < memory.again:
        return Decision(action=Action.NOTHING, memory=memory)
    return Decision(action=Action.START, memory=replace(memory, since=now, known=True))


def pause(failures: int) -> float:
    """How long to wait before the next start after so many ends in a row."""
    return float(min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S))
