"""Writing a draft as YAML with comments, so that a person sees what is certain and what is not. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

WIDTH = 118
_STEP = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """A value with what is to be said about it: ``unsure``, why it may be wrong; ``note``, what helps to read it."""

    value: Any
    unsure: tuple[str, ...] = ()
    note: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """Something the draft is not sure of, and where it stands."""

    where: str
    why: str


def unsure(value: Any, *why: str) -> Any:
    """``value`` with its doubts; the bare value where there are none."""
    return Noted(value=value, unsure=why) if why else value


def plain(value: Any) -> Any:
    """The value without what was noted, as :func:`yaml.safe_load` would give it."""
    match value:
        case Noted():
            return plain(value.value)
        case Mapping():
            return {k: plain(v) for k, v in value.items()}
        case str():
            return value
        case Sequence():
            return [plain(v) for v in value]
        case _:
            return value


def doubts(value: Any, where: str = "") -> Iterator[Doubt]:
    """Every doubt in a tree, by the path of what it is about; entries of lists are called by their key or name."""
    match value:
        case Noted():
            for why in value.unsure:
                yield Doubt(where=where, why=why)
            yield from doubts(value.value, where)
        case Mapping():
            for name, inner in value.items():
                yield from doubts(inner, f"{where}.{name}" if where else str(name))
        case str():
            return
        case Sequence():
            for number, inner in enumerate(value):
                yield from doubts(inner, f"{where}[{_called(inner, number)}]")


def written(value: Mapping[str, Any], indent: int = 0) -> list[str]:
    """A mapping as lines of YAML, its comments above what they are about."""
    lines: list[str] = []
    for name, inner in value.items():
        lines += _comments(inner, indent)
        lines += _entry(f"{' ' * indent}{_scalar(name)}:", _bare(inner), indent)
    return lines


def items(values: Sequence[Any], indent: int) -> list[str]:
    """A list as lines of YAML, each item after a dash at ``indent``."""
    lines: list[str] = []
    for item in values:
        bare = _bare(item)
        lines += _comments(item, indent)
        dash = f"{' ' * indent}- "
        flow = _flow(bare)
        short = flow is not None and len(dash + flow) <= WIDTH and len(bare) <= 4 if isinstance(bare, Mapping) else True
        if flow is not None and short:
            lines.append(dash + flow)
            continue
        inner = written(bare, indent + _STEP) if isinstance(bare, Mapping) else items(bare, indent + _STEP)
        first = next(n for n, line in enumerate(inner) if not line.lstrip().startswith("#"))
        # Comments of the first entry stand above the dash.
        lines += [line[_STEP:] for line in inner[:first]]
        lines.append(dash + inner[first][indent + _STEP :])
        lines += inner[first + 1 :]
    return lines


def _entry(head: str, value: Any, indent: int) -> list[str]:
    if isinstance(value, str) and "\n" in value and value == value.strip() and _typed(value):
        block = [f"{' ' * (indent + _STEP)}{line}" if line else "" for line in value.split("\n")]
        return [f"{head} |-", *block]
    flow = _flow(value)
    simple = not isinstance(value, (Mapping, list, tuple)) or _small(value)
    if flow is not None and simple and (len(head) + len(flow) < WIDTH or isinstance(value, str)):
        return [f"{head} {flow}"]
    if isinstance(value, Mapping):
        return [head, *written(value, indent + _STEP)]
    return [head, *items(value, indent + _STEP)]


def _small(value: Any) -> bool:
    """Whether a list or mapping may stand on one line: flat, and few of them."""
    inner = list(value.values()) if isinstance(value, Mapping) else list(value)
    addresses = any(isinstance(v, str) and ":" in v for v in inner)
    return not any(isinstance(v, Mapping) for v in inner) and not (isinstance(value, Mapping) and addresses)


def _flow(value: Any) -> str | None:
    """The value on one line; ``None`` where something in it has a comment."""
    match value:
        case Noted():
            return None
        case Mapping():
            parts = [(k, _flow(v)) for k, v in value.items()]
            if any(p is None for _, p in parts):
                return None
            return "{" + ", ".join(f"{_scalar(k)}: {p}" for k, p in parts) + "}"
        case str():
            return _scalar(value)
        case list() | tuple():
            texts = [_flow(v) for v in value]
            return None if any(t is None for t in texts) else "[" + ", ".join(str(t) for t in texts) + "]"
        case _:
            return _scalar(value)


def _scalar(value: Any) -> str:
    text = yaml.safe_dump([value], default_flow_style=True, width=float("inf"), allow_unicode=True)
    return str(text).strip()[1:-1]


def _bare(value: Any) -> Any:
    while isinstance(value, Noted):
        value = value.value
    return value


def _comments(value: Any, indent: int) -> list[str]:
    lines: list[str] = []
    while isinstance(value, Noted):
        for text in (*value.note, *(f"unsure: {why}" for why in value.unsure)):
            lines += comment(text, indent)
        value = value.value
    return lines


def comment(text: str, indent: int = 0) -> list[str]:
    """A comment, wrapped."""
    room = max(WIDTH - indent - 2, 40)
    return [f"{' ' * indent}# {line}" for line in textwrap.wrap(" ".join(text.split()), room, break_long_words=False)]


def _called(item: Any, number: int) -> str:
    bare = _bare(item)
    if isinstance(bare, Mapping):
        for name in ("key", "name"):
            if isinstance(said := _bare(bare.get(name)), str):
                return said
    return str(bare) if isinstance(bare, str) else str(number)


def _typed(text: str) -> bool:
    """Whether a text of several lines comes back the same from a block: nothing in it but what a keyboard writes."""
    return text.isascii() and all(line.isprintable() for line in text.split("\n"))
