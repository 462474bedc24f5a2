"""A table in a few kilobytes: sums of row hashes by bucket, so that two states can be compared without their rows.

A row's hash is of its exact values: ``1.1`` and ``1.10``, ``-0`` and ``0``, null and empty are different, and a column
swapped between two rows shows, because each row is hashed as a whole before hashes are added. Rows go to buckets by
their key (without a key: by all of the row). Sums are modulo 2**64, two of them with different seeds. Since they are
sums, changes can be added and taken off: a state plus the journal's new images minus its old ones is the later state.

The first entry tells what the rest can be compared with: this format, the server's major version (hash functions may
change with it), the number of buckets, and the columns. Hashes are PostgreSQL's own and keep nobody out: they find
accidents and gaps, while the SHA-256 of its chunks is a point's identity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg import Connection, sql

from snapshots.capture import shape
from snapshots.errors import Refused
from snapshots.model import ColumnInfo
from snapshots.points import chunks

FORMAT = "1"
BUCKETS = 1024
Sums = dict[int, tuple[int, int]]
"""Two sums for each bucket that is not zero."""

_WRAP = 2**64
_EXACT = frozenset(
    {
        "smallint",
        "integer",
        "bigint",
        "boolean",
        "bytea",
        "uuid",
        "date",
        "time without time zone",
        "timestamp without time zone",
        "timestamp with time zone",
    }
)
"""Types whose equal values are the same value, and which are hashed as they are. All others are hashed as text."""


def fingerprint(
    conn: Connection[Any], columns: Sequence[ColumnInfo], table: str, key: Sequence[str], *, buckets: int = BUCKETS
) -> tuple[str, ...]:
    """The fingerprint of ``table`` as the transaction of ``conn`` sees it (a role that reads the table; one scan, in
    parallel where the server can). Settings of this transaction that decide how values print are fixed."""
    chunks.settle(conn)
    source = sql.SQL("{} AS t").format(shape.source(conn, table))
    found = sums(conn, source, "t", columns, key, buckets=buckets)
    return written(found, tag(conn, columns, key, buckets))


def tag(conn: Connection[Any], columns: Sequence[ColumnInfo], key: Sequence[str], buckets: int = BUCKETS) -> str:
    """First entry of a fingerprint that was taken here, of these columns."""
    kept = repr(([(c.name, c.type) for c in chunks.stored(columns)], list(key)))
    return f"{FORMAT}:{conn.info.server_version // 10000}:{buckets}:{hashlib.sha256(kept.encode()).hexdigest()[:16]}"


def sums(
    conn: Connection[Any],
    source: sql.Composable,
    alias: str,
    columns: Sequence[ColumnInfo],
    key: Sequence[str],
    *,
    buckets: int = BUCKETS,
    sign: sql.Composable | None = None,
) -> Sums:
    """Sums over the rows ``alias`` of ``source`` (what stands after FROM). ``sign`` is an SQL expression, 1 or -1,
    by which a row counts."""
    factor = sign or sql.SQL("1")
    rows = conn.execute(
        sql.SQL(
            "SELECT {bucket}, sum({factor} * {one}::numeric), sum({factor} * {two}::numeric) FROM {source} GROUP BY 1"
            if sign
            else "SELECT {bucket}, sum({one}), sum({two}) FROM {source} GROUP BY 1"
        ).format(
            bucket=bucket(columns, key, alias, buckets),
            factor=factor,
            one=row_hash(columns, alias, 0),
            two=row_hash(columns, alias, 1),
            source=source,
        )
    ).fetchall()
    return {r[0]: (int(r[1]) % _WRAP, int(r[2]) % _WRAP) for r in rows}


def row_hash(columns: Sequence[ColumnInfo], alias: str, seed: int) -> sql.Composed:
    """SQL expression, bigint: the hash of a row's exact values. Hashed once more, because the hash of a record is
    itself a sum over its columns."""
    return sql.SQL("hashint8extended(hash_record_extended({}, {seed}), {seed})").format(
        _record(chunks.stored(columns), alias), seed=sql.Literal(seed)
    )


def bucket(columns: Sequence[ColumnInfo], key: Sequence[str], alias: str, buckets: int) -> sql.Composed:
    """SQL expression: the number of a row's bucket."""
    kept = [c for name in key for c in columns if c.name == name] or list(chunks.stored(columns))
    return sql.SQL("mod(hash_record_extended({}, 2) & 9223372036854775807, {})::int").format(
        _record(kept, alias), sql.Literal(buckets)
    )


def _record(columns: Sequence[ColumnInfo], alias: str) -> sql.Composed:
    return sql.SQL("ROW({})").format(sql.SQL(", ").join(exact(c, alias) for c in columns))


def exact(column: ColumnInfo, alias: str) -> sql.Composable:
    """SQL expression for a column that is equal for two rows exactly if their values are the same."""
    name = sql.Identifier(alias, column.name)
    kind = column.type.partition("(")[0]
    if kind in _EXACT or column.type in _EXACT or _timestamp(column.type):
        return name
    if kind in ("character", "bpchar"):
        # Its cast to text strips trailing blanks.
        return sql.SQL('ROW({})::text COLLATE "C"').format(name)
    return sql.SQL('{}::text COLLATE "C"').format(name)


def _timestamp(type_name: str) -> bool:
    """With a precision, such as ``timestamp(3) with time zone``; the date and time types but ``timetz``."""
    return type_name.startswith("timestamp(") or (type_name.startswith("time(") and "without" in type_name)


def written(found: Mapping[int, tuple[int, int]], head: str) -> tuple[str, ...]:
    """Sums as they stand in a manifest: the tag, then ``bucket:sums`` in hexadecimal, by bucket."""
    return (head, *(f"{number:x}:{one:016x}{two:016x}" for number, (one, two) in sorted(found.items()) if one or two))


def read(fingerprint: Sequence[str]) -> tuple[str, Sums]:
    """The tag and the sums. Raises :class:`Refused` when that is no fingerprint."""
    try:
        pairs = [entry.split(":") for entry in fingerprint[1:]]
        return fingerprint[0], {int(n, 16): (int(both[:16], 16), int(both[16:], 16)) for n, both in pairs}
    except (IndexError, ValueError):
        raise Refused("The point's fingerprint cannot be read; compare by rows or take a new point.") from None


def added(*parts: Mapping[int, tuple[int, int]]) -> Sums:
    """The sums of all of them together."""
    total: Sums = {}
    for part in parts:
        for number, (one, two) in part.items():
            had = total.get(number, (0, 0))
            total[number] = ((had[0] + one) % _WRAP, (had[1] + two) % _WRAP)
    return total


def differing(left: Mapping[int, tuple[int, int]], right: Mapping[int, tuple[int, int]]) -> tuple[int, ...]:
    """Buckets whose sums are not the same."""
    numbers: Iterable[int] = {*left, *right}
    return tuple(sorted(n for n in numbers if left.get(n, (0, 0)) != right.get(n, (0, 0))))
