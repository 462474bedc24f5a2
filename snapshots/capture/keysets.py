"""Keys of a point that live no longer has: whole columns of keys, in bounded memory.

Keys are compared by a 64-bit mix of their values. A key whose mix live does not have is surely gone. Two keys with one
mix could hide one that is gone, so the number found must be the number that counting says; else the answer is "do not
know", never a wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from snapshots.capture import pieces, touched
from snapshots.capture.pieces import Piece, Work
from snapshots.capture.reader import Reader
from snapshots.model import ColumnInfo, TableManifest
from snapshots.points import chunks, reading

Mixed = np.ndarray[Any, np.dtype[np.uint64]]
TURN_ROWS = 4_000_000
"""Keys that are looked at together; larger tables take several turns."""
_NUMBERS = {"smallint", "integer", "bigint"}
_UUID_DIGITS = [i for i in range(36) if i not in (8, 13, 18, 23)]
_ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def gone(work: Work, base: TableManifest, changed: pa.Table, live_rows: int) -> pa.Table | None:
    """The keys of rows of ``base`` that are gone. ``changed`` are the live rows written since, ``live_rows`` counts all
    live rows. The numbers are compared first: most often nothing is gone. ``None`` when they contradict what is found;
    the table must then be read in full."""
    layout = chunks.schema(touched.key_columns(base))
    asked = changed.select(list(base.key))
    known = sum(b.num_rows for b in reading.batches(work.store, base, columns=base.key, keys=asked))
    missing = base.rows + changed.num_rows - known - live_rows
    found = layout.empty_table()
    if missing > 0:
        turns = -(-max(base.rows, live_rows) // TURN_ROWS)
        found = pa.concat_tables([found, *(_absent(work, base, turn, turns) for turn in range(turns))])
    return found if found.num_rows == missing else None


def _absent(work: Work, base: TableManifest, turn: int, turns: int) -> pa.Table:
    """Keys of the point, of this turn, that live does not have. Live's come straight from the readers; the point's are
    read twice, so that only their mixes are held."""
    columns = touched.key_columns(base)

    def mine(batch: pa.RecordBatch) -> Mixed:
        mixed = mix(batch, columns)
        return mixed if turns == 1 else mixed[mixed % np.uint64(turns) == turn]

    def live(reader: Reader, piece: Piece) -> list[Mixed]:
        return [mine(b) for b in reader.batches(piece.query, columns)]

    parts = pieces.plan(work.conn, base.name, columns)
    there = _sorted([m for listed in work.readers.map(live, parts) for m in listed])
    then = _sorted([mine(b) for b in reading.batches(work.store, base, columns=base.key)])
    places = np.searchsorted(there, then)
    places[places == len(there)] = 0
    absent = then[there[places] != then] if len(there) else then
    found = [
        b.filter(pa.array(np.isin(mix(b, columns), absent)))
        for b in (reading.batches(work.store, base, columns=base.key) if len(absent) else ())
    ]
    return pa.Table.from_batches(found, schema=chunks.schema(columns))


def mix(batch: pa.RecordBatch, columns: Sequence[ColumnInfo]) -> Mixed:
    """One number per key, equal for equal keys."""
    return blend([part for c in columns for part in _numbers(batch.column(c.name), c, batch)])


def blend(parts: Sequence[Mixed]) -> Mixed:
    """One number of several, row by row."""
    total = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        total = _scrambled(total ^ part)
    return total


def _numbers(values: Any, column: ColumnInfo, batch: pa.RecordBatch) -> list[Mixed]:
    count = len(values)
    if column.type in _NUMBERS:
        return [values.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)]
    if column.type == "uuid":
        starts = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + count + 1]
        text = np.frombuffer(values.buffers()[2], np.uint8)[starts[0] : starts[-1]].reshape(count, 36)
        halves = np.frombuffer(bytes.fromhex(text[:, _UUID_DIGITS].tobytes().decode("ascii")), np.uint64)
        return [halves[0::2], halves[1::2]]
    import pandas as pd

    one = TableManifest(name="", columns=(column,), key=(column.name,), rows=count, chunks=())
    same = reading.identity(pa.Table.from_batches([batch]), one).combine_chunks()
    return [pd.util.hash_array(same.to_numpy(zero_copy_only=False), categorize=False).astype(np.uint64)]


def _scrambled(values: Mixed) -> Mixed:
    """The end of splitmix64: every bit of the input reaches every bit of the output, and none is lost."""
    mixed = values + _ODD[0]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _ODD[1]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _ODD[2]
    return mixed ^ (mixed >> np.uint64(31))


def _sorted(parts: list[Mixed]) -> Mixed:
    whole = np.concatenate(parts) if parts else np.zeros(0, np.uint64)
    whole.sort()
    return whole
