"""Which version is to blame for the violations, or why none can be. Pure: values in, a verdict out.

Every violating row votes for the versions whose runs wrote it; a row written by several splits its vote, so that rows
everybody touches (a stock counter) say little. A version is blamed if its runs wrote at least half of the violating
rows, if it is *new* (not the one that was live when everything was proven to be in order), and if no other new version
fits nearly as well. How well a version fits is its share of the votes times the share of its runs that did damage:
a workflow that merely touches damaged rows afterwards has many runs that did not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from checks.errors import Undiagnosed

CREATED = frozenset({"duplicates", "partial"})
"""Kinds whose violation is that the row exists: only who inserted it can have caused it."""
REMOVED = frozenset({"mass-delete"})
"""Kinds whose violation is that the row is gone: only who deleted it can have caused it."""
MIN_EXPLAINED = 0.5
RIVAL = 0.75
"""Another new version that fits this well compared with the best leaves the question open."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Author:
    """A version of a workflow (catalogue key, content hash)."""

    workflow: str
    version: str

    def __str__(self) -> str:
        return f"version {self.version[:12]} of {self.workflow}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """One transaction's part in one violating row. ``author`` is ``None`` when no version can have written it, ``run``
    when no single run surely did. A transaction of runs that overlap appears once for each version it may be of, none
    of them ``sure``."""

    xid: int
    actor: str
    created: bool
    author: Author | None = None
    run: str | None = None
    sure: bool = True
    removed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One violating row and everyone who wrote it since the position."""

    table: str
    key: tuple[str, ...]
    kind: str
    writes: tuple[Write, ...]

    @property
    def causes(self) -> tuple[Write, ...]:
        """The writes that can have caused it."""
        chosen: tuple[Write, ...] = ()
        if self.kind in CREATED:
            chosen = tuple(w for w in self.writes if w.created)
        elif self.kind in REMOVED:
            chosen = tuple(w for w in self.writes if w.removed)
        return chosen or self.writes


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """``rows``: violating rows its runs wrote; ``only``: those nobody else wrote; ``votes``: rows, each divided by the
    number of those who wrote it; ``runs``: its runs that wrote anything; ``guilty``: those that wrote a violating row.
    Both are 0 when no write can be told to be a single run's."""

    author: Author
    rows: int
    only: int
    votes: float
    runs: int
    guilty: int

    @property
    def rate(self) -> float:
        """Share of its runs that did damage; 1 when runs cannot be told apart."""
        return self.guilty / self.runs if self.runs else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """``also`` are later versions of the same workflow that do damage too. ``outside`` counts violating rows without
    any known author, by who wrote them. Of the ``explained`` rows it has ``surely`` written some."""

    bad: Score
    also: tuple[Score, ...]
    others: tuple[Score, ...]
    explained: int
    surely: int
    total: int
    outside: Mapping[str, int]

    @property
    def confidence(self) -> float:
        """Share of violating rows that the bad version explains; those it only may have written count half."""
        return (self.explained + self.surely) / (2 * self.total)

    @property
    def versions(self) -> frozenset[str]:
        return frozenset({self.bad.author.version, *(s.author.version for s in self.also)})


def score(violations: Sequence[Violation], runs: Mapping[Author, Collection[str]]) -> tuple[Score, ...]:
    """Every author's score, best votes first. ``runs`` are the runs of each author that wrote anything."""
    rows: Counter[Author] = Counter()
    only: Counter[Author] = Counter()
    votes: defaultdict[Author, float] = defaultdict(float)
    guilty: defaultdict[Author, set[str]] = defaultdict(set)
    for violation in violations:
        voters = {w.author or w.actor for w in violation.causes}
        for write in violation.causes:
            if write.author and write.run:
                guilty[write.author].add(write.run)
        for voter in voters:
            if isinstance(voter, Author):
                rows[voter] += 1
                votes[voter] += 1 / len(voters)
                only[voter] += len(voters) == 1
    found = [
        Score(
            author=author,
            rows=rows[author],
            only=only[author],
            votes=votes[author],
            runs=len(set(runs.get(author, ())) | guilty[author]),
            guilty=len(guilty[author]),
        )
        for author in rows
    ]
    return tuple(sorted(found, key=lambda s: (-s.votes, s.author)))


def single_out(
    violations: Sequence[Violation],
    runs: Mapping[Author, Collection[str]],
    *,
    good: Mapping[str, str],
    order: Sequence[Author],
) -> Verdict:
    """The version to blame. ``good`` maps workflows to the version that is known to be good; ``order`` lists authors by
    their first run. Raises ``Undiagnosed`` with the numbers that speak against a verdict."""
    total = len(violations)
    scores = score(violations, runs)
    outside = _outside(violations)
    new = [s for s in scores if good.get(s.author.workflow) != s.author.version]
    if not new:
        raise Undiagnosed(_nobody(scores, outside, total))
    ranked = sorted(new, key=lambda s: (-_fit(s), s.author))
    best = ranked[0]
    family = [s for s in ranked if s.author.workflow == best.author.workflow and (s is best or _also(s, best))]
    authors = {s.author for s in family}
    explained = sum(any(w.author in authors for w in v.causes) for v in violations)
    surely = sum(any(w.author in authors and w.sure for w in v.causes) for v in violations)
    if explained < MIN_EXPLAINED * total:
        raise Undiagnosed(_nobody(scores, outside, total))
    _refuse_rival(best, [s for s in ranked if s.author.workflow != best.author.workflow])
    _refuse_predecessor(best, [s for s in scores if s not in new and s.author.workflow == best.author.workflow])
    first = min(family, key=lambda s: order.index(s.author) if s.author in order else len(order))
    return Verdict(
        bad=first,
        also=tuple(s for s in family if s is not first),
        others=tuple(s for s in scores if s not in family),
        explained=explained,
        surely=surely,
        total=total,
        outside=outside,
    )


def _fit(s: Score) -> float:
    return s.votes * s.rate


def _also(s: Score, best: Score) -> bool:
    """Another new version of the workflow that does damage of its own, about as often."""
    return s.only > 0 and s.rate >= best.rate / 2


def _outside(violations: Sequence[Violation]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for violation in violations:
        if not any(w.author for w in violation.causes):
            counted.update({w.actor for w in violation.causes} or {"nobody in the journal"})
    return dict(counted.most_common())


def _refuse_rival(best: Score, rivals: Sequence[Score]) -> None:
    for rival in rivals:
        if _fit(rival) >= RIVAL * _fit(best):
            raise Undiagnosed(
                f"{best.author} wrote {best.rows} violating rows and {rival.author} {rival.rows}; both are new and fit "
                "about as well. Choose the bad one by hand, or pause one and watch"
            )


def _refuse_predecessor(best: Score, earlier: Sequence[Score]) -> None:
    for one in earlier:
        rate = one.only / one.runs if one.runs else 0.0
        if one.only and rate >= (best.only / best.runs if best.runs else 0.0) / 2:
            raise Undiagnosed(
                f"{one.author}, known to be good, does it too: {one.only} violating rows in {one.runs} runs, against "
                f"{best.only} in {best.runs} of {best.author}. Look for the cause in the events or in the rules"
            )


def _nobody(scores: Sequence[Score], outside: Mapping[str, int], total: int) -> str:
    parts = [f"{s.author}: {s.rows}" for s in scores[:3]] + [f"{actor}: {n}" for actor, n in list(outside.items())[:3]]
    writers = ", ".join(parts) or "nobody in the journal"
    return (
        f"no new version explains the {total} violating rows (written by {writers}). "
        "Look for the cause outside the workflows, or choose the runs to undo by hand"
    )
