"""Entangled runs: whatever cannot stand once the selection is undone joins it, until nothing new comes.

A workflow's run joins whole (all its transactions) and its event is replayed. A person's edit joins as *carried*: it
is taken back with the row it edited and re-applied after the replay. A workflow's write that no run explains surely
is never undone in silence: the plan is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg

from checks.model import Diagnosis
from platforms.base import Run, RunDetail
from recovery.context import AppContext
from recovery.errors import Refused
from recovery.plan import RunSelection
from recovery.selection import undo_spec
from snapshots.journal import journal
from snapshots.journal.attribution import Attributed, attribute, estimate_offset, tagged_pairs
from snapshots.journal.written import attribute_by_rows
from snapshots.model import Attribution, JournalTx, Policy
from snapshots.undo import undo

MARGIN = timedelta(minutes=2)
ROUNDS = 20
THREADS = 4


def close(
    ctx: AppContext,
    connection: psycopg.Connection,
    diagnosis: Diagnosis,
    start: list[RunSelection],
    runs: dict[str, list[Run]],
    policy: Policy,
) -> tuple[tuple[RunSelection, ...], tuple[int, ...]]:
    """The closed selection and the carried transactions."""
    roles = {w.role for w in ctx.app.workflows}
    # Several workflows may share a role: the run says which of them it was.
    key_of = {info.id: key for key, info in ctx.infos().items()}
    attributed: dict[int, Attributed] | None = None
    selection = list(start)
    if any(doubtful(s) for s in start):
        attributed = attribute_all(ctx, connection, diagnosis, runs)
        selection = settle(ctx.app.key, selection, attributed)
    carried: list[int] = []
    for _ in range(ROUNDS):
        spec = undo_spec(ctx.tables, tuple(selection), carried=tuple(carried), policy=policy, caps=ctx.app.caps)
        found = undo.entangled(connection, spec)
        if not found:
            return tuple(selection), tuple(carried)
        if attributed is None:
            attributed = attribute_all(ctx, connection, diagnosis, runs)
        for tx in found:
            if tx.actor not in roles:
                carried.append(tx.xid)
                continue
            known = attributed.get(tx.xid)
            workflow = key_of.get(known.workflow_id or "") if known is not None else None
            if known is None or known.run_id is None or workflow is None or not known.attribution.certain:
                raise Refused(
                    f"plan for app {ctx.app.key}: transaction {tx.xid} of {tx.actor} ({', '.join(tx.tables)}) depends "
                    "on a row to be undone, but its run is not known surely "
                    f"({known.evidence if known else 'it is older than the runs looked at'}); "
                    "tag the workflow's writes with reinstate.run, or decide on this write by hand"
                )
            selection = join(selection, workflow, tx.actor, known, attributed)
    raise Refused(f"plan for app {ctx.app.key}: entangled runs did not come to an end; recover from a point instead")


def doubtful(selected: RunSelection) -> bool:
    """A run that may have written without a tag: its event is replayed, so all that it wrote must be undone."""
    return selected.attribution != Attribution.EXACT and selected.run_id is not None


def settle(app: str, selection: list[RunSelection], attributed: dict[int, Attributed]) -> list[RunSelection]:
    """Doubtful runs with everything they wrote, found by the keys they handled. What only selected runs can have
    written goes with one of them. Pure. Raises :class:`Refused` when somebody else may have written it as well: a
    replay on top of it would count twice."""
    for run in [s for s in selection if doubtful(s)]:
        own = [a for a in attributed.values() if a.run_id == run.run_id and a.attribution.certain]
        if own:
            selection = join(selection, run.workflow, run.role, own[0], attributed)
        for one in attributed.values():
            if one.attribution is not Attribution.AMBIGUOUS or run.run_id not in one.candidates:
                continue
            if any(one.tx.xid in s.xids for s in selection):
                continue
            alone = one.tx.run is None and one.tx.actor == run.role
            if alone and set(one.candidates) <= {s.run_id for s in selection}:
                mine = next(s for s in selection if s.run_id == run.run_id and s.workflow == run.workflow)
                wider = mine.model_copy(update={"xids": tuple(sorted({*mine.xids, one.tx.xid}))})
                selection = [wider if s is mine else s for s in selection]
                continue
            raise Refused(
                f"plan for app {app}: run {run.run_id} of {run.workflow} is to be undone and may have written "
                f"transaction {one.tx.xid} ({', '.join(one.tx.tables)}): {one.evidence}; tag the workflow's writes "
                "with reinstate.run, or decide on this write by hand"
            )
    return selection


def join(
    selection: list[RunSelection], workflow: str, role: str, known: Attributed, attributed: dict[int, Attributed]
) -> list[RunSelection]:
    """Add the run with all transactions that are surely its own."""
    xids = tuple(sorted(x for x, a in attributed.items() if a.run_id == known.run_id and a.attribution.certain))
    mine = [s for s in selection if s.workflow == workflow and s.run_id == known.run_id]
    others = [s for s in selection if s not in mine]
    why = mine[0].why if mine else "entangled"
    return [
        *others,
        RunSelection(
            workflow=workflow,
            role=role,
            run_id=known.run_id,
            xids=tuple(sorted({*xids, *(x for s in mine for x in s.xids)})),
            why=why,
            attribution=known.attribution,
        ),
    ]


def attribute_all(
    ctx: AppContext, connection: psycopg.Connection, diagnosis: Diagnosis, runs: dict[str, list[Run]]
) -> dict[int, Attributed]:
    """Every journal transaction since the first bad commit with the run it belongs to, as surely as can be told."""
    infos = ctx.infos()
    role_of = {infos[w.key].id: w.role for w in ctx.app.workflows}
    everything = [r for of_workflow in runs.values() for r in of_workflow]
    transactions = journal.transactions(connection, since=diagnosis.first_bad_at - MARGIN, with_keys=True)
    connection.rollback()
    offset = estimate_offset(tagged_pairs(transactions, everything, role_of))
    first = attribute_by_rows(ctx.platform, transactions, everything, role_of, offset_s=offset)
    if ctx.platform.capabilities.names_written_rows:
        return {a.tx.xid: a for a in first}
    unsure = {r for a in first if a.attribution is Attribution.AMBIGUOUS for r in a.candidates}
    if unsure:
        wanted = [a.tx for a in first if a.attribution is Attribution.AMBIGUOUS]
        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            details = dict(zip(sorted(unsure), pool.map(ctx.platform.run_detail, sorted(unsure)), strict=True))
        handled = {run: keys_in(detail, wanted) for run, detail in details.items()}
        first = attribute(transactions, everything, role_of, offset_s=offset, returned_keys=handled)
    return {a.tx.xid: a for a in first}


def keys_in(detail: RunDetail, transactions: Iterable[JournalTx]) -> dict[str, set[tuple[str, ...]]]:
    """Which of the transactions' keys the run received or returned, by table. Pure."""
    seen = {str(v) for v in scalars([detail.event, *detail.outputs.values()])}
    found: dict[str, set[tuple[str, ...]]] = {}
    for tx in transactions:
        for table, keys in tx.keys.items():
            found.setdefault(table, set()).update(k for k in keys if all(part in seen for part in k))
    return found


def scalars(value: Any) -> Iterator[Any]:
    """Every scalar inside nested mappings and sequences."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from scalars(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from scalars(inner)
    elif value is not None:
        yield value
