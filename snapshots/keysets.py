"""Keys of a point that live no longer has: whole columns of keys, compact, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import chunks, pieces, reading, touched
from .model import ColumnInfo, TableManifest
from .pieces import Piece, Work
from .reader import Reader

TURN_ROWS = 4_000_000
"""Keys that are looked at together; larger tables take several turns."""
_NUMBERS = {"smallint", "integer", "bigint"}
_UUID_DIGITS = [i for i in range(36) if i not in (8, 13, 18, 23)]


def gone(work: Work, base: TableManifest, changed: pa.Table, live_rows: int) -> pa.Table | None:
    """The keys of rows of ``base`` that are gone. ``changed`` are the live rows written since, ``live_rows`` counts all
    live rows. The numbers are compared first: most often nothing is gone. ``None`` when the numbers contradict each
    other; the table must then be read in full."""
    layout = chunks.schema(touched.key_columns(base))
    asked = changed.select(list(base.key))
    known = sum(b.num_rows for b in reading.batches(work.store, base, columns=base.key, keys=asked))
    missing = base.rows + changed.num_rows - known - live_rows
    found = layout.empty_table()
    if missing > 0:
        found = _absent(work, base, turns=-(-max(base.rows, live_rows) // TURN_ROWS))
    return found if found.num_rows == missing else None


def _absent(work: Work, base: TableManifest, *, turns: int) -> pa.Table:
    columns = touched.key_columns(base)
    layout = chunks.schema(columns)
    parts = pieces.plan(work.conn, base.name, columns)
    found = [layout.empty_table()]
    if not all(_packs(c) for c in columns):
        turns = 1
    for turn in range(turns):

        def live(reader: Reader, piece: Piece, turn: int = turn) -> list[pa.Array]:
            return [_chosen(b, base, turn, turns)[0] for b in reader.batches(piece.query, columns)]

        there = [ids for listed in work.readers.map(live, parts) for ids in listed]
        mine = [_chosen(b, base, turn, turns) for b in reading.batches(work.store, base, columns=base.key)]
        rows = pa.Table.from_batches([b for _, b in mine], schema=layout)
        if there and mine:
            absent = pc.invert(pc.is_in(pa.chunked_array([i for i, _ in mine]), value_set=pa.chunked_array(there)))
            rows = rows.filter(absent)
        found.append(rows)
    return pa.concat_tables(found)


def _chosen(batch: pa.RecordBatch, manifest: TableManifest, turn: int, turns: int) -> tuple[pa.Array, pa.RecordBatch]:
    """The keys of this turn, as one value each, and their rows."""
    columns = touched.key_columns(manifest)
    if not all(_packs(c) for c in columns):
        return reading.identity(pa.Table.from_batches([batch]), manifest).combine_chunks(), batch
    packed = _packed(batch, columns)
    if turns > 1:
        mine = packed[:, -1] % turns == turn
        packed, batch = np.ascontiguousarray(packed[mine]), batch.filter(pa.array(mine))
    kind = pa.binary(packed.shape[1])
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(packed), [None, pa.py_buffer(packed)]), batch


def _packs(column: ColumnInfo) -> bool:
    return column.type in _NUMBERS or column.type == "uuid"


def _packed(batch: pa.RecordBatch, columns: Sequence[ColumnInfo]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The key's bytes side by side, a row each: numbers with the lowest byte last, uuids as their sixteen."""
    count = batch.num_rows
    parts = []
    for column in columns:
        values = batch.column(column.name)
        if column.type in _NUMBERS:
            parts.append(values.to_numpy(zero_copy_only=False).astype(">i8").view(np.uint8).reshape(count, 8))
            continue
        starts = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + count + 1]
        text = np.frombuffer(values.buffers()[2], np.uint8)[starts[0] : starts[-1]].reshape(count, 36)
        digits = bytes.fromhex(text[:, _UUID_DIGITS].tobytes().decode("ascii"))
        parts.append(np.frombuffer(digits, np.uint8).reshape(count, 16))
    return np.ascontiguousarray(np.hstack(parts))
