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
from snapshots.store.store import Store

_SENT = {"smallint": ("int2send", ">i2"), "integer": ("int4send", ">i4"), "bigint": ("int8send", ">i8")}
_MOST_BITS = 20
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
) -> Named | None:
    """Compare the keys of ``live``, whose rows are newer where ``fresh`` holds (alias ``t``), with the point's; in the
    caller's transaction (role: reads the table). The key is :func:`fixed`. ``None`` when what is found contradicts the
    counts: the rows must then be compared. Memory: some 40 bytes a row."""
    with ThreadPoolExecutor(1) as beside:
        reader = beside.submit(_then, store, manifest, app)
        now, newer = _now(conn, manifest, live, fresh)
        keys, then = reader.result()
    bits = min(_MOST_BITS, max(8, max(len(now), len(then)).bit_length()))
    unlike = _sums(now, bits) != _sums(then, bits)
    absent = _among(then, unlike, bits)
    absent[absent] = ~np.isin(then[absent], now[_among(now, unlike, bits)])
    gone = keys.filter(pa.array(absent))
    hidden = erasure.hides(store, app, manifest.name, manifest.erased) if app else None
    # Of an erased row live may have a version that is as old as the point.
    if hidden is None and gone.num_rows != keys.num_rows + newer.num_rows - len(now) - _known(
        keys, then, newer, manifest=manifest, bits=bits
    ):
        return None
    return Named(newer=newer, gone=gone)


def _then(store: Store, manifest: TableManifest, app: str | None) -> tuple[pa.Table, Mixed]:
    columns = touched.key_columns(manifest)
    batches = list(reading.batches(store, manifest, columns=manifest.key, app=app))
    mixed = [keysets.mix(b, columns) for b in batches]
    keys = pa.Table.from_batches(batches, schema=chunks.schema(columns))
    return keys, np.concatenate(mixed) if mixed else np.zeros(0, np.uint64)


def _now(
    conn: Connection[Any], manifest: TableManifest, live: sql.Composable, fresh: sql.Composable
) -> tuple[Mixed, pa.Table]:
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
    with conn.cursor(binary=True) as cursor:
        for stretch in pieces.stretches(conn, manifest.name):
            row = cursor.execute(asked.format(sent, texts, fresh, live, stretch)).fetchone()
            raw, lines = row or (None, None)
            mixed.append(keysets.blend(_parts(raw or b"", columns)))
            newer.extend(chunks.from_csv([lines, b"\n"] if lines else [], columns))
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


def _among(mixed: Mixed, marked: np.ndarray[Any, np.dtype[np.bool_]], bits: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each number falls into a marked bucket."""
    found = np.empty(len(mixed), np.bool_)
    for part in _slices(mixed):
        found[part] = marked[_buckets(mixed[part], bits)]
    return found


def _known(
    keys: pa.Table,
    then: Mixed,
    newer: pa.Table,
    *,
    manifest: TableManifest,
    bits: int,
) -> int:
    """How many of the ``newer`` keys the point has."""
    columns = touched.key_columns(manifest)
    near = np.zeros(1 << bits, np.bool_)
    for batch in newer.to_batches():
        near[_buckets(keysets.mix(batch, columns), bits)] = True
    among: Any = reading.identity(keys.filter(pa.array(_among(then, near, bits))), manifest)
    return int(pc.sum(pc.is_in(among, value_set=reading.identity(newer, manifest))).as_py() or 0)
