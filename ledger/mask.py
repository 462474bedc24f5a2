"""Keeping secrets out of the ledger: known values, telling key names, and texts that look like credentials.

Recording must go on during an incident, so a body is masked, not refused. Names (kind, app, ...) are identities that
must not change silently: a secret in one of them is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

MASK = "***"
MIN_SECRET_CHARS = 4
"""Shorter known values would mask ordinary words."""

_TELLING_KEY = re.compile(
    r"(^|[._-])(password|passwd|pwd|passphrase|secret|client[_-]?secret|secret[_-]?key|api[_-]?key|apikey|"
    r"access[_-]?key|access[_-]?token|auth[_-]?token|refresh[_-]?token|bearer|authorization|private[_-]?key|"
    r"encryption[_-]?key|cookie|dsn)$",
    re.IGNORECASE,
)
# References are how secrets are meant to be written.
_REFERENCE = re.compile(r"(env|file):")
_CAMEL_HUMP = re.compile(r"([a-z])([A-Z])")
_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s@]+@", re.IGNORECASE), rf"\1:{MASK}@"),
    # libpq key words and URL parameters: password=..., pwd=...
    (re.compile(r"\b((?:password|passwd|pwd)\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&;'\"]+)", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b((?:api[_-]?key|access[_-]?token)=)[^\s&;'\"]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {MASK}"),
    # JSON web tokens, which is what n8n's API keys are
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), MASK),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
)


class Guard:
    """Masks secrets in values. ``secrets`` are known secret values, ``redact`` further key names to mask."""

    def __init__(self, *, secrets: Iterable[str] = (), redact: Iterable[str] = ()) -> None:
        known = {s for s in secrets if len(s) >= MIN_SECRET_CHARS}
        known |= {quote(s, safe="", errors="surrogatepass") for s in known}
        # The longest first: a secret may contain another one.
        self._known = tuple(sorted(known, key=lambda s: (-len(s), s)))
        self._redact = frozenset(name.lower() for name in redact)

    def __repr__(self) -> str:
        return f"Guard({len(self._known)} secrets)"

    def text(self, text: str) -> str:
        """``text`` with every secret in it replaced."""
        for secret in self._known:
            text = text.replace(secret, MASK)
        for pattern, replacement in _TEXTS:
            text = pattern.sub(replacement, text)
        return text

    def clean(self, text: str) -> bool:
        """Whether ``text`` holds no secret."""
        return self.text(text) == text

    def value(self, value: Any) -> Any:
        """Plain JSON ``value`` with secrets replaced; values under a telling key go altogether."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._under(key, item) for key, item in value.items()}
        return value

    def _under(self, key: str, item: Any) -> Any:
        if key.lower() in self._redact and item is not None:
            return MASK
        if isinstance(item, str) and item and _telling(key) and not _REFERENCE.match(item):
            return MASK
        return self.value(item)


def _telling(key: str) -> bool:
    return bool(_TELLING_KEY.search(_CAMEL_HUMP.sub(r"\1_\2", key)))
