"""From violating rows over the journal to the runs that wrote them, the version they used, and everything it did.

Deciding is :mod:`checks.blame` (pure), reading is :mod:`checks.evidence`; this module walks back through the verified
recovery points until it finds one from before the damage, and puts the answer together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg

from catalog.models import App
from checks import account
from checks.blame import Author, Verdict, Violation, single_out
from checks.errors import Undiagnosed
from checks.evidence import EPOCH, LONGEST_RUN, Offset, Record, authored, read, violations
from checks.model import BadRun, Diagnosis, Finding
from checks.versions import may_have_used
from platforms.base import Platform, Run, RunState, Version
from snapshots.model import Attribution, Position, RecoveryPoint

INTERRUPTED = (RunState.ERROR, RunState.CANCELED, RunState.CRASHED)
DRIFTS = frozenset({"value-drift", "volume-drift"})
COVERED = 0.9
"""Culprits are added until this share of the violating rows is explained."""
RECENT = timedelta(minutes=10)


def diagnose(
    conn: psycopg.Connection[Any],
    app: App,
    platform: Platform,
    findings: Sequence[Finding],
    *,
    points: Sequence[RecoveryPoint],
    offset_s: Offset = None,
    undone: Collection[tuple[str, str | None]] = (),
    ids: Mapping[str, str] | None = None,
) -> Diagnosis:
    """What went wrong, since when, and every run it went wrong in; role: capturer.

    Bad are *all* runs of the blamed version, also those whose damage no detector sees, and those of its workflow that
    may have used it (``version-unknown``): undone and replayed, a good one leaves what it had left. ``points`` may
    come in any order; unverified ones are ignored. ``offset_s``: platform minus database clock. Times in the answer
    are the database's. ``undone`` are runs (workflow, id) that were undone after an earlier incident of the same
    version: they are no part of this one. ``ids`` are the workflows' ids in the platform by catalogue key, where the
    caller can tell renamed ones; by default they are found by name. Raises ``Undiagnosed`` when the evidence does not
    single out a version.
    """
    chosen = relevant(findings)
    passed_over: list[str] = []
    verified = sorted((p for p in points if p.verified), key=lambda p: p.position.at, reverse=True)
    failure: Undiagnosed | None = None
    attempts: Sequence[RecoveryPoint | None] = verified or [None]
    for point in attempts:
        case = _Case(conn, app, platform, findings=chosen, point=point, offset_s=offset_s, ids=ids)
        try:
            verdict = case.verdict()
        except Undiagnosed as error:
            failure = failure or error
            if point:
                passed_over.append(
                    f"point {point.id} was passed over: it does not tell the bad version from a good one"
                )
            continue
        if point and (early := case.ran_before(point, verdict)):
            passed_over.append(f"point {point.id} was passed over: the bad version had run before it (run {early.id})")
            continue
        return case.diagnosis(verdict, passed_over, undone)
    raise failure or Undiagnosed(
        f"app {app.key}: the bad version ran before every verified point, so none is known to be good. "
        "Choose the version to return to by hand"
    )


def relevant(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings that can point at a version: confirmed ones about rows, else drifts, else whatever there is."""
    for wanted in (
        [f for f in findings if f.confirmed and f.kind not in DRIFTS],
        [f for f in findings if f.confirmed],
        list(findings),
    ):
        if with_keys := tuple(f for f in wanted if f.keys):
            return with_keys
    raise Undiagnosed("no finding names a row, so nothing leads to a run. Run `reinstate watch` for findings first")


def culprits(
    conn: psycopg.Connection[Any], app: App, findings: Sequence[Finding], *, since: Position | None = None
) -> frozenset[str]:
    """The workflows whose roles wrote the violating rows after ``since`` (by default in the ten minutes before the
    findings), for containment within seconds, from the journal alone (role: capturer).

    They are the fewest that explain nearly all rows, and every other that wrote nearly as many: containing one too
    many costs a pause, one too few costs data. Empty when no workflow wrote them.
    """
    workflows_of: dict[str, set[str]] = {}
    for workflow in app.workflows:
        workflows_of.setdefault(workflow.role, set()).add(workflow.key)
    chosen_findings = relevant(findings)
    reach = since or max(f.at for f in chosen_findings) - RECENT
    with conn.transaction():
        found = violations(conn, chosen_findings, since=reach)
    left = [{key for w in v.causes for key in workflows_of.get(w.actor, ())} for v in found]
    needed = COVERED * sum(bool(x) for x in left)
    chosen: set[str] = set()
    covered = 0
    while covered < needed:
        counted = Counter(key for keys in left for key in keys)
        most = max(counted.values())
        chosen |= {key for key, rows in counted.items() if rows >= COVERED * most}
        covered += sum(bool(keys & chosen) for keys in left)
        left = [keys for keys in left if not keys & chosen]
    return frozenset(chosen)


