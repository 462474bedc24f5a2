"""YAML text as safe values that still know their line.

Every scalar, list and mapping keeps the mark of the node it came from, so that a validation error can point at the
line a person has to change. Only YAML's safe tags are constructed; a key given twice is refused, since YAML parsers
would silently keep the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from catalog.errors import Invalid, Problem

Location = Sequence[str | int]


class Source:
    """One parsed file: ``value`` is plain data, :meth:`line` finds the line of a path in it."""

    def __init__(self, file: Path) -> None:
        """Raises ``Invalid`` when the file cannot be read, is not YAML, or repeats a key."""
        self.file = file
        text = _read(file)
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise Invalid([_syntax(file, error)]) from None
        if root is None:
            raise Invalid([Problem(file=file, line=1, path="", cause="the file is empty", remedy="Describe an app")])
        self._root: yaml.Node = root
        repeated = list(_repeated_keys(self._root))
        if repeated:
            raise Invalid([self._repeated(path, node) for path, node in repeated])
        try:
            self.value: Any = _Constructor().construct_document(self._root)
        except (ConstructorError, RecursionError) as error:
            raise Invalid([_syntax(file, error)]) from None

    def line(self, location: Location) -> int:
        """The line of the node at ``location``, or of its nearest parent that is written down. A mapping's entry
        points at its key."""
        node = self._root
        line = _line(node)
        for part in location:
            if isinstance(node, yaml.MappingNode):
                entry = next(((k, v) for k, v in node.value if k.value == str(part)), None)
                if entry is None:
                    break
                line, node = _line(entry[0]), entry[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = _line(node)
            else:
                break
        return line

    def problem(self, location: Location, cause: str, remedy: str) -> Problem:
        return Problem(file=self.file, line=self.line(location), path=dotted(location), cause=cause, remedy=remedy)

    def _repeated(self, path: Location, node: yaml.Node) -> Problem:
        return Problem(
            file=self.file,
            line=_line(node),
            path=dotted(path),
            cause="this key is given twice",
            remedy="Keep one of the two",
        )


def dotted(location: Location) -> str:
    """``("apps", 0, "owner")`` as ``apps[0].owner``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class _Constructor(SafeConstructor):
    """Safe tags only, and times stay text: a catalogue holds none, but ``2026-01-01`` may be somebody's name."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, TypeError, AttributeError):
            # PyYAML lets these escape from a wrong explicit tag, such as `!!int soon`.
            text = f"not a {node.tag.rpartition(':')[2]} as its tag says"
            raise ConstructorError(None, None, text, node.start_mark) from None


_Constructor.yaml_constructors = {
    tag: make for tag, make in SafeConstructor.yaml_constructors.items() if tag != "tag:yaml.org,2002:timestamp"
} | {"tag:yaml.org,2002:timestamp": SafeConstructor.construct_yaml_str}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        cause, remedy = "no such file", "Give the path of a catalogue file, or of the folder that holds catalog.yaml"
    except UnicodeDecodeError:
        cause, remedy = "not UTF-8 text", "Save the file as UTF-8"
    except OSError as error:
        cause, remedy = f"cannot be read ({error.strerror})", "Check the path and its permissions"
    raise Invalid([Problem(file=file, line=1, path="", cause=cause, remedy=remedy)])


def _syntax(file: Path, error: yaml.YAMLError | RecursionError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    cause = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None)
    return Problem(
        file=file,
        line=mark.line + 1 if mark else 1,
        path="",
        cause=f"not valid YAML: {f'{context}, ' if context else ''}{cause}",
        remedy="Correct the syntax at this line",
    )


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _repeated_keys(root: yaml.Node) -> Iterator[tuple[tuple[str | int, ...], yaml.Node]]:
    """Keys that occur twice in one mapping. Aliased nodes are walked once, which also ends cycles."""
    seen: set[int] = set()
    todo: list[tuple[tuple[str | int, ...], yaml.Node]] = [((), root)]
    while todo:
        path, node = todo.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo.extend(((*path, i), child) for i, child in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            keys: set[tuple[str, str]] = set()
            for key, child in node.value:
                name = str(key.value)
                if isinstance(key, yaml.ScalarNode) and (key.tag, name) in keys:
                    yield (*path, name), key
                keys.add((key.tag, name))
                todo.append(((*path, name), child))
