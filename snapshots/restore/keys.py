"""Which keys of a point live no longer has, and which live rows are newer: from one scan that sends all keys.

Keys of fixed width travel as their bytes, those of a stretch of pages in one value: a row by itself costs more to
receive than to compare, and a text more than a number. Both sides fall into buckets by a 64-bit mix of the key; only
buckets whose sums differ are looked into. The point's keys are read while the server scans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import Connection, sql

from snapshots.capture import keysets, pieces, touched
from snapshots.capture.keysets import Mixed
from snapshots.erasure import erasure
from snapshots.model import ColumnInfo, TableManifest
from snapshots.points import chunks, reading
from snapshots.points.errors import Damaged
from snapshots.store.store import Store

Flags = np.ndarray[Any, np.dtype[np.bool_]]
_SENT = {"smallint": ("int2send", ">i2"), "integer": ("int4send", ">i4"), "bigint": ("int8send", ">i8")}
_MOST_BITS = 20
_HELD_BYTES = 16 * 1024 * 1024
"""Of a point's keys: more of them are read again when they are wanted again."""
_AT_ONCE = 1 << 18
_WEIGHT = np.uint64(0xFFFFFFFF)
"""Sums of numbers of so many bits are exact as floats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """Keys of live rows that are newer than the point, and keys of its rows that are gone."""

    newer: pa.Table
    gone: pa.Table


def fixed(columns: Sequence[ColumnInfo]) -> bool:
    """Whether a key of these columns has as many bytes in each row."""
    return all(c.type in _SENT or c.type == "uuid" for c in columns)


def find(
    conn: Connection[Any],
    store: Store,
    manifest: TableManifest,
    *,
    live: sql.Composable,
    fresh: sql.Composable,
    app: str | None,
    most: int,
) -> Named | None:
    """Compare the keys of ``live``, whose rows are newer where ``fresh`` holds (alias ``t``), with the point's; in the
    caller's transaction (role: reads the table). The key is :func:`fixed`. ``None`` when what is found contradicts the
    counts, or when over ``most`` keys are newer or gone: the rows must then be compared. Memory: some 32 bytes a row
    and 300 for each key found; the point's keys are read twice where they are large."""
    point = _Point(store, manifest, app)
    with ThreadPoolExecutor(1) as beside:
        reader = beside.submit(point.mixed)
        found = _now(conn, manifest, live, fresh, most)
        then = reader.result()
    if found is None or len(then) - len(found[0]) > most:
        return None
    now, newer = found
    bits = min(_MOST_BITS, max(8, max(len(now), len(then)).bit_length()))
    unlike = _sums(now, bits) != _sums(then, bits)
    count, rows = len(now), len(then)
    there = now[_among(now, unlike, bits)]
    there.sort()
    del now, then, reader, found
    gone, known = point.without(there, unlike, newer, bits)
    hidden = erasure.hides(store, app, manifest.name, manifest.erased) if app else None
    # Of an erased row live may have a version that is as old as the point.
    if hidden is None and gone.num_rows != rows + newer.num_rows - count - known:
        return None
    return Named(newer=newer, gone=gone)


class _Point:
    """The keys of a point's table, as often as they are wanted; held in memory while they are few."""

    def __init__(self, store: Store, manifest: TableManifest, app: str | None) -> None:
        self._store, self._manifest, self._app = store, manifest, app
        self.columns = touched.key_columns(manifest)
        self._held: list[pa.RecordBatch] | None = []

    def mixed(self) -> Mixed:
        """One number per key. Before :meth:`without`; in any thread."""
        found = np.empty(self._manifest.rows, np.uint64)
        end = size = 0
        for batch in self._read():
            if end + batch.num_rows > len(found):
                raise Damaged(f"Table {self._manifest.name} has over {end} rows in its chunks; use another point.")
            found[end : end + batch.num_rows] = keysets.mix(batch, self.columns)
            end, size = end + batch.num_rows, size + batch.nbytes
            if self._held is not None:
                self._held.append(batch)
                self._held = self._held if size <= _HELD_BYTES else None
        return found[:end]

    def without(self, there: Mixed, unlike: Flags, newer: pa.Table, bits: int) -> tuple[pa.Table, int]:
        """The keys in ``unlike`` buckets that are not among the sorted numbers ``there``; and how many of the ``newer``
        keys the point has."""
        fresh = [keysets.mix(batch, self.columns) for batch in newer.to_batches()]
        named = np.sort(np.concatenate(fresh)) if fresh else np.zeros(0, np.uint64)
        near = np.zeros(1 << bits, np.bool_)
        near[_buckets(named, bits)] = True
        gone, alike = [], []
        for batch in self._read() if self._held is None else self._held:
            mixed = keysets.mix(batch, self.columns)
            absent = _among(mixed, unlike, bits)
            absent[absent] = ~_present(mixed[absent], there)
            gone.append(batch.filter(pa.array(absent)))
            some = _among(mixed, near, bits)
            some[some] = _present(mixed[some], named)
            alike.append(batch.filter(pa.array(some)))
        schema = chunks.schema(self.columns)
        same: Any = pc.is_in(
            reading.identity(pa.Table.from_batches(alike, schema=schema), self._manifest),
            value_set=reading.identity(newer, self._manifest),
        )
        return pa.Table.from_batches(gone, schema=schema), int(pc.sum(same).as_py() or 0)

    def _read(self) -> Iterator[pa.RecordBatch]:
        return reading.batches(self._store, self._manifest, columns=self._manifest.key, app=self._app)


