"""Workflows that nobody would draw, by chance and yet repeatable: any number of steps of any kind, loops, expressions,
names of every script, comments, steps switched off, credentials and calls of other workflows.

Nothing here knows a vendor. A platform brings its kinds of steps, best as the live platform describes them itself, and
turns a :class:`Graph` into a definition of its own form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-",
    "žluťoučkýkůňÄÖÜßæøåñçğşłéèêë",
    "заказзаявкапоставщик",
    "注文処理在庫確認発送",
    "طلبعميلمخزن",
    "🧾📦🚚✅⚠️",
    "'\"\\/<>&%$#@!?;:,.|`~^*()[]{}=+",
)


@dataclass(frozen=True, kw_only=True)
class Value:
    """One parameter of a kind of step. ``kind`` is ``text``, ``number``, ``flag``, ``choice``, ``choices``, ``json``,
    ``group`` (one or more ``fields`` together), ``fixed`` (always ``default``) or a vendor's own word, which its form
    handles."""

    name: str
    kind: str
    choices: tuple[Any, ...] = ()
    fields: tuple[Value, ...] = ()
    many: bool = False
    default: Any = None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of step. ``starts``: it starts runs; ``outputs``: how many ways lead on from it."""

    name: str
    values: tuple[Value, ...] = ()
    starts: bool = False
    outputs: int = 1
    version: Any = None
    credentials: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    name: str
    kind: Kind
    values: Mapping[str, Any] = field(default_factory=dict)
    disabled: bool = False
    note: str = ""
    at: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """``links`` are (from, output number, to) by step names; ``comments`` belong to no step; ``calls`` names a workflow
    for each step that calls one."""

    name: str
    steps: tuple[Step, ...]
    links: tuple[tuple[str, int, str], ...]
    comments: tuple[str, ...] = ()


def text(chance: Random, longest: int = 24) -> str:
    """A text in one script or several, never empty, with no blanks around it."""
    letters = "".join(
        chance.choice(chance.choice(ALPHABETS[:6] if chance.random() < 0.8 else ALPHABETS))
        for _ in range(chance.randint(1, longest))
    )
    return letters.strip() or "x"


def expression(chance: Random) -> str:
    """What editors let people write between double braces."""
    return chance.choice(
        (
            "={{ $json.body.total * 1.21 }}",
            "={{ $('Start').first().json.order_id }}",
            "=Order {{ $json.id }} of {{ $now.toISO() }}",
            "={{ { a: [1, 2, { b: '}}' }] } }}",
            "={{ $json['ž'] ?? \"\" }}",
        )
    )


def value(chance: Random, of: Value, depth: int = 0) -> Any:
    """A value for a parameter; how it is written down is the platform's business."""
    made: Mapping[str, Callable[[], Any]] = {
        "text": lambda: expression(chance) if chance.random() < 0.3 else text(chance, 60),
        "number": lambda: chance.choice((0, 1, -7, 65535, 2**31, 0.5, -1.25, 1e-7, 12.0)),
        "flag": lambda: chance.random() < 0.5,
        "choice": lambda: chance.choice(of.choices) if of.choices else of.default,
        "choices": lambda: chance.sample(of.choices, chance.randint(0, min(3, len(of.choices)))),
        "json": lambda: json_value(chance),
        "group": lambda: _group(chance, of, depth),
    }
    return made.get(of.kind, lambda: of.default)()


def _group(chance: Random, of: Value, depth: int) -> Any:
    if depth > 3:
        return [] if of.many else {}
    made = [
        {f.name: value(chance, f, depth + 1) for f in of.fields if chance.random() < 0.5}
        for _ in range(chance.randint(1, 3) if of.many else 1)
    ]
    return made if of.many else made[0]


def json_value(chance: Random, depth: int = 0) -> Any:
    """Any JSON: deep, mixed, with nulls, empty things and keys of every script."""
    roll = chance.random()
    if depth > 2 or roll < 0.4:
        return chance.choice((None, True, False, 0, 12.5, -3, "", "null", text(chance)))
    if roll < 0.7:
        return [json_value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return {text(chance, 8): json_value(chance, depth + 1) for _ in range(chance.randint(0, 3))}


def chance_of(seed: int) -> Random:
    """The chance of one example: the same for the same seed."""
    return Random(seed)  # noqa: S311 - examples, not secrets


def graph(chance: Random, kinds: Sequence[Kind], *, name: str, size: int, start: Kind | None = None) -> Graph:
    """``size`` steps in a random net with loops. ``start`` is the kind of the one step named *Start*, which alone is
    sure to be switched on; other kinds that start runs are always switched off."""
    steps: list[Step] = [Step(name="Start", kind=start)] if start else []
    names = {"Start"}
    while len(steps) < size:
        kind = chance.choice(kinds)
        called = text(chance)
        while called in names:
            called = f"{called} {len(steps)}"
        names.add(called)
        chosen = {v.name: value(chance, v) for v in kind.values if v.kind == "fixed" or chance.random() < 0.5}
        steps.append(
            Step(
                name=called,
                kind=kind,
                values=chosen,
                disabled=kind.starts or chance.random() < 0.15,
                note=text(chance) if chance.random() < 0.2 else "",
                at=(chance.randint(-5000, 5000), chance.randint(-5000, 5000)),
            )
        )
    return Graph(
        name=name,
        steps=tuple(steps),
        links=tuple(_links(chance, steps)),
        comments=tuple(text(chance, 80) for _ in range(chance.randint(0, 3))),
    )


def _links(chance: Random, steps: Sequence[Step]) -> list[tuple[str, int, str]]:
    """A chain with side ways and, now and then, a way back: a loop."""
    found: dict[tuple[str, int, str], None] = {}
    for position, step in enumerate(steps):
        ahead = steps[position + 1 : position + 6]
        for output in range(step.kind.outputs):
            for target in chance.sample(ahead, min(len(ahead), chance.randint(0, 2))):
                found[step.name, output, target.name] = None
        if position and step.kind.outputs and chance.random() < 0.1:
            found[step.name, chance.randrange(step.kind.outputs), chance.choice(steps[:position]).name] = None
    back_to_start = [link for link in found if link[2] == "Start"]
    return [link for link in found if link not in back_to_start]
