"""What differs between two definitions, read as outlines, in words that a person can check: nodes, parameters by dotted
path, SQL and code by lines, links, entries, settings, credentials. Pure; works for every platform."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from platforms.base import Entry, Node, Outline

T = TypeVar("T")
ABSENT: Final = None
_CLAUSE: Final = re.compile(
    r"\s+(?=(?:select|from|where|set|values|returning|group by|order by|having|limit|on conflict|union|"
    r"(?:left |right |full |inner |cross )?join|and|or|insert into|update|delete from|with)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One value: ``path`` is dotted, ``before`` or ``after`` is ``None`` where there was or is none. ``lines`` is the
    line diff of a longer text (each begins with ``+``, ``-`` or a blank), empty for short values."""

    path: str
    before: Any
    after: Any
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeChange:
    """``was`` is the node's earlier name when it was renamed."""

    node: str
    was: str | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """``added`` and ``removed`` are nodes as (name, kind). Links are (from, to), by the names they have afterwards."""

    name: Change | None = None
    added: tuple[tuple[str, str], ...] = ()
    removed: tuple[tuple[str, str], ...] = ()
    changed: tuple[NodeChange, ...] = ()
    links_added: tuple[tuple[str, str], ...] = ()
    links_removed: tuple[tuple[str, str], ...] = ()
    entries_added: tuple[str, ...] = ()
    entries_removed: tuple[str, ...] = ()
    settings: tuple[Change, ...] = ()

    @property
    def empty(self) -> bool:
        return self == Difference()


def compare(before: Outline, after: Outline) -> Difference:
    """What changed from ``before`` to ``after``."""
    old, new = {n.name: n for n in before.nodes}, {n.name: n for n in after.nodes}
    renamed = _renamed(before, after)
    pairs = [(renamed.get(name, name), name) for name in new if renamed.get(name, name) in old]
    kept = {was for was, _ in pairs}
    now_of = dict(pairs)
    links = [(now_of.get(a, a), now_of.get(b, b)) for a, b in before.links]
    changed = [
        NodeChange(node=now, was=was if was != now else None, changes=tuple(_node(old[was], new[now])))
        for was, now in pairs
    ]
    entries_before, entries_after = _entries(before.entries, now_of), _entries(after.entries, {})
    return Difference(
        name=Change(path="name", before=before.name, after=after.name) if before.name != after.name else None,
        added=tuple((n.name, n.kind) for n in after.nodes if n.name not in {now for _, now in pairs}),
        removed=tuple((n.name, n.kind) for n in before.nodes if n.name not in kept),
        changed=tuple(c for c in changed if c.was or c.changes),
        links_added=tuple(_less(after.links, links)),
        links_removed=tuple(_less(links, after.links)),
        entries_added=tuple(_less(entries_after, entries_before)),
        entries_removed=tuple(_less(entries_before, entries_after)),
        settings=tuple(_values(before.settings, after.settings, "", ())),
    )


def sentences(found: Difference) -> Iterator[str]:
    """The difference for people, a line each; indented lines belong to the one above."""
    if found.name:
        yield f"name: {found.name.before!r} is now {found.name.after!r}"
    yield from (f"entry added: {e}" for e in found.entries_added)
    yield from (f"entry removed: {e}" for e in found.entries_removed)
    yield from (f"node added: {name} ({kind})" for name, kind in found.added)
    yield from (f"node removed: {name} ({kind})" for name, kind in found.removed)
    for node in found.changed:
        yield f"node {node.was} is now called {node.node}" if node.was else f"node {node.node}:"
        for change in node.changes:
            yield from (f"  {line}" for line in _told(change))
    yield from (f"link added: {a} -> {b}" for a, b in found.links_added)
    yield from (f"link removed: {a} -> {b}" for a, b in found.links_removed)
    for change in found.settings:
        yield from (f"setting {line}" for line in _told(change))


def _told(change: Change) -> Iterator[str]:
    if change.lines:
        yield f"{change.path}:"
        yield from (f"  {line}" for line in change.lines)
    elif change.before is ABSENT:
        yield f"{change.path}: {_short(change.after)} (new)"
    elif change.after is ABSENT:
        yield f"{change.path}: was {_short(change.before)} (gone)"
    else:
        yield f"{change.path}: {_short(change.before)} -> {_short(change.after)}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) and value.strip() == value and value else repr(value)