def _now(
    conn: Connection[Any], manifest: TableManifest, live: sql.Composable, fresh: sql.Composable, most: int
) -> tuple[Mixed, pa.Table] | None:
    """One number per live key, and the newer keys; ``None`` when these are over ``most``."""
    columns = touched.key_columns(manifest)
    names = [sql.Identifier("t", c.name) for c in columns]
    sent = sql.SQL(" || ").join(
        sql.SQL("{}({})").format(sql.SQL(_SENT[c.type][0] if c.type in _SENT else "uuid_send"), name)
        for c, name in zip(columns, names, strict=True)
    )
    texts = sql.SQL(" || ',' || ").join(sql.SQL("{}::text").format(name) for name in names)
    asked = sql.SQL(
        "SELECT string_agg({}, ''::bytea), convert_to(string_agg({}, chr(10)) FILTER (WHERE {}), 'UTF8')"
        " FROM {} t WHERE {}"
    )
    mixed: list[Mixed] = []
    newer: list[pa.RecordBatch] = []
    count = held = 0
    with conn.cursor(binary=True) as cursor:
        for stretch in pieces.stretches(conn, manifest.name):
            row = cursor.execute(asked.format(sent, texts, fresh, live, stretch)).fetchone()
            raw, lines = row or (None, None)
            mixed.append(keysets.blend(_parts(raw or b"", columns)))
            newer.extend(chunks.from_csv([lines, b"\n"] if lines else [], columns))
            count += sum(batch.num_rows for batch in newer[held:])
            held = len(newer)
            if count > most:
                return None
    return np.concatenate(mixed), pa.Table.from_batches(newer, schema=chunks.schema(columns))


def _parts(raw: bytes, columns: Sequence[ColumnInfo]) -> list[Mixed]:
    """The numbers that :func:`keysets.mix` would make of the same keys."""
    layout: list[tuple[str, str]] = []
    for number, column in enumerate(columns):
        if column.type in _SENT:
            layout.append((f"{number}", _SENT[column.type][1]))
        else:
            layout.extend(((f"{number}a", "=u8"), (f"{number}b", "=u8")))
    keys = np.frombuffer(raw, np.dtype(layout))
    return [
        keys[name].astype(np.uint64) if form == "=u8" else keys[name].astype(np.int64).view(np.uint64)
        for name, form in layout
    ]


def _buckets(mixed: Mixed, bits: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return (mixed >> np.uint64(64 - bits)).view(np.int64)


def _slices(mixed: Mixed) -> Iterator[slice]:
    """What is computed on the way to a result is as long as one of them."""
    return (slice(start, start + _AT_ONCE) for start in range(0, len(mixed), _AT_ONCE))


def _sums(mixed: Mixed, bits: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    total = np.zeros(1 << bits)
    for part in _slices(mixed):
        weights = (mixed[part] & _WEIGHT).astype(np.float64)
        total += np.bincount(_buckets(mixed[part], bits), weights=weights, minlength=1 << bits)
    return total


def _among(mixed: Mixed, marked: Flags, bits: int) -> Flags:
    """Whether each number falls into a marked bucket."""
    found = np.empty(len(mixed), np.bool_)
    for part in _slices(mixed):
        found[part] = marked[_buckets(mixed[part], bits)]
    return found


def _present(mixed: Mixed, among: Mixed) -> Flags:
    """Whether each number is in ``among``, which is sorted."""
    if not len(among):
        return np.zeros(len(mixed), np.bool_)
    places = np.searchsorted(among, mixed)
    places[places == len(among)] = 0
    found: Flags = among[places] == mixed
    return found
