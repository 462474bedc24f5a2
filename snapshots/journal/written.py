"""Attribution where workflows share one database role: by the rows that each run says it wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from platforms.base import Platform, Run, RunDetail
from snapshots.journal.attribution import UNKNOWN_OFFSET, Attributed, attribute, estimate_offset
from snapshots.model import JournalTx

THREADS = 4


def attribute_by_rows(
    platform: Platform,
    transactions: Sequence[JournalTx],
    runs: Sequence[Run],
    role_of_workflow: Mapping[str, str],
    *,
    offset_s: float | tuple[float, float] = UNKNOWN_OFFSET,
) -> list[Attributed]:
    """:func:`~snapshots.journal.attribution.attribute`; where the platform ``names_written_rows``, once more with what
    all candidates of untagged writes wrote. ``transactions`` carry their keys there. Raises what the platform does."""
    first = attribute(transactions, runs, role_of_workflow, offset_s=offset_s)
    asked = sorted({run for a in first if a.tx.run is None for run in a.candidates})
    if not platform.capabilities.names_written_rows or not asked:
        return first
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        details = pool.map(platform.run_detail, asked)
    tables = {table for tx in transactions for table in tx.keys}
    written = {d.run.id: keys for d in details if (keys := keys_of(d, tables)) is not None}
    graded = attribute(transactions, runs, role_of_workflow, offset_s=offset_s, written_keys=written)
    # Writes with but one run that names their rows tell the clocks' difference, and that leaves fewer candidates.
    by_id = {run.id: run for run in runs}
    sure = [(a.tx, by_id[a.run_id]) for a in graded if a.run_id and len(a.candidates) == 1]
    wide = offset_s if isinstance(offset_s, tuple) else (offset_s, offset_s)
    narrow = estimate_offset(sure, default=wide) if sure else wide
    return attribute(transactions, runs, role_of_workflow, offset_s=narrow, written_keys=written)


def keys_of(detail: RunDetail, tables: Iterable[str]) -> dict[str, dict[str, set[tuple[str, ...]]]] | None:
    """The rows a run wrote by ``schema.table`` and kind; ``None`` where it does not tell. A platform may leave the
    schema out, and knows no keys of several columns. Pure."""
    if detail.wrote is None:
        return None
    return {
        table: {
            kind: {(key,) for key in keys}
            for kind, keys in detail.wrote.get(table, detail.wrote.get(table.partition(".")[2], {})).items()
        }
        for table in tables
    }
