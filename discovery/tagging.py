"""The run's name in each statement that writes, as an edit ready to be made. Pure.

The tag makes attribution exact. The statement gets ``WITH run AS MATERIALIZED (SELECT set_config('reinstate.run',
..., true))``, and a condition that makes PostgreSQL run it. It is set for the one transaction only. Everything else
stays as it was written, letter by letter. What has another shape is left to a person, with the reason.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from discovery.placeholders import neutral
from discovery.uses import WorkflowUse

RUN_NAMES = {"n8n": "{{ $execution.id }}", "fake": "{{ $execution.id }}"}
"""How a platform's own expression for the run's id looks in SQL; platforms without one keep attribution by role."""
TAG = "reinstate.run"
_CONDITION = "EXISTS (SELECT FROM run)"
_AFTER_WHERE = ("GROUP", "HAVING", "WINDOW", "ORDER", "LIMIT", "OFFSET", "FETCH", "FOR", "RETURNING")


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """One statement of one node, and what it should become. ``why`` says why there is no ``after``."""

    workflow: str
    node: str
    before: str
    after: str | None
    why: str = ""


def edits(use: WorkflowUse, platform_kind: str) -> list[Edit]:
    """An edit for every writing statement that carries no tag yet."""
    found = []
    for part in use.nodes:
        if not part.writes:
            continue
        name = part.node.name
        if not part.node.sql:
            why = "it writes without SQL of its own: use a query instead, or leave its writes to attribution by role"
            found.append(Edit(workflow=use.facts.name, node=name, before="", after=None, why=why))
        for text in part.node.sql:
            if TAG in text:
                continue
            after, why = tagged(text, RUN_NAMES.get(platform_kind))
            found.append(Edit(workflow=use.facts.name, node=name, before=text, after=after, why=why))
    return found


def tagged(text: str, run: str | None) -> tuple[str | None, str]:
    """``text`` with the tag, or ``None`` and the reason. ``run`` is the platform's expression for the run's id."""
    if run is None:
        return None, "the platform has no name for a run that SQL could carry"
    start = "=" if text.startswith("=") else ""
    bare = text[len(start) :]
    if neutral(bare) != bare:
        # Offsets must fit: placeholders are made neutral at their own length.
        plain = _same_length(bare)
        if plain is None:
            return None, "its placeholders stand where a statement's structure should be"
    else:
        plain = bare
    tokens = _tokens(plain)
    if tokens is None:
        return None, "it cannot be parsed"
    changed = _changed(bare, tokens, f"run AS MATERIALIZED (SELECT set_config('{TAG}', '{run}', true))")
    if isinstance(changed, str):
        return start + changed, ""
    return None, changed[0]


def _same_length(text: str) -> str | None:
    plain = re.sub(r"\{\{.*?\}\}", lambda m: "x" + "_" * (len(m.group(0)) - 1), text, flags=re.DOTALL)
    return plain if neutral(plain) == plain else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Word:
    text: str
    start: int
    end: int
    depth: int


def _tokens(text: str) -> list[_Word] | None:
    """The words of a statement with their place and how deep in brackets they stand."""
    from sqlglot.dialects.postgres import Postgres

    log = logging.getLogger("sqlglot")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        raw: Sequence[Any] = Postgres().tokenize(text)
    except Exception:  # noqa: BLE001 - a tokenizer met with any text; whatever it raises means the same
        return None
    finally:
        log.setLevel(level)
    words, depth = [], 0
    for token in raw:
        if token.text == ")":
            depth -= 1
        words.append(_Word(text=token.text.upper(), start=token.start, end=token.end + 1, depth=depth))
        if token.text == "(":
            depth += 1
    return words


def _changed(text: str, words: list[_Word], tag: str) -> str | tuple[str]:
    """The new text, or a tuple with the reason why there is none."""
    if words and words[-1].text == ";":
        words = words[:-1]
    if not words or any(w.text == ";" for w in words):
        return ("it is several statements: give each a node of its own",)
    end = words[-1].end
    flat = [w for w in words if w.depth == 0]
    main = next((n for n, w in enumerate(flat) if w.text in ("INSERT", "UPDATE", "DELETE", "MERGE", "SELECT")), None)
    if main is None or (flat[main].text in ("MERGE", "SELECT")):
        what = next((w.text for w in flat[main or 0 :]), "fragment")
        return (f"it is a {what}: write the tag in by hand",)
    body = flat[main:]
    names = {w.text for w in flat[:main]}
    if "RUN" in names:
        return ("it has a common table `run` of another meaning already",)
    new = _insert(text, body, words) if body[0].text == "INSERT" else _where(text, body, 0, end)
    if isinstance(new, tuple):
        return new
    if flat[0].text == "WITH":
        at = flat[1].end if flat[1].text == "RECURSIVE" else flat[0].end
        return f"{new[:at]} {tag},{new[at:]}"
    return f"{new[: flat[0].start]}WITH {tag}\n{new[flat[0].start :]}"


def _where(text: str, body: list[_Word], start: int, end: int) -> str | tuple[str]:
    """The condition in a statement's own WHERE; it is added where there is none."""
    words = [w for w in body if w.start >= start]
    stop = next((w.start for w in words if w.text.split()[0] in _AFTER_WHERE), None)
    conflict = _on_conflict(words)
    stops = [s for s in (stop, conflict) if s is not None]
    until = min(stops) if stops else end
    where = next((w for w in words if w.text == "WHERE" and w.start < until), None)
    if any(w.text in ("UNION", "INTERSECT", "EXCEPT") for w in words):
        return ("it unites several queries: write the tag in by hand",)
    if where is None:
        head = text[:until].rstrip()
        gap = "\n" if until < end else ""
        return f"{head}\nWHERE {_CONDITION}{gap}{text[until:]}"
    inside = text[where.end : until].strip()
    after = text[where.end : until][len(text[where.end : until].rstrip()) :]
    if inside.upper().startswith("CURRENT OF"):
        return ("it follows a cursor: write the tag in by hand",)
    return f"{text[: where.end]} {_CONDITION} AND ({inside}){after}{text[until:]}"


def _on_conflict(words: Sequence[_Word]) -> int | None:
    for one, two in pairwise(words):
        if one.text == "ON CONFLICT" or (one.text == "ON" and two.text == "CONFLICT"):
            return one.start
    return words[-1].start if words and words[-1].text == "ON CONFLICT" else None


def _insert(text: str, body: list[_Word], words: Sequence[_Word]) -> str | tuple[str]:
    """An insert from a query gets the condition there; one row of values becomes a query."""
    select = next((w for w in body if w.text == "SELECT"), None)
    values = next((w for w in body if w.text == "VALUES"), None)
    if select is not None and (values is None or select.start < values.start):
        return _where(text, body, select.start, words[-1].end)
    if values is None:
        return ("it inserts neither values nor a query: write the tag in by hand",)
    opened = next((w for w in body if w.start >= values.end and w.text == "("), None)
    closed = next((w for w in body if opened and w.start > opened.start and w.text == ")"), None)
    if opened is None or closed is None:
        return ("its values stand in no brackets: write the tag in by hand",)
    following = next((w for w in body if w.start >= closed.end), None)
    if following is not None and following.text == ",":
        return ("it inserts several rows of values: write it as a query, or the tag by hand",)
    inside = text[opened.end : closed.start].strip()
    if any(w.text == "DEFAULT" for w in words if opened.start < w.start < closed.start):
        return ("it names DEFAULT among its values: leave that column out, then tag it",)
    return f"{text[: values.start]}SELECT {inside} FROM run{text[closed.end :]}"  # noqa: S608 - an edit of their own text
