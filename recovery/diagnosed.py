"""The diagnosis of an incident, read back from the ledger as a value."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from checks.model import BadRun, Diagnosis
from recovery.context import AppContext
from recovery.errors import Refused


def latest(ctx: AppContext, incident: str) -> Diagnosis:
    """Raises :class:`Refused` when nobody could tell what went wrong: then a person must decide."""
    entries = ctx.ledger.entries(incident=incident, kinds=["incident.diagnosed"])
    if not entries:
        why = [e.body.get("why", "") for e in ctx.ledger.entries(incident=incident, kinds=["incident.undiagnosed"])]
        raise Refused(
            f"incident {incident}: not diagnosed{f' ({why[-1]})' if why else ''}; run `reinstate diagnose` first"
        )
    relapses = ctx.ledger.entries(incident=incident, kinds=["relapse"])
    if relapses and relapses[-1].seq > entries[-1].seq and relapses[-1].body.get("damage"):
        raise Refused(
            f"incident {incident}: its diagnosis is older than the relapse of {relapses[-1].at:%Y-%m-%d %H:%M:%S} UTC; "
            "run `reinstate diagnose` again"
        )
    return parse(dict(entries[-1].body))


def parse(body: dict[str, Any]) -> Diagnosis:
    runs = tuple(
        BadRun(**{**r, "started_at": when(r["started_at"]), "xids": tuple(r["xids"])}) for r in body["bad_runs"]
    )
    return Diagnosis(
        **{
            **body,
            "published_at": when(body["published_at"]),
            "first_bad_at": datetime.fromisoformat(body["first_bad_at"]),
            "bad_runs": runs,
            "evidence": tuple(body["evidence"]),
            "unattributed": tuple(body["unattributed"]),
        }
    )


def when(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
