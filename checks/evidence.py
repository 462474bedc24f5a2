"""What journal and platform know about a stretch of time: transactions, runs, and which wrote what. Thin I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from catalog.models import App
from checks.blame import Author, Violation, Write
from checks.delta import Twin, trusted, twin
from checks.errors import Undiagnosed
from checks.model import Finding
from checks.versions import NOTHING, possible
from platforms.base import Platform, Run
from snapshots.journal import journal
from snapshots.journal.attribution import Attributed, estimate_offset, tagged_pairs
from snapshots.journal.written import attribute_by_rows
from snapshots.model import Position
from snapshots.position import after

Offset = float | tuple[float, float] | None
"""Platform minus database clock in seconds, as a number or bounds; ``None``: estimate it from tagged writes."""

LONGEST_RUN = timedelta(minutes=5)
"""Runs are read from this long before the first transaction, as it may belong to one already under way."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """``runs`` by catalogue key, oldest first; ``attributed`` in journal order; ``offset_s`` the bounds used."""

    ids: Mapping[str, str]
    runs: Mapping[str, tuple[Run, ...]]
    attributed: tuple[Attributed, ...]
    offset_s: tuple[float, float]
    by_id: Mapping[str, tuple[str, Run]] = field(repr=False)
    """Run id -> catalogue key and run."""
    maybe: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Run id -> the versions it may have used, where that is not known; nothing where nobody can tell."""

    def authors(self, one: Attributed) -> frozenset[Author]:
        """The versions that may have written it: one if the run and its version are sure, or if all candidates used
        the same. None when a candidate may have used any."""
        found = set()
        for run_id in (one.run_id,) if one.run_id else one.candidates:
            workflow, run = self.by_id[run_id]
            used = frozenset({run.version_hash}) if run.version_hash else self.maybe.get(run_id, NOTHING)
            if not used:
                return frozenset()
            found |= {Author(workflow=workflow, version=version) for version in used}
        return frozenset(found)

    def author(self, one: Attributed) -> Author | None:
        """The version that surely wrote it."""
        found = self.authors(one)
        return next(iter(found)) if len(found) == 1 else None

    def xids(self, run_id: str) -> tuple[int, ...]:
        """Transactions that are surely the run's."""
        return tuple(sorted({a.tx.xid for a in self.attributed if a.run_id == run_id}))

    def to_database_clock(self, at: datetime | None) -> datetime | None:
        return at - timedelta(seconds=sum(self.offset_s) / 2) if at else None


