"""Waiting for a person: the run suspends (its process ends) with a form, and comes back with the answer.

What the answer is worth is decided in :mod:`recovery.approvals`; here are the form, and the runs that wait.
"""

from __future__ import annotations

from datetime import UTC, datetime
from logging import WARNING
from typing import Any, Final, Literal
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput, create_flow_run_input, keyset_from_base_key
from prefect.runtime import flow_run
from pydantic import Field, ValidationError, create_model

GRACE_S: Final = 24 * 3600
"""Prefect gives up on a suspended run so much later than the plan expires: until then the ledger says why it ended."""

CONFLICT: Final = 409


class Answer(RunInput):
    """What a person answers to a plan."""

    decision: Literal["approve", "reject"] = Field(
        title="Decision",
        description="approve: exactly this plan runs. reject: nothing runs, and the app stays paused and fenced.",
    )
    by: str = Field(title="Your name", min_length=1, description="Who decides. It goes on record; nobody checks it.")
    reason: str = Field(
        default="", title="Reason", description="Why, for the record. Say it above all when you reject."
    )
    plan: str = Field(
        title="Plan", description="The plan that is shown above, by its hash. The answer counts for this one alone."
    )

    @classmethod
    def save(cls, keyset: Any, flow_run_id: UUID | None = None) -> None:
        """Store the form with the run, piece by piece; what is there already stays. So it can be stored before the run
        is suspended: a process that dies right after that must not leave a run that nobody can answer."""
        pieces = {"schema": cls.model_json_schema(by_alias=True), "description": cls._description}
        for piece, value in pieces.items():
            try:
                create_flow_run_input(key=keyset[piece], value=value, flow_run_id=flow_run_id)
            except PrefectHTTPStatusError as error:
                if error.response.status_code != CONFLICT:
                    raise


def form(plan_hash: str, text: str) -> type[Answer]:
    """The form for one plan; ``text`` is the plan in Markdown, shown above it."""
    described = Answer.model_fields["plan"]
    only: Any = Field(
        default=plan_hash,
        title=described.title,
        description=described.description,
        json_schema_extra={"enum": [plan_hash]},
    )
    bound = create_model("Answer", __base__=Answer, plan=(str, only))
    found: type[Answer] = bound.with_initial_data(description=text)
    return found


def deployed() -> bool:
    """Whether this run belongs to a deployment, so that it can be started again when the answer is there."""
    from prefect.runtime import deployment

    return deployment.id is not None


def wait(plan_hash: str, text: str, *, expires_s: float) -> Answer:
    """Suspend until somebody answers; the second time, return the answer. Raises ``recovery.errors.Refused`` when the
    run was resumed without one."""
    key = plan_hash[:16]
    made = form(plan_hash, text)
    made.save(keyset_from_base_key(f"suspended-{key}"))
    try:
        return suspend_flow_run(wait_for_input=made, timeout=round(expires_s) + GRACE_S, key=key)
    except ValidationError:
        from recovery.errors import Refused

        raise Refused(
            f"plan {plan_hash[:12]}: the run was resumed without an answer; start `recover` again and answer its form"
        ) from None


def rename(name: str) -> None:
    """Give this run a name that reads. That the server takes it is not worth a recovery."""
    if flow_run.name == name or flow_run.id is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_name(UUID(str(flow_run.id)), name)
    except Exception as error:  # noqa: BLE001 - whatever it is, the recovery is more important
        get_run_logger().warning("the run could not be named %s: %s", name, error)


def end_waiting(run: str | None, *, name: str, message: str) -> bool:
    """End a run that waits for an answer which would not count any more (``Expired``, ``Superseded``). False when it
    does not wait, or there is none. Raises what Prefect's client raises."""
    try:
        which = UUID(str(run))
    except ValueError:
        return False
    with get_client(sync_client=True) as client:
        try:
            found = client.read_flow_run(which)
            if found.state is None or not found.state.is_paused():
                return False
            client.set_flow_run_state(which, State(type=StateType.FAILED, name=name, message=message), force=True)
            # The run has no process that could log, and its page shows the name of a state but not the message.
            line = {"name": "reinstate", "level": WARNING, "message": message, "flow_run_id": str(which)}
            client.create_logs([{**line, "timestamp": datetime.now(UTC).isoformat()}])
        except (ObjectNotFound, PrefectHTTPStatusError):
            return False
    return True