def interrupted(
    conn: psycopg.Connection[Any],
    app: App,
    platform: Platform,
    *,
    workflows: frozenset[str],
    since: Position | datetime,
    contained_at: datetime | None = None,
    offset_s: Offset = None,
    ids: Mapping[str, str] | None = None,
) -> tuple[BadRun, ...]:
    """Runs of ``workflows`` that ended before their end (error, canceled, crashed) at or after ``since``, whatever
    their version: what they wrote is half done; role: capturer. Of those that ended by themselves before
    ``contained_at``, only the ones that wrote something count: the rest refused their event for a reason."""
    start = since.at if isinstance(since, Position) else since
    with conn.transaction():
        reach = since if isinstance(since, Position) else start - LONGEST_RUN
        record = read(conn, app, platform, since=reach, offset_s=offset_s, ids=ids)
    margin = timedelta(seconds=_width(record))
    found = []
    for key in sorted(workflows):
        for run in record.runs.get(key, ()):
            ended = record.to_database_clock(run.stopped_at)
            if run.state not in INTERRUPTED or (ended is not None and ended < start - margin):
                continue
            bad = _bad_run(key, run, record, why="interrupted")
            # A crashed run may have no end on record: what it wrote tells.
            late = ended is not None and (contained_at is None or ended >= contained_at - margin)
            if bad.xids or late:
                found.append(bad)
    return tuple(found)


