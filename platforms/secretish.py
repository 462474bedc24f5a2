"""What looks like a secret that somebody typed into a workflow. Pure; one rule for the adapters that can share it."""

from __future__ import annotations

import re

SECRET_NAME = re.compile(
    r"(?i)(pass(word|wd|phrase)?|pwd|secret|token|(api|access|private|auth|account)[-_ ]?key|authorization|cookie)s?$"
)
"""Names under which a secret stands: of fields, headers, parameters, variables."""
USERINFO = re.compile(r"(?P<before>\w://[^/\s:@]*:)(?P<secret>[^/\s@]+)(?=@)")
"""The password in an address."""
TEMPLATE = re.compile(r"\{\{.*?\}\}", re.DOTALL)
SCHEME = re.compile(r"(?i)\b(bearer|basic|token|apikey|digest)\b")
ACCESS = re.compile(r"""\$\(\s*(["'`])(?:\\.|(?!\1).)*+\1\s*\)|\[\s*(["'`])(?:\\.|(?!\2).)*+\2\s*\]""", re.DOTALL)
"""A node or a field that an expression reads, by name."""
QUOTED = re.compile(r"""(["'`])(?P<text>(?:\\.|(?!\1).)*+)\1""", re.DOTALL)


def is_literal(text: str) -> bool:
    """Whether ``text`` holds something of its own besides expressions in braces and the name of a scheme. An expression
    counts when a text is written into it, names of what it reads apart."""
    if _own(TEMPLATE.sub("", text.removeprefix("="))):
        return True
    return any(
        _own(quoted["text"])
        for template in TEMPLATE.finditer(text)
        for quoted in QUOTED.finditer(ACCESS.sub("", template[0]))
    )


def _own(text: str) -> bool:
    return bool(SCHEME.sub("", text).strip(" \t\r\n,;:\"'"))
