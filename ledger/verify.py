"""Is the ledger what was written? Pure: over stored entries, in order, and the head kept apart from them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ledger.entry import Stored, canonical, digest, genesis
from ledger.headfile import Head

MAX_HEAD_LAG = 64
"""The head file lags by design, but only by the appends that are under way or were cut off."""


def problems(entries: Iterable[Stored], *, ledger_id: str, head: Head | None) -> list[str]:
    """What is wrong, in order: missing entries, broken links, altered contents, a cut tail. Empty when all is well.

    ``head`` must have been read before ``entries``. Method: one pass over the hash chain (see :mod:`ledger.entry`)."""
    found: list[str] = []
    before = genesis(ledger_id)
    seq = 0
    at_head = before if head is not None and head.seq == 0 else None
    for stored in entries:
        gap = stored.seq - seq - 1
        if gap:
            found.append(_missing(seq + 1, stored.seq - 1) if gap > 0 else f"entry {stored.seq}: out of order")
        elif stored.prev_hash != before:
            whom = f"entry {seq}" if seq else "the beginning of this ledger"
            found.append(f"entry {stored.seq}: broken link, it does not follow {whom}")
        found.extend(_content(stored))
        before, seq = stored.hash, stored.seq
        if head is not None and stored.seq == head.seq:
            at_head = stored.hash
    if head is not None:
        found.extend(_against(head, ledger_id=ledger_id, seq=seq, at_head=at_head))
    return found


def _missing(first: int, last: int) -> str:
    return f"entry {first}: missing" if first == last else f"entries {first} to {last}: missing"


def _content(stored: Stored) -> list[str]:
    """An altered entry, whichever of its fields was altered."""
    try:
        expected = digest(stored)
        altered_text = canonical(json.loads(stored.body)) != stored.body
    except (TypeError, ValueError):
        return [f"entry {stored.seq}: altered, its body is not JSON any more"]
    if expected != stored.hash or altered_text:
        return [f"entry {stored.seq}: altered, its content does not give its hash"]
    return []


def _against(head: Head, *, ledger_id: str, seq: int, at_head: str | None) -> list[str]:
    if head.ledger != ledger_id:
        return [f"head file: it belongs to ledger {head.ledger}, this is ledger {ledger_id}: replaced as a whole"]
    if head.seq > seq:
        return [f"{_missing(seq + 1, head.seq)} from the end: the head file knows entry {head.seq}"]
    if at_head != head.hash:
        return [f"entry {head.seq}: not the one that the head file knows: rewritten from here or earlier"]
    if seq - head.seq > MAX_HEAD_LAG:
        return [f"head file: {seq - head.seq} entries behind, it is not being written; check its permissions"]
    return []
