"""Where the known-good definitions come from when a person names the recovery point."""

from __future__ import annotations

from checks.model import Diagnosis
from recovery.context import AppContext
from recovery.errors import Refused
from snapshots.points import points


def chosen(ctx: AppContext, diagnosis: Diagnosis, point_id: str | None) -> tuple[str, str | None]:
    """The good version of the diagnosed workflow and the point that holds it; without a choice, the diagnosis' own.

    Raises ``PointMissing`` for an unknown point and :class:`Refused` for one that is not verified, or that holds no
    version, or the bad one, of the workflow."""
    if point_id is None:
        return diagnosis.good_version, diagnosis.point_id
    point = points.load(ctx.store, ctx.app.key, point_id)
    if not point.verified:
        raise Refused(
            f"point {point_id}: its suites did not pass, so it is not verified; choose another with `reinstate points`"
        )
    held = {w.workflow: w.version_hash for w in point.workflows}.get(diagnosis.workflow)
    if held is None or held == diagnosis.bad_version:
        what = "no version" if held is None else f"the bad version {held[:12]}"
        raise Refused(
            f"point {point_id}: it holds {what} of {diagnosis.workflow}; choose another one with `reinstate points`"
        )
    return held, point.id
