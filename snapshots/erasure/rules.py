"""Rows by keyed hashes of their keys: how a list can know a row again without holding anything of it.

A row is known by the HMAC-SHA256 of the exact text of some of its columns. So that millions of rows can be looked
through, a cheaper keyed number is computed for whole columns first, and only rows that pass that sieve are hashed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

SIEVE_BITS = 20
SIEVE_BYTES = 32

Column = Any
"""An Arrow array, chunked or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Rows of one table by the text of some columns. They are gone; or, with ``clears``, they stay, and these columns,
    which named an erased row, read as null."""

    table: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    """Of the columns, as the manifest has them: they decide which texts are one value."""
    hashes: tuple[str, ...] = field(repr=False)
    sieve: tuple[int, ...] = field(repr=False)
    """A few bits of another keyed hash that is computed for whole columns at once: only rows that pass it are worth an
    HMAC."""
    clears: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Hidden:
    """Which rows of one table are erased, for tables of Arrow columns as :func:`chunks.schema` lays them out."""

    app: str
    rules: tuple[Rule, ...]
    secret: bytes = field(repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it must see. One that a table does not have (older shape) hides nothing there."""
        return tuple(dict.fromkeys(c for r in self.rules for c in r.columns))

    def __call__(self, table: pa.Table, /) -> Column:
        """One boolean per row, true for rows to leave out."""
        import pyarrow as pa
        import pyarrow.compute as pc

        out: Column = pa.repeat(pa.scalar(False), table.num_rows)
        for rule in self.rules:
            if not rule.clears and (hit := self._matches(rule, table)) is not None:
                out = pc.or_(out, hit)
        return out

    def settled(self, table: pa.Table) -> pa.Table:
        """The table with nulls for links to erased rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for rule in self.rules:
            if rule.clears and (hit := self._matches(rule, table)) is not None and pc.any(hit).as_py():
                for name in rule.clears:
                    place = table.schema.get_field_index(name)
                    kept: Column = pc.if_else(hit, pa.scalar(None, table.schema.field(place).type), table.column(place))
                    table = table.set_column(place, table.schema.field(place), kept)
        return table

    def _matches(self, rule: Rule, table: pa.Table) -> Column | None:
        import numpy as np
        import pyarrow as pa

        if not set(rule.columns) <= set(table.schema.names):
            return None
        found = texts(table, rule.columns, rule.types)
        wanted = frozenset(rule.hashes)
        head = _head(self.app, rule)
        hits: list[Column] = []
        for chunk in found.chunks if isinstance(found, pa.ChunkedArray) else [found]:
            hit = np.zeros(len(chunk), dtype=bool)
            for place in np.flatnonzero(np.isin(_sieved(self.secret, chunk), np.array(rule.sieve, dtype=np.uint64))):
                value = chunk[int(place)].as_py()
                hit[place] = value is not None and hashed(self.secret, head, value) in wanted
            hits.append(pa.array(hit))
        return pa.chunked_array(hits, pa.bool_())


def rule(
    secret: bytes,
    app: str,
    *,
    table: str,
    columns: Sequence[str],
    types: Sequence[str],
    values: Iterable[str],
    clears: Sequence[str] = (),
) -> Rule:
    """A rule over ``values`` as :func:`texts` gives them."""
    import pyarrow as pa

    chosen = sorted(set(values))
    bare = Rule(table=table, columns=tuple(columns), types=tuple(types), hashes=(), sieve=(), clears=tuple(clears))
    sieve = _sieved(secret, pa.array(chosen, pa.large_string()))
    return replace(
        bare,
        hashes=tuple(sorted(hashed(secret, _head(app, bare), v) for v in chosen)),
        sieve=tuple(sorted({int(n) for n in sieve})),
    )


def texts(table: pa.Table, columns: Sequence[str], types: Sequence[str]) -> Column:
    """One exact text per row for these columns, equal where PostgreSQL calls the values equal; null if one is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from snapshots.points.reading import canonical

    parts: list[Column] = []
    for name, kind in zip(columns, types, strict=True):
        column = canonical(table.column(name), kind)
        if pa.types.is_large_binary(column.type):
            column = pa.chunked_array(
                [pa.array([None if v is None else v.hex() for v in column.to_pylist()], pa.large_string())]
            )
        parts.append(column.cast(pa.large_string()))
    if len(parts) == 1:
        return parts[0]
    pieces: list[Column] = []
    for part in parts:
        pieces += [pc.binary_length(part).cast(pa.large_string()), part]
    joined: Column = pc.binary_join_element_wise(*pieces, pa.scalar(":", pa.large_string()))
    return joined


def hashed(secret: bytes, head: bytes, text: str) -> str:
    return hmac.digest(secret, head + text.encode(), "sha256").hex()


def _sieved(secret: bytes, found: Column) -> Any:
    """A keyed number per text, from its length and first bytes, for a whole array of large strings."""
    import numpy as np

    seed = hashlib.sha256(b"sieve" + secret).digest()
    odd = np.uint64(int.from_bytes(seed[:8], "big") | 1)
    buffers = found.buffers()
    starts = np.frombuffer(buffers[1], np.int64)[found.offset : found.offset + len(found) + 1]
    data = np.frombuffer(buffers[2] or b"\0", np.uint8)
    lengths = np.diff(starts)
    state = lengths.astype(np.uint64) + np.uint64(int.from_bytes(seed[8:16], "big"))
    for byte in range(min(SIEVE_BYTES, int(lengths.max(initial=0)))):
        longer = np.flatnonzero(lengths > byte)
        mixed = (state[longer] ^ data[starts[longer] + byte]) * odd
        state[longer] = mixed ^ (mixed >> np.uint64(29))
    return state >> np.uint64(64 - SIEVE_BITS)


def _head(app: str, rule: Rule) -> bytes:
    return json.dumps([app, rule.table, *rule.columns]).encode()
