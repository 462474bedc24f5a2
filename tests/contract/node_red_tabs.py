"""Tabs of any shape, over the node types and their properties as a live Node-RED describes them with ``GET /nodes``."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

REGISTERED = re.compile(r"RED\.nodes\.registerType\(\s*['\"](?P<type>[^'\"]+)['\"]\s*,\s*\{")
DEFAULTS = re.compile(r"\bdefaults\s*:\s*\{")
KEY = re.compile(r"\s*['\"]?(?P<key>[A-Za-z_][A-Za-z0-9_]*)['\"]?\s*:")
CONFIG = re.compile(r"\bcategory\s*:\s*['\"]config['\"]")
DRAWN_ONLY = ("tab", "subflow", "group", "global-config", "unknown", "junction")
QUIET = frozenset(
    ("function", "change", "switch", "template", "json", "xml", "yaml", "csv", "range", "link in", "comment")
)
"""Types that may be switched on with any properties: nothing starts by itself."""
NAMES = ("", "žluťoučký kůň", "注文", "a/b: {{c}}", "🚀", 'quote " and \\', "tab\tand\nline", "x" * 120)


def described(html: str) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """By type of node: whether it is a config node, and the names of its properties."""
    found = {}
    for match in REGISTERED.finditer(html):
        body = html[match.end() - 1 : match.end() - 1 + 20_000]
        body = body[: _end(body)]
        defaults = DEFAULTS.search(body)
        keys = tuple(_keys(body[defaults.end() - 1 :])) if defaults else ()
        found[match["type"]] = (bool(CONFIG.search(body)), keys)
    return {kind: known for kind, known in found.items() if kind not in DRAWN_ONLY}


def generated(seed: int, types: Mapping[str, tuple[bool, tuple[str, ...]]], size: int) -> dict[str, Any]:
    """A definition with ``size`` nodes of all ``types``: wired at random (loops too), linked, grouped, disabled and
    commented, with config nodes, and a subflow in a subflow."""
    rng = random.Random(seed)  # noqa: S311 - a test's
    fresh = lambda: f"{rng.getrandbits(64):016x}"  # noqa: E731 - a name for it
    configs = [
        {"id": fresh(), "type": k, "d": True, **_filled(rng, keys)} for k, (config, keys) in types.items() if config
    ]
    kinds = sorted(k for k, (config, _) in types.items() if not config)

    def node(kind: str, number: int) -> dict[str, Any]:
        made = {"id": fresh(), "type": kind, "x": number * 40 % 900, "y": number, "name": rng.choice(NAMES)}
        made |= {k: v for k, v in _filled(rng, types.get(kind, (False, ()))[1]).items() if k not in made}
        if kind in ("link in", "link out", "link call"):
            made["links"] = []
        if kind == "function":
            made["libs"] = []  # One that is not installed keeps all flows from starting.
        if kind in ("catch", "status", "complete"):
            made["scope"] = None
        return made | ({"d": True} if kind not in QUIET or rng.random() < 0.1 else {})

    inner, outer = fresh(), fresh()
    subflows = [
        {"id": inner, "type": "subflow", "name": "inner 内", "info": "", "in": [], "out": [], "env": []},
        {**node("change", 1), "z": inner, "wires": []},
        {"id": outer, "type": "subflow", "name": "outer", "info": "", "in": [], "out": [], "env": [_env("LIMIT", "7")]},
        {**node(f"subflow:{inner}", 1), "z": outer, "wires": []},
    ]
    subflows[2]["in"] = [{"x": 1, "y": 1, "wires": [{"id": subflows[3]["id"]}]}]
    nodes = [node(kinds[n % len(kinds)], n) for n in range(size - 2)]
    nodes += [{**node(f"subflow:{outer}", n), "env": [_env("LIMIT", str(n))]} for n in range(2)]
    ids = [n["id"] for n in nodes]
    for made in nodes:
        ports = rng.randrange(4)
        made["wires"] = [rng.sample(ids, rng.randrange(4)) for _ in range(ports)]
        if rng.random() < 0.3 and configs:
            made["uses"] = rng.choice(configs)["id"]
        if "links" in made:
            made["links"] = rng.sample([n["id"] for n in nodes if "links" in n], 1)
    group = {"id": fresh(), "type": "group", "name": "all", "x": 0, "y": 0, "w": 10, "h": 10, "style": {}}
    grouped = rng.sample(nodes, 5)
    for made in grouped:
        made["g"] = group["id"]
    group |= {"nodes": [n["id"] for n in grouped], "env": [_env("WHERE", "here")]}
    comment = {**node("comment", 3), "info": "why", "wires": []}
    used = {value for made in nodes for value in made.values() if isinstance(value, str)}
    return {
        "name": f"generated {seed} 注文",
        "settings": {"info": "of a test"},
        "env": [_env("STAGE", "test"), {"name": "KEY", "type": "cred"}],
        "nodes": [*nodes, group, comment],
        "configs": [c for c in configs if c["id"] in used],
        "subflows": subflows,
        "outside": {},
    }


def shuffled(seed: int, definition: Mapping[str, Any]) -> dict[str, Any]:
    """The same behaviour: other order, other places, other ids."""
    from platforms.node_red_data import replaced

    rng = random.Random(seed)  # noqa: S311 - a test's
    parts = ("nodes", "configs", "subflows")
    ids = {str(n["id"]): f"{rng.getrandbits(64):016x}" for part in parts for n in definition[part]}
    moved = {}
    for part in parts:
        nodes = [{**replaced(n, ids), **({"x": 1, "y": 2} if "x" in n else {})} for n in definition[part]]
        moved[part] = rng.sample(nodes, len(nodes))
    return {**definition, **moved}


def _env(name: str, value: str) -> dict[str, str]:
    return {"name": name, "type": "str", "value": value}


def _filled(rng: random.Random, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: _value(rng, 2) for key in keys if key not in ("id", "type", "wires", "name", "info", "env")}


def _value(rng: random.Random, depth: int) -> Any:
    plain: list[Any] = ["", "text", "${HOME}", 0, 1.5, True, False, None, rng.choice(NAMES)]
    if depth == 0 or rng.random() < 0.7:
        return rng.choice(plain)
    inner = [_value(rng, depth - 1) for _ in range(rng.randrange(3))]
    return inner if rng.random() < 0.5 else {f"k{n}": item for n, item in enumerate(inner)}


def _keys(body: str) -> Iterator[str]:
    """The keys at the first level of the object that ``body`` begins with."""
    depth, at, end = 0, 0, _end(body)
    while at < end:
        char = body[at]
        if char in "'\"`":
            at = body.index(char, at + 1)
        elif char in "{[(":
            depth += 1
        elif char in "}])":
            depth -= 1
        if depth == 1 and char in "{,":
            match = KEY.match(body, at + 1)
            if match:
                yield match["key"]
        at += 1


def _end(body: str) -> int:
    """Where the object that ``body`` begins with is over."""
    depth = 0
    for at, char in enumerate(body):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return at
    return len(body)
