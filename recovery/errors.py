"""Why a recovery does not go on. Each message names the object, the cause and the next step in one line."""

from __future__ import annotations


class RecoveryError(Exception):
    """Base of this room's errors."""


class Refused(RecoveryError):
    """The plan may not run: a gap, a cap, a conflict, a missing approval. Nothing was changed."""


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


class VerificationFailed(RecoveryError):
    """Suites or agreement did not pass. Nothing resumes without a recorded override."""


class Relapse(RecoveryError):
    """After the resume the detectors fired again; the app was contained again."""


class NothingToRecover(RecoveryError):
    """No open incident, or nothing in it to bring back."""


def one_line(error: BaseException) -> str:
    """The error in one line, for records: the lines after the first are where databases quote rows."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]
