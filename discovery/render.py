"""A draft as the text of a catalogue, and a person's catalogue with what is new in a draft. Pure.

A person's text is never changed: new entries of its lists are put behind the last one, as lines of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from discovery.draft import Draft
from discovery.yaml_writer import Doubt, Noted, comment, doubts, items, plain

HEAD = (
    "Drafted by `reinstate discover`. Read it once from top to bottom: what is a guess says `unsure:` and why, and is "
    "listed again at the end. Then delete those lines."
)
LISTS = ("workflows", "tables", "detectors", "connectors")
_NAMED_BY = {"workflows": "name", "tables": "name", "detectors": "key", "connectors": "key"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """``text`` is the person's with ``added`` (``workflows[order-intake]``) in it; ``doubts`` are about what is new."""

    text: str
    added: tuple[str, ...]
    doubts: tuple[Doubt, ...]
    left: tuple[str, ...] = ()
    """What is new and has no place to be put in: a list that is written on one line."""


def catalogue(draft: Draft) -> str:
    """A whole catalogue with one app."""
    app = list(items([draft.app], 2))
    return "\n".join([*comment(HEAD), "apps:", *app, "", *_listed(draft.doubts), ""])


def merge(text: str, app_key: str, draft: Draft) -> Merged:
    """The catalogue ``text`` (valid YAML, with ``app_key`` among its apps or as its only app) with the new workflows,
    tables, detectors and connectors of the draft."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    app = _app(root, app_key)
    lines = text.split("\n")
    new = {name: _new(app, name, draft.app.get(name, ())) for name in LISTS}
    inserts: list[tuple[int, list[str]]] = []
    added: list[str] = []
    left: list[str] = []
    fresh: list[Doubt] = []
    for name, entries in new.items():
        if not entries:
            continue
        names = [f"{name}[{_called(e, name)}]" for e in entries]
        place = _place(app, name, entries)
        if place is None:
            left += names
            continue
        inserts.append(place)
        added += names
        fresh += doubts({name: entries})
    # From the bottom up, so that the numbers of the lines above stay right.
    for at, block in sorted(inserts, key=lambda p: -p[0]):
        lines[at:at] = block
    about = (*fresh, *draft.remarks)
    while lines and not lines[-1].strip():
        lines.pop()
    tail = ["", *_listed(about)] if about else []
    return Merged(text="\n".join([*lines, *tail, ""]), added=tuple(added), doubts=about, left=tuple(left))


def _listed(found: Sequence[Doubt]) -> list[str]:
    if not found:
        return []
    lines = ["# Unsure, to be looked at by a person:"]
    for doubt in found:
        first, *rest = comment(f"- {doubt.where}: {doubt.why}")
        lines += [first, *(f"#   {line[2:]}" for line in rest)]
    return lines


def _app(root: Any, key: str) -> yaml.MappingNode:
    """The mapping of the app: the whole file, or one of ``apps:``."""
    listed = _child(root, "apps")
    for node in listed.value if isinstance(listed, yaml.SequenceNode) else [root]:
        named = _child(node, "key")
        if named is not None and named.value == key and isinstance(node, yaml.MappingNode):
            return node
    raise KeyError(key)


def _child(node: Any, name: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return value
    return None


def _new(app: yaml.MappingNode, name: str, drafted: Any) -> list[Any]:
    """Entries of the draft that the person's list does not name."""
    entries = drafted.value if isinstance(drafted, Noted) else drafted
    listed = _child(app, name)
    field = _NAMED_BY[name]
    known = {
        said.value
        for node in (listed.value if isinstance(listed, yaml.SequenceNode) else ())
        if (said := _child(node, field)) is not None
    }
    return [e for e in entries if plain(e)[field] not in known and _about_new(app, name, e)]


def _about_new(app: yaml.MappingNode, name: str, entry: Any) -> bool:
    """A detector is new only with its table: a person who described a table has decided what to watch in it."""
    if name != "detectors":
        return True
    listed = _child(app, "tables")
    tables = [_child(n, "name") for n in (listed.value if isinstance(listed, yaml.SequenceNode) else ())]
    return plain(entry)["table"] not in {t.value for t in tables if t is not None}


def _called(entry: Any, name: str) -> str:
    value: Mapping[str, Any] = plain(entry)
    return str(value["name" if name == "tables" else "key"])


def _place(app: yaml.MappingNode, name: str, entries: Sequence[Any]) -> tuple[int, list[str]] | None:
    """The line before which new entries go, and they as lines; ``None`` where the list stands on one line."""
    listed = _child(app, name)
    if listed is None:
        indent = app.start_mark.column
        return _end(app), [f"{' ' * indent}{name}:", *items(entries, indent + 2)]
    if not isinstance(listed, yaml.SequenceNode) or listed.flow_style or not listed.value:
        return None
    return _end(listed.value[-1]), items(entries, listed.start_mark.column)


def _end(node: Any) -> int:
    """The number of the line behind a node: that of its last scalar, since a block's own end is where the next one
    begins, comments between them included."""
    inner = [n for pair in node.value for n in (pair if isinstance(pair, tuple) else (pair,))] if isinstance(
        node, (yaml.MappingNode, yaml.SequenceNode)
    ) and not node.flow_style else []  # fmt: skip
    if inner:
        return _end(inner[-1])
    mark = node.end_mark
    return int(mark.line) if mark.column == 0 and node.start_mark.line != mark.line else int(mark.line) + 1
