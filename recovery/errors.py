"""Why a recovery does not go on. Each message names the object, the cause and the next step in one line."""

from __future__ import annotations

from enum import StrEnum


class RecoveryError(Exception):
    """Base of this room's errors."""


class Refused(RecoveryError):
    """The plan may not run: a gap, a cap, a conflict, a missing approval. Nothing was changed."""


class NotInOrder(Refused):
    """Journal or points are not as a recovery needs them; each thing with its next step."""


class Rejected(Refused):
    """A person said no to this plan."""


class Expired(Refused):
    """The plan was shown too long ago: the app has gone on meanwhile."""


class Superseded(Refused):
    """Something newer took the plan's place: another plan of its incident, or the end of the incident."""


class PauseNotProven(RecoveryError):
    """The platform says paused but something still runs, answers or writes. The fence is up."""


class StepFailed(RecoveryError):
    """A step could not be done. The app stays paused and fenced: a safe state; rerun when the cause is gone."""


class NotCompensated(StepFailed):
    """A critical step could not be taken back. The rows are undone, nothing is replayed; the app stays paused."""

    state = "undone-not-compensated"


class Outcome(StrEnum):
    """How a publication ended, or what it found in its way."""

    LIVE = "live"
    """The wanted version is live, read back."""
    SAVED = "saved"
    """The workflow is inactive; the version is saved and will be live when it is activated."""
    DRAFT_ONLY = "draft-only"
    """The version is saved, and production runs another one."""
    NOT_SERVED = "not-served"
    """The platform calls the wanted version live, and its entry does not answer."""
    EDITED = "edited"
    """Somebody saves another content meanwhile."""
    AMBIGUOUS = "ambiguous"
    """Several workflows of the name: nobody can tell which one is meant."""
    NOT_MADE = "not-made"
    """The workflow is gone and could not be made again."""
    CREDENTIALS = "credentials"
    """The version is saved and was not made live: a credential it names is missing, refused or unreadable."""
    NOT_FOLLOWED = "not-followed"
    """A call of a workflow that got a new id cannot be pointed at it."""


class PublishFailed(StepFailed):
    """A version did not get where it should; ``outcome`` says how far it got."""

    def __init__(self, text: str, *, outcome: Outcome) -> None:
        super().__init__(text)
        self.outcome = outcome


class VerificationFailed(RecoveryError):
    """Suites or agreement did not pass. Nothing resumes without a recorded override."""


class Relapse(RecoveryError):
    """After the resume the detectors fired again; the app was contained again."""


class NothingToRecover(RecoveryError):
    """No open incident, or nothing in it to bring back."""


def one_line(error: BaseException) -> str:
    """The error in one line, for records: the lines after the first are where databases quote rows."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]
