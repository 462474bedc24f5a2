"""Secrets typed into n8n's nodes: taken out when a definition is read, put back when it is written. Pure.

n8n's credentials never leave n8n. But a token may stand in a header of a request, a password in an address, a key in
the body or in a field of a *Set* node, and the API shows those in the clear. What stands in the code of a node cannot
be told from code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from platforms import canonical
from platforms.base import Definition, Permanent
from platforms.secretish import SECRET_NAME, USERINFO, is_literal

KEPT = "(kept-in-n8n)"
"""Stands in a definition for a secret. Without blanks, since it stands in addresses too."""

CODE = frozenset({"jsCode", "pythonCode", "functionCode", "code"})
PAIRS = (("name", "value"), ("key", "value"), ("fieldName", "fieldValue"))
"""Headers, parameters and fields are lists of these."""
PARAMETER = re.compile(r"(?P<before>(?:^=?|[?&])(?P<name>[\w.\[\]-]+)=)(?P<secret>(?:\{\{.*?\}\}|[^&#\s\"'{])++)")
IN_TEXT = re.compile(
    r"""(?P<before>["']?(?<![\w-])(?P<name>[\w-]++)["']?\s*:\s*(?P<quote>["']))"""
    r"""(?P<secret>(?:\{\{.*?\}\}|\\.|(?!(?P=quote)).)++)(?=(?P=quote))""",
    re.DOTALL,
)
Put = Callable[[str, str], str]
"""What stands for a secret: of its place within the parameters of its node, and its value."""


def without(definition: Definition) -> dict[str, Any]:
    """The definition with :data:`KEPT` in the place of each secret. Applied again it changes nothing. What has no nodes
    stays as it is."""
    if not isinstance(definition.get("nodes"), list):
        return dict(definition)
    return {**definition, "nodes": [_node(n, _masked) if isinstance(n, Mapping) else n for n in definition["nodes"]]}


def content_hash(definition: Definition) -> str:
    """The content hash of the form without secrets: the same of what n8n tells and of what is kept of it."""
    return canonical.content_hash(without(definition))


def known_in(node: Mapping[str, Any]) -> dict[str, str]:
    """The secrets that are really in ``node``, by place."""
    return {place: value for place, value in _secrets(node).items() if KEPT not in value}


def lacking(node: Mapping[str, Any]) -> list[str]:
    """The places in ``node`` where only the marker stands."""
    return [place for place, value in _secrets(node).items() if KEPT in value]


def restored(definition: Definition, contents: Iterable[Mapping[str, Any]], *, gone: bool = False) -> Definition:
    """The definition with n8n's own secrets where it has markers. ``contents`` as n8n tells them, what is saved first;
    no more of them are asked for than it takes. A secret is found by its node's id, else name and type, and its place.

    Raises :class:`Permanent` naming node and place when none has it. ``gone``: n8n does not have the workflow."""
    open_places = {index: lack for index, node in enumerate(definition["nodes"]) if (lack := lacking(node))}
    if not open_places:
        return definition
    found: dict[int, dict[str, str]] = {index: {} for index in open_places}
    for content in contents:
        for index, places in open_places.items():
            for known in _counterparts(definition["nodes"][index], content["nodes"]):
                found[index] = {**{p: known[p] for p in places if p in known}, **found[index]}
        if all(place in found[index] for index, places in open_places.items() for place in places):
            break
    for index, places in open_places.items():
        for place in places:
            if place not in found[index]:
                raise Permanent(_lost(definition, str(definition["nodes"][index].get("name")), place, gone=gone))
    nodes = [_filled(node, found.get(index, {})) for index, node in enumerate(definition["nodes"])]
    return {**definition, "nodes": nodes}


def _masked(_place: str, _value: str) -> str:
    return KEPT


def _filled(node: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The node with ``known`` secrets where markers stand; those that were typed into it stay."""
    return _node(node, lambda place, value: known.get(place, value) if KEPT in value else value)


def _lost(definition: Definition, node: str, place: str, *, gone: bool) -> str:
    step = "type it into that node in n8n's editor (add the node if it is gone) and save"
    if gone:
        step = "import the file of `reinstate workflow export` in n8n, type the secret in and save it under this name"
    told = f"workflow {definition.get('name')}: n8n does not have the secret {place} of node {node!r}"
    return f"{told}; {step}, then run this again"


def _counterparts(node: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Secrets of the same node elsewhere: by id, then by name and type."""
    alike = [other for other in others if other.get("type") == node.get("type")]
    yield from (known_in(other) for other in alike if node.get("id") and other.get("id") == node["id"])
    yield from (known_in(other) for other in alike if other.get("name") == node.get("name"))


def _secrets(node: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}

    def note(place: str, value: str) -> str:
        found[place] = value
        return value

    _node(node, note)
    return found


def _node(node: Mapping[str, Any], put: Put) -> dict[str, Any]:
    if not isinstance(node.get("parameters"), Mapping):
        return dict(node)
    seen: dict[str, int] = {}

    def counted(place: str, value: str) -> str:
        seen[place] = seen.get(place, 0) + 1
        return put(place if seen[place] == 1 else f"{place} ({seen[place]})", value)

    return {**node, "parameters": _inside(node["parameters"], "", "", counted)}


def _inside(value: Any, name: str, place: str, put: Put) -> Any:
    if isinstance(value, Mapping):
        named = {v for n, v in PAIRS if isinstance(value.get(n), str) and SECRET_NAME.search(value[n])}
        return {
            key: _inside(item, "secret" if key in named else str(key), f"{place}.{key}".lstrip("."), put)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_inside(item, name, f"{place}.{_label(item, index)}", put) for index, item in enumerate(value)]
    if not isinstance(value, str) or name in CODE:
        return value
    if SECRET_NAME.search(name):
        return put(place, value) if is_literal(value) else value
    return _in_text(value, place, put)


def _label(item: Any, index: int) -> str:
    """How an item of a list is known again when others come or go."""
    for name, _ in PAIRS:
        if isinstance(item, Mapping) and isinstance(item.get(name), str) and item[name]:
            return str(item[name])
    return str(index)


def _in_text(text: str, place: str, put: Put) -> str:
    for pattern in (USERINFO, PARAMETER, IN_TEXT):

        def replaced(match: re.Match[str]) -> str:
            name = match.groupdict().get("name", "password")
            if not SECRET_NAME.search(name) or not is_literal(match["secret"]):
                return match[0]
            return f"{match['before']}{put(f'{place}:{name}', match['secret'])}"

        text = pattern.sub(replaced, text)
    return text
