"""Which run wrote a transaction. Pure: journal and platform records in, graded answers with their evidence out.

The actor (``session_user``) is certain: nothing may override it, and each workflow has its own role. The run is
*exact* when the write carried its tag and the platform's record agrees; *unique* when only one run of that role's
workflows can have written it; else *ambiguous* or *none*, which are never undone in silence.

Clocks differ: ``platform clock = database clock + offset``. The offset is never a number but an interval, since a
tagged write only tells that it happened between its run's start and end. A run is a candidate if *any* offset in the
interval lets it overlap the write; so a wrong offset inside the interval can only add candidates, never hide the
true one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from platforms.base import Run, RunState
from snapshots.model import Attribution, JournalTx

SLACK_S = 0.25
"""Added to both sides: platforms round times and record a start or an end a little off the work itself."""

UNKNOWN_OFFSET = (-5.0, 5.0)
"""Without any measurement: more than NTP-synchronised machines ever differ."""

Keys = Mapping[str, Collection[tuple[str, ...]]]
"""Per table, key tuples in text form."""


Written = Mapping[str, Mapping[str, Collection[tuple[str, ...]]]]
"""Per table and kind of write (I, U, D), key tuples in text form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributed:
    """One journal transaction and the run it belongs to. ``run_id`` is set when certain; ``candidates`` are the ids of
    runs that may have written it. ``evidence`` is a sentence for people."""

    tx: JournalTx
    attribution: Attribution
    run_id: str | None
    workflow_id: str | None
    candidates: tuple[str, ...]
    evidence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    run: Run
    start: float
    end: float


