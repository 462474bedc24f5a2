"""Making SQL with a platform's placeholders readable for a parser, without knowing their values. Pure."""

from __future__ import annotations

import re

MARK = "rj_open_"
"""Begins every identifier that stands for something filled in at run time."""

_OPEN = re.compile(
    r"\{\{\{.*?\}\}\}"  # mustache, unescaped
    r"|\{\{.*?\}\}"  # n8n, Node-RED, Directus
    r"|\$\{[^{}]*\}"  # template strings
    r"|\$\[[^\[\]]*\]|\$<[^<>]*>|\$\([A-Za-z_]\w*\)|\$/[A-Za-z_]\w*/"  # other brackets of named parameters
    r"|\$\d+\s*:\s*(?:name|alias|raw|value|csv|json|list)\b"  # parameters that are pasted in as text or names
    r"|\$\d+\s*[~^#]",
    re.DOTALL | re.IGNORECASE,
)
_NAMED = re.compile(r"(?<![\w$:])\$(?![\d$])[A-Za-z_]\w*(?!\w*\$)")


def neutral(text: str) -> str:
    """``text`` with every placeholder replaced by an identifier that begins with ``MARK``; ``$1`` and ``:name`` stay,
    since a parser knows them. Fits where a value, a name, or a part of either stood, also inside quotes."""
    number = 0

    def mark(_: re.Match[str]) -> str:
        nonlocal number
        number += 1
        return f"{MARK}{number}"

    # An expression field of n8n begins with an equals sign.
    bare = text[1:] if text.lstrip().startswith("=") and text[:1] == "=" else text.lstrip()
    bare = bare.removeprefix("=")
    return _NAMED.sub(mark, _OPEN.sub(mark, bare))


def is_open(name: str) -> bool:
    """Whether a name holds a part that is filled in at run time."""
    return MARK in name.lower()
