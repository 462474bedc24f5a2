"""How the flows end: states whose names mean something and whose messages say what is so now and what to do next.

An error becomes a named state that carries it, so that who called the flow in this process still gets the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from logging import LogRecord, getLogger
from typing import Any, Final

from prefect import get_run_logger
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import CancelledRun
from prefect.states import Completed

NAMES: Final[Mapping[str, tuple[str, str]]] = {
    "recovery.errors.Rejected": ("Rejected", ""),
    "recovery.errors.Expired": ("Expired", ""),
    "recovery.errors.Superseded": ("Superseded", ""),
    "recovery.errors.NothingToRecover": ("Nothing to recover", "Nothing was changed."),
    "recovery.errors.NotInOrder": ("Not in order", ""),
    "recovery.errors.Refused": ("Refused", "Nothing was changed."),
    "recovery.errors.PauseNotProven": ("Pause not proven", "The fence is up: what still runs cannot write."),
    "recovery.errors.VerificationFailed": ("Not verified", "Nothing was resumed; the app stays paused and fenced."),
    "recovery.errors.Relapse": ("Contained again", ""),
    "recovery.errors.NotCompensated": (
        "Not compensated",
        "The rows are undone and nothing was replayed; the app is paused and fenced.",
    ),
    "recovery.errors.StepFailed": ("Stopped safely", "The app is paused and fenced; what is done is kept."),
    "recovery.errors.RecoveryError": ("Stopped safely", "The app is paused and fenced; what is done is kept."),
    "ledger.errors.LeaseHeld": ("Held by another recovery", "Nothing was changed; start again when that has ended."),
    "ledger.errors.LeaseLost": ("Held by another recovery", "What is done is kept; the other one goes on."),
    "catalog.errors.CatalogError": ("Catalogue at fault", "Nothing was changed."),
    "checks.errors.CheckError": ("Catalogue at fault", "Nothing was changed."),
    "incidents.errors.IncidentError": ("Nothing to recover", "Nothing was changed."),
    "snapshots.errors.SnapshotError": ("Refused", "Nothing was changed."),
    "platforms.base.PlatformError": ("Out of reach", "Nothing was changed."),
    "snapshots.errors.Unreachable": ("Out of reach", "Nothing was changed."),
    "psycopg.OperationalError": ("Out of reach", "Nothing was changed."),
    "ledger.errors.Unreachable": ("Out of reach", "Nothing was changed."),
}
"""Name of the state and what is so now, by error. Named, not imported: a flow loads nothing before it runs."""

RESTORED: Final[Mapping[str, tuple[str, str]]] = {
    "resumed": ("Recovered", "Logic and data agree, the suites passed, and every workflow runs again"),
    "logic-restored": (
        "Logic restored",
        "The definitions are back; the app is still paused. Next: recover with mode data, or start `resume`",
    ),
    "data-restored": (
        "Data restored",
        "The rows are back; the app is still paused. Next: recover with mode logic, or start `resume`",
    ),
}


def recovered(result: dict[str, Any]) -> State[Any]:
    """The end of a recovery that reached it."""
    name, said = RESTORED[result["state"]]
    if result.get("left_out"):
        said += f". A person must look at the events of {', '.join(result['left_out'])}, which fail as they did before"
    if result.get("unknown"):
        said += f". A person must look whether these events ran: {', '.join(result['unknown'])}"
    if result.get("by_hand"):
        said += f". A person must take back by hand: {'; '.join(result['by_hand'])}"
    return Completed(name=name, message=f"{said} ({result['recovery']}).", data=result)


def handled(why: str) -> State[Any]:
    """Nothing to do: the incident is in other hands."""
    return Completed(
        name="Already handled",
        message=f"Nothing was changed: {why}. Who wants another plan starts `recover` by hand.",
        data={"state": "already handled", "why": why},
    )


def waiting(recovery: str, plan_hash: str) -> State[Any]:
    """The end of a run that cannot wait: it belongs to no deployment."""
    return Completed(
        name="Waiting for approval",
        message=f"Nothing was changed. Next: `reinstate approve {recovery}`, then `reinstate recover --continue`.",
        data={"recovery": recovery, "plan_hash": plan_hash, "state": "waiting for approval"},
    )


def failed(error: Exception) -> State[Any]:
    """The same as :func:`ended` for an error before anything had begun, and one line in the run's log."""
    state = ended(error)
    log = get_run_logger()
    (log.warning if state.is_cancelled() else log.error)(state.message)
    return state


def ended(error: Exception, *, begun: str | None = None) -> State[Any]:
    """The state for an error. ``begun`` names the recovery when some of its steps may have been done. Raises the error
    when nobody foresaw it and nothing had begun: then Prefect shows where it came from."""
    found = named(error)
    if begun is not None:
        found = stopped(found)
    if found is None:
        raise error
    name, now = found
    message = " ".join(f"{sentence(error)} {now}{go_on(name, error, begun)}".split())
    kind = StateType.CANCELLED if name == "Rejected" else StateType.FAILED
    getLogger("prefect.flow_runs").addFilter(told)
    return State(type=kind, name=name, message=message, data=error)


def told(record: LogRecord) -> bool:
    """Whether a line belongs in the run's log. In a process of its own, Prefect's engine raises the error of a final
    state once more and logs where from: thirty lines about nothing new, above the sentence that says what to do."""
    error = record.exc_info[1] if record.exc_info else None
    known = error is not None and (isinstance(error, CancelledRun) or named(error) is not None)
    return not (known and str(record.msg).startswith("Engine execution exited"))


def named(error: BaseException) -> tuple[str, str] | None:
    """Name and meaning of an error: those of its nearest named ancestor."""
    for ancestor in type(error).__mro__:
        if found := NAMES.get(f"{ancestor.__module__}.{ancestor.__qualname__}"):
            return found
    return None


def stopped(found: tuple[str, str] | None) -> tuple[str, str]:
    """In the middle of a recovery nothing is "unchanged" any more, whatever the error."""
    kept = "The app is paused and fenced; what is done is kept."
    if found is None or found[1] == "Nothing was changed.":
        return "Stopped safely", kept
    return found


def go_on(name: str, error: Exception, begun: str | None) -> str:
    """What to do next with a recovery that stopped half-way, where the error does not say it."""
    if begun is None or name in ("Contained again", "Superseded", "Held by another recovery"):
        return ""
    from recovery.retry import heals

    if heals(error):
        return f" It goes on by itself once that is back; or start `recover` with recovery {begun}."
    return f" Next: when the cause is gone, start `recover` with recovery {begun}; nothing is done twice."


def sentence(error: BaseException) -> str:
    """The error's first line, as a sentence."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if text.endswith((".", "!", "?")) else f"{text}."
