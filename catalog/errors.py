"""What can be wrong with a catalogue, and with the secrets it refers to.

``CatalogError``
 +- ``Invalid``        the YAML is malformed, does not validate or contradicts itself
 +- ``UnknownApp``     the catalogue holds no app of that key
 `- ``SecretMissing``  a reference points to nothing; names the reference, never a value

All are permanent: trying again without changing something cannot help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class CatalogError(Exception):
    """Base of this room: object, cause and next step in one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing wrong at one place. ``line`` counts from 1; ``path`` is dotted, with list positions from 0."""

    file: Path
    line: int
    path: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}: {where}{self.cause}. {self.remedy}".replace("\n", " ")


class Invalid(CatalogError):
    """The catalogue cannot be used. ``problems`` holds every one found, in reading order; the message is the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        super().__init__(str(self.problems[0]) + (f" ({more} more)" if more else ""))


class UnknownApp(CatalogError):
    """No app of that key in the catalogue. Use one of the keys it lists."""

    def __init__(self, key: str, known: Sequence[str]) -> None:
        super().__init__(f"app {key!r}: not in the catalogue. Use one of: {', '.join(known)}")


class SecretMissing(CatalogError):
    """A secret reference resolves to nothing."""
