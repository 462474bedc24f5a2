"""Which versions a run may have used when its platform does not tell and no look dates it surely. Pure.

Such a run fell between two looks at its workflow of which the later found another version. The runs before and after it
whose versions are known say which two they were. When both used the same one, a third may have come and gone in
between: then nothing is said, and the run is shown as unknown rather than taken for a good one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from platforms.base import Run

START = datetime.min.replace(tzinfo=UTC)
NOTHING: frozenset[str] = frozenset()


def possible(runs: Sequence[Run], *, first: str | None, last: str | None) -> dict[str, frozenset[str]]:
    """For each run of one workflow without a known version: the two that it may have used, or nothing. ``first`` is
    what was used before all of ``runs``, ``last`` what is used or saved now; ``None`` where nobody knows."""
    ordered = sorted(runs, key=lambda r: (r.started_at or START, r.id))
    before: dict[str, str | None] = {}
    known = first
    for run in ordered:
        known = run.version_hash or known
        before[run.id] = known
    found: dict[str, frozenset[str]] = {}
    known = last
    for run in reversed(ordered):
        known = run.version_hash or known
        if run.version_hash is None:
            sides = {before[run.id], known}
            found[run.id] = frozenset(v for v in sides if v) if len(sides) == 2 and None not in sides else NOTHING
    return found


def may_have_used(run: Run, versions: frozenset[str], maybe: Mapping[str, frozenset[str]]) -> bool:
    """Whether a run whose version is not known may have used one of ``versions``."""
    return run.version_hash is None and bool(maybe.get(run.id, NOTHING) & versions)