class _Timeline:
    """Runs of one role by start, with the latest end so far, so that a look-up touches only what may overlap."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.spans = sorted((_span(r) for r in runs), key=lambda s: (s.start, s.run.id))
        self.starts = [s.start for s in self.spans]
        self.latest: list[float] = []
        for span in self.spans:
            self.latest.append(max(span.end, self.latest[-1] if self.latest else -inf))

    def overlapping(self, first: float, last: float) -> list[Run]:
        """Runs that started by ``last`` and had not ended before ``first``."""
        found = []
        for i in range(bisect_right(self.starts, last) - 1, -1, -1):
            if self.latest[i] < first:
                break
            if self.spans[i].end >= first:
                found.append(self.spans[i].run)
        return found[::-1]


def _span(run: Run) -> _Span:
    start = run.started_at.timestamp() if run.started_at else -inf
    if run.state is RunState.NEW and run.started_at is None:
        start = inf  # not started: it cannot have written
    return _Span(run=run, start=start, end=run.stopped_at.timestamp() if run.stopped_at else inf)


def _window(tx: JournalTx, offset: tuple[float, float]) -> tuple[float, float]:
    """The transaction's time on the platform's clock, as wide as the offset is unknown."""
    return tx.first_at.timestamp() + offset[0], tx.last_at.timestamp() + offset[1]


def _interval(offset_s: float | tuple[float, float], slack_s: float) -> tuple[float, float]:
    low, high = offset_s if isinstance(offset_s, tuple) else (offset_s, offset_s)
    if low > high:
        raise ValueError(f"offset interval {low}..{high} is empty")
    return low - slack_s, high + slack_s


def tagged_pairs(
    transactions: Sequence[JournalTx], runs: Sequence[Run], role_of_workflow: Mapping[str, str]
) -> list[tuple[JournalTx, Run]]:
    """Tagged transactions with the run their tag names, where role and workflow fit: what
    :func:`estimate_offset` learns from."""
    by_id = {r.id: r for r in runs}
    pairs = [(tx, by_id[tx.run]) for tx in transactions if tx.run in by_id]
    return [(tx, run) for tx, run in pairs if role_of_workflow.get(run.workflow_id) == tx.actor]


def attribute(
    transactions: Sequence[JournalTx],
    runs: Sequence[Run],
    role_of_workflow: Mapping[str, str],
    *,
    offset_s: float | tuple[float, float] = UNKNOWN_OFFSET,
    returned_keys: Mapping[str, Keys] | None = None,
    written_keys: Mapping[str, Written] | None = None,
    slack_s: float = SLACK_S,
) -> list[Attributed]:
    """Grade each transaction, in order. ``role_of_workflow`` maps the platform's workflow ids (private copies used for
    replay too) to database roles; ``offset_s`` is platform minus database clock in seconds, best the interval of
    :func:`estimate_offset`; ``returned_keys`` maps run ids to the keys the run received or returned, and must hold
    every candidate to decide between several. ``written_keys`` maps run ids to the keys of all rows that the run
    wrote, on a platform that names them: an untagged write of other rows is not the run's. ``runs`` must hold every run
    of the time in question."""
    offset = _interval(offset_s, slack_s)
    by_id = {r.id: r for r in runs}
    by_role: dict[str, list[Run]] = {}
    for run in runs:
        if role := role_of_workflow.get(run.workflow_id):
            by_role.setdefault(role, []).append(run)
    timelines = {role: _Timeline(own) for role, own in by_role.items()}
    return [
        _tagged(tx, tx.run, by_id, role_of_workflow, offset)
        if tx.run is not None
        else _untagged(tx, timelines.get(tx.actor), offset, returned_keys or {}, written_keys or {})
        for tx in transactions
    ]


def _answer(tx: JournalTx, grade: Attribution, runs: Sequence[Run], evidence: str) -> Attributed:
    certain = runs[0] if grade.certain else None
    return Attributed(
        tx=tx,
        attribution=grade,
        run_id=certain.id if certain else None,
        workflow_id=certain.workflow_id if certain else None,
        candidates=tuple(r.id for r in runs),
        evidence=evidence,
    )


def _tagged(
    tx: JournalTx,
    tag: str,
    by_id: Mapping[str, Run],
    role_of_workflow: Mapping[str, str],
    offset: tuple[float, float],
) -> Attributed:
    run = by_id.get(tag)
    if run is None:
        return _answer(tx, Attribution.NONE, (), f"tagged with run {tag}, which the platform does not know")
    role = role_of_workflow.get(run.workflow_id)
    if role != tx.actor:
        text = f"tagged with run {tag} of role {role or '?'}, but written by {tx.actor}"
        return _answer(tx, Attribution.AMBIGUOUS, (run,), text)
    # A tag that outlived its run (set for a session, on a pooled connection) must not count.
    first, last = _window(tx, offset)
    span = _span(run)
    if span.start > last or span.end < first:
        text = f"tagged with run {tag}, but written {_apart(span, first, last):.1f} s outside of it"
        return _answer(tx, Attribution.AMBIGUOUS, (run,), text)
    text = f"tagged with run {tag}, which the platform knows as a run of workflow {run.workflow_id} ({run.state})"
    return _answer(tx, Attribution.EXACT, (run,), text)


def _apart(span: _Span, first: float, last: float) -> float:
    return max(span.start - last, first - span.end)


def _untagged(
    tx: JournalTx,
    timeline: _Timeline | None,
    offset: tuple[float, float],
    returned: Mapping[str, Keys],
    written: Mapping[str, Written],
) -> Attributed:
    if timeline is None:
        return _answer(tx, Attribution.NONE, (), f"no tag, and no workflow known to write as {tx.actor} ran")
    candidates = timeline.overlapping(*_window(tx, offset))
    width = offset[1] - offset[0]
    if not candidates:
        return _answer(tx, Attribution.NONE, (), f"no tag, and no run of {tx.actor} within {width:.1f} s of the write")
    if tx.keys and written and all(r.id in written for r in candidates):
        return _by_rows(tx, candidates, written)
    if len(candidates) == 1:
        text = f"no tag; run {candidates[0].id} is the only one of {tx.actor} within {width:.1f} s of the write"
        return _answer(tx, Attribution.UNIQUE, candidates, text)
    chosen = _by_keys(tx, candidates, returned)
    if chosen is not None:
        text = f"no tag; of {len(candidates)} runs of {tx.actor} only run {chosen.id} handled the written keys"
        others = [r for r in candidates if r is not chosen]
        return _answer(tx, Attribution.UNIQUE, [chosen, *others], text)
    names = ", ".join(r.id for r in candidates[:5])
    text = f"no tag; {len(candidates)} runs of {tx.actor} overlap the write: {names}"
    return _answer(tx, Attribution.AMBIGUOUS, candidates, text)


def _by_rows(tx: JournalTx, candidates: Sequence[Run], written: Mapping[str, Written]) -> Attributed:
    """Among runs that name all rows they wrote. Several runs of one version may name the same row: an undo takes all of
    them or none, so the order in which they ended decides."""

    def wrote(run: Run) -> bool:
        for table, keys in tx.keys.items():
            own = written[run.id].get(table, {})
            if set(keys) <= {key for kind in tx.ops or own for key in own.get(kind, ())}:
                return True
        return False

    fitting = [r for r in candidates if wrote(r)]
    if not fitting:
        return _answer(
            tx, Attribution.NONE, (), f"no tag, and no run of {tx.actor} at that time names the written rows"
        )
    if len(fitting) == 1:
        text = f"no tag; run {fitting[0].id} is the only one of {tx.actor} at that time that names the written rows"
        return _answer(tx, Attribution.UNIQUE, fitting, text)
    versions = {(r.workflow_id, r.version_hash) for r in fitting}
    names = ", ".join(r.id for r in fitting[:5])
    if len(versions) == 1 and fitting[0].version_hash is not None:
        first = min(fitting, key=lambda r: (r.stopped_at.timestamp() if r.stopped_at else inf, r.id))
        text = f"no tag; {len(fitting)} runs of one version name the written rows ({names}): the first to end is taken"
        return _answer(tx, Attribution.UNIQUE, [first, *(r for r in fitting if r is not first)], text)
    text = f"no tag; {len(fitting)} runs of {tx.actor} name the written rows: {names}"
    return _answer(tx, Attribution.AMBIGUOUS, fitting, text)


def _by_keys(tx: JournalTx, candidates: Sequence[Run], returned: Mapping[str, Keys]) -> Run | None:
    """The one candidate that handled every key of some table of the transaction, if no other handled any. A
    candidate whose data are not at hand may have handled them: then nobody is chosen."""
    if not tx.keys or any(r.id not in returned for r in candidates):
        return None
    handling = []
    for run in candidates:
        touched = [set(keys) & set(returned[run.id].get(table, ())) for table, keys in tx.keys.items()]
        if any(touched):
            whole = any(t and t == set(keys) for t, keys in zip(touched, tx.keys.values(), strict=True))
            handling.append((run, whole))
    return handling[0][0] if len(handling) == 1 and handling[0][1] else None


def estimate_offset(
    exact: Iterable[tuple[JournalTx, Run]],
    *,
    health: tuple[datetime, datetime, datetime] | None = None,
    resolution_s: float = 1.0,
    slack_s: float = SLACK_S,
    default: tuple[float, float] = UNKNOWN_OFFSET,
) -> tuple[float, float]:
    """Bounds (low, high) of platform minus database clock in seconds.

    ``exact`` are tagged transactions with the run the tag names: start - first write <= offset <= end - last write.
    ``health`` is (database clock before, platform clock, database clock after) of one health request;
    ``resolution_s`` is how coarse the platform's clock is (an HTTP date: 1 s). All bounds are intersected; if they
    contradict each other (a clock was set in between) the hull of all of them is returned, so that nothing is
    called certain on a wrong assumption. Without any bound on a side, ``default`` gives it.
    """
    bounds: list[tuple[float, float]] = []
    for tx, run in exact:
        low = (run.started_at - tx.first_at).total_seconds() - slack_s if run.started_at else -inf
        high = (run.stopped_at - tx.last_at).total_seconds() + slack_s if run.stopped_at else inf
        bounds.append((low, high))
    if health is not None:
        before, platform, after = health
        step = timedelta(seconds=resolution_s)
        bounds.append(((platform - after).total_seconds(), (platform + step - before).total_seconds()))
    low = max((b[0] for b in bounds), default=-inf)
    high = min((b[1] for b in bounds), default=inf)
    if low > high:
        finite = [x for b in bounds for x in b if abs(x) != inf]
        return min(finite), max(finite)
    if low == -inf:
        low = min(default[0], high)
    if high == inf:
        high = max(default[1], low)
    return low, high
