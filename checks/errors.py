"""Why a check gave no answer. A check that cannot run is a failure, never a pass.

``CheckError``
 +- ``SuiteBroken``     a suite file, or a table or column it names, is not as it should be
 +- ``DetectorBroken``  a detector cannot be evaluated: no journal, no key, wrong SQL
 `- ``Undiagnosed``     the evidence does not single out a version; nothing may be undone on its account

All are permanent. Losing the database is ``psycopg.OperationalError`` and may be tried again.
"""

from __future__ import annotations


class CheckError(Exception):
    """Base of this room: object, cause and next step in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class SuiteBroken(CheckError):
    """A suite cannot be run."""


class DetectorBroken(CheckError):
    """A detector cannot be run."""


class Undiagnosed(CheckError):
    """No version can be blamed. Look at the evidence it names, then choose the runs by hand."""