def workflow_ids(app: App, platform: Platform, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Platform id by catalogue key: as ``known``, for who can tell renamed ones, else by name. Raises ``Undiagnosed``
    for one that is not known, or whose name is not there exactly once."""
    by_name: dict[str, list[str]] = {}
    for info in platform.workflows():
        by_name.setdefault(info.name, []).append(info.id)
    named = {w.key: by_name.get(w.name, []) for w in app.workflows}
    ids = {key: found[0] for key, found in named.items() if len(found) == 1} if known is None else known
    for workflow in app.workflows:
        if workflow.key not in ids:
            raise Undiagnosed(
                f"workflow {workflow.key}: {len(named[workflow.key])} workflows named {workflow.name!r} in the "
                "platform. Correct the name in the catalogue or in the platform"
            )
    return {key: ids[key] for key in named}


def read(
    conn: psycopg.Connection[Any],
    app: App,
    platform: Platform,
    *,
    since: Position | datetime,
    offset_s: Offset = None,
    before: Mapping[str, str] | None = None,
    ids: Mapping[str, str] | None = None,
) -> Record:
    """Transactions of the app's workflow roles after ``since``, all runs of that time, and who wrote what. ``before``
    are the versions that the workflows used at ``since``, as far as known; ``ids`` as in :func:`workflow_ids`."""
    # The journal first: a run that only starts in between can then be no missing candidate.
    transactions = journal.transactions(conn, since=since, with_keys=platform.capabilities.names_written_rows)
    start = since.at if isinstance(since, Position) else since
    earliest = min((t.first_at for t in transactions), default=start)
    ids = workflow_ids(app, platform, ids)
    runs_since = max(min(earliest, start), EPOCH + LONGEST_RUN) - LONGEST_RUN if start > EPOCH else None
    runs = {key: tuple(platform.runs(id_, since=runs_since)) for key, id_ in ids.items()}
    everything = [r for own in runs.values() for r in own]
    roles = {ids[w.key]: w.role for w in app.workflows}
    match offset_s:
        case None:
            offset = estimate_offset(tagged_pairs(transactions, everything, roles))
        case (low, high):
            offset = (low, high)
        case number:
            offset = (float(number), float(number))
    return Record(
        ids=ids,
        runs=runs,
        attributed=tuple(attribute_by_rows(platform, transactions, everything, roles, offset_s=offset)),
        offset_s=offset,
        by_id={r.id: (key, r) for key, own in runs.items() for r in own},
        maybe=_maybe(platform, ids, runs, before or {}),
    )


def _maybe(
    platform: Platform, ids: Mapping[str, str], runs: Mapping[str, Sequence[Run]], before: Mapping[str, str]
) -> dict[str, frozenset[str]]:
    """What runs without a known version may have used; the platform is asked only where there are such runs."""
    found: dict[str, frozenset[str]] = {}
    for key, own in runs.items():
        if any(r.version_hash is None for r in own):
            now = platform.live_version(ids[key]) or platform.draft_version(ids[key])
            found |= possible(own, first=before.get(key), last=now.hash)
    return found


def violations(
    conn: psycopg.Connection[Any], findings: Sequence[Finding], *, since: Position | datetime | None
) -> tuple[Violation, ...]:
    """Each violating row once, with everyone who wrote it after ``since`` (ever, when ``None``). Authors are not yet
    known: see :func:`authored`. A row that breaks several rules is judged by the first of them."""
    found: dict[tuple[str, tuple[str, ...]], Violation] = {}
    for finding in findings:
        table = twin(conn, finding.table, f"detector {finding.detector}")
        keys = [k for k in finding.keys if (finding.table, k) not in found]
        writes = _writes(conn, table, keys, since, finding.columns)
        for n, key in enumerate(keys):
            found[finding.table, key] = Violation(
                table=finding.table, key=key, kind=finding.kind, writes=tuple(writes.get(n, ()))
            )
    return tuple(found.values())


def _writes(
    conn: psycopg.Connection[Any],
    table: Twin,
    keys: Sequence[tuple[str, ...]],
    since: Position | datetime | None,
    about: tuple[str, ...],
) -> dict[int, list[Write]]:
    """Per key (by its place) who wrote it; given columns ``about``, only writes that changed one of them."""
    if not keys:
        return {}
    names = [f"k{i}" for i in range(len(table.key))]
    match since:
        case None:
            when: sql.Composable = sql.SQL("true")
        case Position():
            when = after(since, sql.Identifier("t", "rj_xid"))
        case _:
            when = sql.SQL("t.rj_at >= {}").format(sql.Literal(since))
    query = sql.SQL(
        "SELECT k.n - 1, t.rj_xid::text::bigint, t.rj_actor::text, bool_or(t.rj_op = 'I' AND t.rj_side = 'n'), "
        "bool_or(t.rj_op IN ('D', 'T') AND t.rj_side = 'o') "
        "FROM unnest({arrays}) WITH ORDINALITY AS k({names}, n) JOIN {twin} AS t ON {same} "
        "WHERE t.rj_side IN ('o', 'n') AND {after} GROUP BY 1, 2, 3{changing} ORDER BY 1, min(t.rj_seq)"
    ).format(
        arrays=sql.SQL(", ").join(
            sql.SQL("{}::text[]").format(sql.Literal([key[i] for key in keys])) for i in range(len(table.key))
        ),
        names=sql.SQL(", ").join(map(sql.Identifier, names)),
        twin=table.journal,
        same=sql.SQL(" AND ").join(
            sql.SQL("{} = {}::{}").format(
                sql.Identifier("t", column), sql.Identifier("k", name), trusted(table.types[column])
            )
            for column, name in zip(table.key, names, strict=True)
        ),
        after=when,
        changing=_changing(about),
    )
    found: dict[int, list[Write]] = {}
    for n, xid, actor, created, removed in conn.execute(query):
        found.setdefault(n, []).append(Write(xid=xid, actor=actor, created=created, removed=removed))
    return found


def _changing(about: tuple[str, ...]) -> sql.Composable:
    """``HAVING`` the images of one key before and after its transaction differ in these columns, as multisets."""
    if not about:
        return sql.SQL("")
    values = sql.SQL("ARRAY[{}]").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("t", column)) for column in about)
    )
    side = "array_agg({values} ORDER BY {values}) FILTER (WHERE t.rj_side = '{side}')"
    return sql.SQL(" HAVING ") + sql.SQL(" IS DISTINCT FROM ").join(
        trusted(side.replace("{side}", s)).format(values=values) for s in "on"
    )


def authored(found: Collection[Violation], record: Record) -> tuple[Violation, ...]:
    """The violations with the authors of each write, as far as the record knows them."""
    by_tx: dict[tuple[int, str], list[Attributed]] = {}
    for one in record.attributed:
        by_tx.setdefault((one.tx.xid, one.tx.actor), []).append(one)

    def known(write: Write) -> list[Write]:
        answers = by_tx.get((write.xid, write.actor), [])
        authors = sorted({author for one in answers for author in record.authors(one)})
        # One transaction for several runs: none of them is surely the one that wrote this row.
        run = answers[0].run_id if len(answers) == 1 else None
        sure = len(authors) == 1
        return [replace(write, author=a, run=run if sure else None, sure=sure) for a in authors] or [write]

    return tuple(replace(v, writes=tuple(w for one in v.writes for w in known(one))) for v in found)
