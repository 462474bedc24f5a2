"""Attribution where workflows share one database role: by the rows that each run says it wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from platforms.base import Platform, Run, RunDetail
from snapshots.journal.attribution import UNKNOWN_OFFSET, Attributed, attribute
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
    return attribute(transactions, runs, role_of_workflow, offset_s=offset_s, written_keys=written)


def keys_of(detail: RunDetail, tables: Iterable[str]) -> dict[str, set[tuple[str, ...]]] | None:
    """The rows a run wrote by ``schema.table``, ``None`` where it does not tell. A platform may leave the schema out,
    and knows no keys of several columns. Pure."""
    if detail.wrote is None:
        return None
    return {
        table: {(key,) for key in detail.wrote.get(table, detail.wrote.get(table.partition(".")[2], ()))}
        for table in tables
    }