def _renamed(before: Outline, after: Outline) -> dict[str, str]:
    """By new name the old one, of nodes that were renamed: the same in all but the name, else the only pair of that
    kind between the same neighbours."""
    old, new = {n.name for n in before.nodes}, {n.name for n in after.nodes}
    gone = [n for n in before.nodes if n.name not in new]
    come = [n for n in after.nodes if n.name not in old]
    found: dict[str, str] = {}
    for alike in (_same_content, lambda a, b: _neighbours(before, a.name) == _neighbours(after, b.name)):
        for node in [n for n in come if n.name not in found]:
            left = [g for g in gone if g.name not in found.values() and g.kind == node.kind]
            fitting = [g for g in left if alike(g, node)]
            rivals = [c for c in come if c.name not in found and c.kind == node.kind]
            if fitting and (alike is _same_content or (len(left) == 1 and len(rivals) == 1)):
                found[node.name] = fitting[0].name
    return found


def _same_content(a: Node, b: Node) -> bool:
    return (a.parameters, a.disabled, a.credentials) == (b.parameters, b.disabled, b.credentials)


def _neighbours(outline: Outline, name: str) -> tuple[set[str], set[str]]:
    return {a for a, b in outline.links if b == name}, {b for a, b in outline.links if a == name}


def _node(was: Node, now: Node) -> Iterator[Change]:
    if was.kind != now.kind:
        yield Change(path="kind", before=was.kind, after=now.kind)
    if was.disabled != now.disabled:
        yield Change(path="disabled", before=was.disabled, after=now.disabled)
    statements = {s.strip().removeprefix("=") for s in (*was.sql, *now.sql)}
    yield from _values(was.parameters, now.parameters, "", tuple(statements))
    for credential in sorted({*was.credentials} ^ {*now.credentials}):
        named = credential in was.credentials
        yield Change(path="credential", before=credential if named else ABSENT, after=ABSENT if named else credential)


def _values(was: Any, now: Any, path: str, statements: tuple[str, ...]) -> Iterator[Change]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in [*was, *(k for k in now if k not in was)]:
            yield from _values(was.get(key), now.get(key), f"{path}.{key}".lstrip("."), statements)
    elif _is_list(was) and _is_list(now):
        for at in range(max(len(was), len(now))):
            one, other = (v[at] if at < len(v) else ABSENT for v in (was, now))
            yield from _values(one, other, f"{path}.{at}".lstrip("."), statements)
    elif isinstance(was, Mapping) and now is ABSENT:
        for key in was:
            yield from _values(was[key], ABSENT, f"{path}.{key}".lstrip("."), statements)
    elif isinstance(now, Mapping) and was is ABSENT:
        for key in now:
            yield from _values(ABSENT, now[key], f"{path}.{key}".lstrip("."), statements)
    elif was != now or isinstance(was, bool) != isinstance(now, bool):
        yield Change(path=path, before=was, after=now, lines=_lines(was, now, statements))


def _lines(was: Any, now: Any, statements: tuple[str, ...]) -> tuple[str, ...]:
    """The line diff of two texts of several lines; SQL written on one line is cut at its clauses."""
    if not (isinstance(was, str) and isinstance(now, str)):
        return ()
    sql = any(t.strip().removeprefix("=") in statements for t in (was, now))
    old, new = (_CLAUSE.sub("\n", t) if sql and "\n" not in t.strip() else t for t in (was, now))
    if not sql and "\n" not in old and "\n" not in new:
        return ()
    found = [line.rstrip() for line in difflib.ndiff(old.splitlines(), new.splitlines()) if line[:1] != "?"]
    return tuple(f"{line[:1]} {line[2:]}".rstrip() for line in _near(found))


def _near(lines: Sequence[str]) -> Iterator[str]:
    """Changed lines with two lines around them; what is left out before and between them shows as dots."""
    close = {at + by for at, line in enumerate(lines) if line[:1] in "+-" for by in range(-2, 3)}
    skipped: list[str] = []
    for at, line in enumerate(lines):
        if at not in close:
            skipped.append(line)
            continue
        if skipped:
            yield skipped[0] if len(skipped) == 1 else "  ..."
        skipped = []
        yield line


def _entries(entries: Sequence[Entry], names: Mapping[str, str]) -> list[str]:
    return [
        " ".join(
            part
            for part in (e.kind.value, e.method or "", e.path or "", e.schedule or "", f"({names.get(e.node, e.node)})")
            if part
        )
        for e in entries
    ]


def _less(some: Sequence[T], others: Sequence[T]) -> list[T]:
    """``some`` without ``others``, counted."""
    left = list(others)
    found = []
    for item in some:
        if item in left:
            left.remove(item)
        else:
            found.append(item)
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
