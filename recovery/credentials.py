"""Credentials that keep a version from working as it did, told apart by name: gone, refused, unreadable, changed.

A definition only names a credential. So a restored definition can be right to the last character and still fail, or
write with somebody else's rights. What the history noted while the version was good says when each one was last edited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from platforms.base import Credential, CredentialState
from recovery import history

if TYPE_CHECKING:
    from recovery.context import AppContext


class Problem(StrEnum):
    MISSING = "missing"
    """The definition names it, the platform does not have it."""
    INVALID = "invalid"
    """The other side refuses it."""
    UNREADABLE = "unreadable"
    """The platform cannot decrypt it: it runs with another encryption key than the one it was stored with."""
    CHANGED = "changed"
    """Somebody edited it after the version was last good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """``credential`` is its id in the platform; ``detail`` and ``next`` are sentences without values."""

    workflow: str
    credential: str
    name: str
    kind: str
    problem: Problem
    detail: str
    next: str

    @property
    def sentence(self) -> str:
        return f"{self.workflow}: credential {self.name!r} ({self.kind}) is {self.problem}: {self.detail}; {self.next}"


def troubles(
    ctx: AppContext, workflow: str, platform_id: str, version_hash: str, *, before: datetime | None = None
) -> tuple[Trouble, ...]:
    """What is wrong with the credentials that the saved definition of ``platform_id`` names. ``before``: looks from
    then on say nothing about how they were while ``version_hash`` was good. Raises ``PlatformError``."""
    return judged(workflow, ctx.platform.credentials(platform_id), good(ctx, workflow, version_hash, before=before))


def good(
    ctx: AppContext, workflow: str, version_hash: str, *, before: datetime | None = None
) -> Mapping[str, datetime | None]:
    """By id, when each credential had last been edited as the version was last seen in use; empty when no look told."""
    for seen in reversed(history.listing(ctx, workflow)):
        in_use = not seen.gone and not seen.passed and seen.used == version_hash
        if in_use and seen.credentials and (before is None or seen.at < before):
            return {c.id: c.changed_at for c in seen.credentials}
    return {}


def judged(workflow: str, listed: Sequence[Credential], good: Mapping[str, datetime | None]) -> tuple[Trouble, ...]:
    """The troubles among ``listed`` (pure). One that is there, cannot be tested and was not changed is none."""
    unreadable = [c for c in listed if c.state is CredentialState.UNREADABLE]
    found = []
    for credential in listed:
        problem, detail, step = _judged(credential, good.get(credential.id), every=len(unreadable) == len(listed))
        if problem is not None:
            found.append(
                Trouble(
                    workflow=workflow,
                    credential=credential.id,
                    name=credential.name,
                    kind=credential.kind,
                    problem=problem,
                    detail=detail,
                    next=step,
                )
            )
    return tuple(found)


def _judged(credential: Credential, good: datetime | None, *, every: bool) -> tuple[Problem | None, str, str]:
    said = f" ({credential.detail})" if credential.detail else ""
    if credential.state is CredentialState.MISSING:
        return (
            Problem.MISSING,
            f"the platform does not have it{said}",
            "make it again under this name, or point to another",
        )
    if credential.state is CredentialState.UNREADABLE:
        whose = "any credential of this workflow" if every else "it, though it reads others"
        return (
            Problem.UNREADABLE,
            f"the platform cannot decrypt {whose}{said}",
            "start the platform with the encryption key it was stored with",
        )
    if credential.state is CredentialState.INVALID:
        return Problem.INVALID, f"the other side refuses it{said}", "enter a valid secret in the platform"
    if good is not None and credential.changed_at is not None and credential.changed_at > good:
        was, now = (f"{t:%Y-%m-%d %H:%M:%S}" for t in (good, credential.changed_at))
        return (
            Problem.CHANGED,
            f"edited at {now}, while the version was good it was that of {was}",
            "ask who changed it and why; if it is right, take a recovery point or resume with a recorded override",
        )
    return None, "", ""