class _Case:
    """The evidence since one recovery point (or since ever), and what follows from it."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        app: App,
        platform: Platform,
        *,
        findings: Sequence[Finding],
        point: RecoveryPoint | None,
        offset_s: Offset,
        ids: Mapping[str, str] | None,
    ) -> None:
        self.app, self.platform, self.findings, self.point = app, platform, findings, point
        with conn.transaction():
            since = point.position if point else None
            raw = violations(conn, findings, since=since)
            before = {w.workflow: w.version_hash for w in point.workflows} if point else {}
            self.record: Record = read(
                conn, app, platform, since=since or EPOCH, offset_s=offset_s, before=before, ids=ids
            )
        self.violations: tuple[Violation, ...] = authored(raw, self.record)
        self.first_write = _first_writes(self.record)

    def verdict(self) -> Verdict:
        writing: dict[Author, set[str]] = {}
        for one in self.record.attributed:
            author = self.record.author(one)
            if author and one.run_id:
                writing.setdefault(author, set()).add(one.run_id)
        order = sorted(self.first_write, key=lambda a: (self.first_write[a].first_at, self.first_write[a].xid))
        return single_out(self.violations, writing, good=self._good(), order=order)

    def _good(self) -> dict[str, str]:
        """Per workflow the version known to be good: the point's; without a point the one that ran first, provided
        that another followed."""
        if self.point:
            return {w.workflow: w.version_hash for w in self.point.workflows}
        firsts: dict[str, str] = {}
        for key, runs in self.record.runs.items():
            if first := next((r.version_hash for r in runs if r.version_hash), None):
                firsts[key] = first
        return firsts

    def ran_before(self, point: RecoveryPoint, verdict: Verdict) -> Run | None:
        """A run of the bad version from before the point (published, taken back, published again)."""
        limit = point.position.at - timedelta(seconds=_width(self.record))
        history = self._history(verdict)
        if history is None or history.created_at is None:
            return None
        published = self.record.to_database_clock(history.created_at)
        if published is None or published >= limit:
            return None
        runs = self.platform.runs(self.record.ids[verdict.bad.author.workflow], since=history.created_at)
        early = (r for r in runs if r.version_hash in verdict.versions)
        return next((r for r in early if (at := self.record.to_database_clock(r.started_at)) and at < limit), None)

    def _harmful(self, runs: Sequence[Run]) -> set[str]:
        """Those of ``runs`` that do not tell their version and surely wrote a violating row."""
        unknown = {r.id for r in runs if r.version_hash is None}
        violating = {(w.xid, w.actor) for v in self.violations for w in v.causes}
        return {
            a.run_id
            for a in self.record.attributed
            if a.run_id is not None and a.run_id in unknown and (a.tx.xid, a.tx.actor) in violating
        }

    def _history(self, verdict: Verdict) -> Version | None:
        known = self.platform.versions(self.record.ids[verdict.bad.author.workflow])
        return next((v for v in known if v.hash == verdict.bad.author.version), None)

    def diagnosis(
        self, verdict: Verdict, notes: Sequence[str], undone: Collection[tuple[str, str | None]]
    ) -> Diagnosis:
        author, record = verdict.bad.author, self.record
        own = record.runs[author.workflow]
        mine = [r for r in own if (author.workflow, r.id) not in undone]
        doubtful = {r.id for r in mine if may_have_used(r, verdict.versions, record.maybe)} | self._harmful(own)
        bad = tuple(
            _bad_run(author.workflow, r, record, why="version-unknown" if r.id in doubtful else "bad-version")
            for r in mine
            if r.version_hash in verdict.versions or r.id in doubtful
        )
        ids = {b.run_id for b in bad}
        writes = [a.tx for a in record.attributed if a.run_id in ids]
        if not writes:
            raise Undiagnosed(
                f"{author} fits the violating rows, but no single write can be told to be its own. "
                "Tag the workflow's writes with reinstate.run, or choose the runs by hand"
            )
        first = min(writes, key=lambda tx: (tx.first_at, tx.xid))
        history = self._history(verdict)
        sure = [b for b in bad if b.version_hash is not None]
        starts = [at for b in sure or bad if (at := record.to_database_clock(b.started_at))]
        saved = record.to_database_clock(history.created_at) if history else None
        published = min([*starts, *([saved] if saved and saved > _floor(self.point) else [])], default=None)
        begun = min(first.first_at, published or first.first_at) - timedelta(seconds=_width(record))
        good = self._good()[author.workflow]
        roles = {self.app.workflow(key).role for key in self.app.dependents(frozenset({author.workflow}))}
        unsure = [
            a for a in record.attributed if a.tx.actor in roles and not a.attribution.certain and a.tx.last_at >= begun
        ]
        return Diagnosis(
            app=self.app.key,
            workflow=author.workflow,
            bad_version=author.version,
            good_version=good,
            published_at=published,
            first_bad_at=first.first_at,
            first_bad_xid=first.xid,
            bad_runs=bad,
            point_id=self.point.id if self.point else None,
            confidence=verdict.confidence,
            evidence=(
                *account.sentences(
                    verdict,
                    findings=self.findings,
                    point=self.point.id if self.point else None,
                    good=good,
                    bad_runs=len(bad),
                    overlapping=account.overlapping(own, ids),
                    unsure=len(unsure),
                    maybe=len(doubtful & ids),
                    unknown=sum(r.version_hash is None and r.id not in ids for r in own),
                ),
                *notes,
            ),
            unattributed=tuple(map(account.listed, unsure)),
        )


def _first_writes(record: Record) -> dict[Author, Any]:
    firsts: dict[Author, Any] = {}
    for one in record.attributed:  # in journal order
        if author := record.author(one):
            firsts.setdefault(author, one.tx)
    return firsts


def _bad_run(workflow: str, run: Run, record: Record, *, why: str) -> BadRun:
    mine = [a for a in record.attributed if a.run_id == run.id]
    exact = any(a.attribution is Attribution.EXACT for a in mine)
    grade = Attribution.EXACT if exact else Attribution.UNIQUE if mine else Attribution.NONE
    return BadRun(
        workflow=workflow,
        run_id=run.id,
        state=run.state.value,
        version_hash=run.version_hash,
        started_at=run.started_at,
        why=why,
        attribution=grade.value,
        xids=tuple(sorted({a.tx.xid for a in mine})),
    )


def _floor(point: RecoveryPoint | None) -> datetime:
    return point.position.at if point else EPOCH


def _width(record: Record) -> float:
    """How far two times of different clocks may seem apart though they are the same."""
    return record.offset_s[1] - record.offset_s[0] + 0.5
