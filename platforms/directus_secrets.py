"""Secrets inside the options of Directus' operations: found, taken out, put back. Pure.

Directus has no store of credentials: a token stands in the headers, the address or the body of a *request*, or is the
*secret* of a token operation. A value that only reads another one (``{{ $env.TOKEN }}``) is no secret. What somebody
writes into the code of an *exec* operation cannot be told from code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MASK = "(kept in Directus)"
"""Stands for a secret wherever a definition is shown. Found *in* Directus it says that the secret was lost."""

HARMLESS_HEADERS = frozenset(
    (
        *("accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "content-encoding"),
        *("content-language", "content-type", "date", "idempotency-key", "if-match", "if-none-match", "origin"),
        *("prefer", "range", "referer", "user-agent", "x-request-id"),
    )
)
NAMED = r"api[-_]?key|access[-_]?key|private[-_]?key|secret|passw(?:or)?d|token|authorization|credential|signature"
SECRET_NAME = re.compile(rf"(?i)({NAMED})")
TEMPLATE = re.compile(r"\{\{.*?\}\}")
SCHEME = re.compile(r"(?i)\b(bearer|basic|token|apikey|digest)\b")
USER_INFO = re.compile(r"(?P<before>^[a-z][a-z0-9+.-]*://)(?P<value>[^/@]+)(?P<after>@)", re.IGNORECASE)
PARAMETER = re.compile(
    rf"(?i)(?P<before>[?&](?P<name>[^=&#]*(?:{NAMED}|sig|auth)[^=&#]*)=)(?P<value>[^&#]+)(?P<after>)"
)
IN_TEXT = re.compile(rf'(?i)(?P<before>"(?P<name>[^"]*(?:{NAMED})[^"]*)"\s*:\s*")(?P<value>[^"]+)(?P<after>")')


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """One secret of an operation; ``place`` names it among the operation's options, whatever its value."""

    place: str
    kind: str
    value: str

    def __repr__(self) -> str:
        return f"Secret(place={self.place!r}, kind={self.kind!r})"


Replace = Callable[[Secret], str]


def secrets_of(kind: str, options: Mapping[str, Any]) -> list[Secret]:
    """The secrets of an operation of type ``kind``."""
    found: list[Secret] = []

    def note(secret: Secret) -> str:
        found.append(secret)
        return secret.value

    replaced(kind, options, note)
    return found


def masked(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with every secret replaced by :data:`MASK`."""
    return replaced(kind, options, lambda _: MASK)


def filled(kind: str, options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The options with the secrets in ``known`` (by place) where the mask stands. Others keep the mask."""
    return replaced(kind, options, lambda s: known.get(s.place, s.value) if s.value == MASK else s.value)


def known_in(kind: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Place and value of the secrets that are really there."""
    return {s.place: s.value for s in secrets_of(kind, options) if s.value != MASK}


def is_literal(value: Any) -> bool:
    """Whether a text holds something of its own besides templates and the name of a scheme."""
    return isinstance(value, str) and bool(SCHEME.sub("", TEMPLATE.sub("", value)).strip(" ,;:\"'"))


def replaced(kind: str, options: Mapping[str, Any], replace: Replace) -> dict[str, Any]:
    """The options with each secret put through ``replace``."""
    result = dict(options)
    if kind == "request":
        result.pop("headers", None)
        if "headers" in options:
            result["headers"] = _headers(options["headers"], replace)
        if isinstance(url := options.get("url"), str):
            result["url"] = _in_text(url, (USER_INFO, PARAMETER), "url", "address", replace)
    for name, value in result.items():
        if name not in ("headers", "url") or kind != "request":
            result[name] = _inside(value, name, name, replace)
    return result


def _headers(headers: Any, replace: Replace) -> Any:
    if not isinstance(headers, list):
        return headers
    result = []
    for entry in headers:
        name = str(entry.get("header", "")) if isinstance(entry, Mapping) else ""
        if name and name.lower() not in HARMLESS_HEADERS and is_literal(entry.get("value")):
            secret = Secret(place=f"headers.{name.lower()}", kind="header", value=entry["value"])
            result.append({**entry, "value": replace(secret)})
        else:
            result.append(entry)
    return result


def _inside(value: Any, name: str, place: str, replace: Replace) -> Any:
    if isinstance(value, Mapping):
        return {k: _inside(v, str(k), f"{place}.{k}", replace) for k, v in value.items()}
    if isinstance(value, list):
        return [_inside(v, name, f"{place}.{i}", replace) for i, v in enumerate(value)]
    if isinstance(value, str) and SECRET_NAME.search(name) and is_literal(value):
        return replace(Secret(place=place, kind="value", value=value))
    if isinstance(value, str) and name != "code":
        return _in_text(value, (IN_TEXT,), place, "value", replace)
    return value


def _in_text(text: str, patterns: tuple[re.Pattern[str], ...], place: str, kind: str, replace: Replace) -> str:
    for pattern in patterns:

        def put(match: re.Match[str]) -> str:
            if not is_literal(match["value"]):
                return match[0]
            name = match.groupdict().get("name") or "user"
            secret = Secret(place=f"{place}.{name}", kind=kind, value=match["value"])
            return f"{match['before']}{replace(secret)}{match['after']}"

        text = pattern.sub(put, text)
    return text
