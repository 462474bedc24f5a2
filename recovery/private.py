"""Private copies of workflows: events go through the known-good version while the workflow itself stays paused.

What a workflow calls may be paused with it. Its copy then calls copies, made before it and of nothing but what can be
called, so that no paused workflow is let in for a replay. Copies are found again by their source and content, also by
another process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from platforms.base import Definition, PrivateEntry, Run, Version
from recovery import dependents, following
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.delivery import ended
from recovery.errors import Refused
from recovery.plan import Plan

VersionOf = Callable[[str], Version]
"""The version of a workflow whose copy is wanted, by its key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Private:
    """The copy of a workflow, and the ``callees``: copies of the paused workflows that it starts, directly or through
    one another."""

    workflow: str
    entry: PrivateEntry
    callees: tuple[tuple[str, PrivateEntry], ...] = ()

    @property
    def reach(self) -> tuple[str, ...]:
        """The workflows as which a run of it may write."""
        return (self.workflow, *sorted({key for key, _ in self.callees}))


def of_plan(ctx: AppContext, plan: Plan, workflow: str) -> Private:
    """The open copy of the version that the plan holds good."""
    return opened(ctx, workflow, lambda key: known_good(ctx, plan, key), plan.contained)


def opened(ctx: AppContext, workflow: str, version_of: VersionOf, paused: Collection[str]) -> Private:
    """Open the copy, and those of what it calls among ``paused`` first. Raises :class:`Refused` for workflows that call
    one another in a circle, and ``PlatformError``."""
    callees: dict[str, PrivateEntry] = {}
    keys = _keys(ctx)

    def ready(key: str, above: tuple[str, ...]) -> Version:
        version = version_of(key)
        names: dict[str, str] = {}
        for other in _called(ctx, version.definition, keys, paused):
            _refuse_circle(other, (*above, key))
            if other not in callees:
                callees[other] = ctx.platform.open_private_callee(ready(other, (*above, key)))
            names |= callees[other].called_as
        return following.pointed(ctx.platform, version, names)

    entry = ctx.platform.open_private_entry(ready(workflow, ()))
    return Private(workflow=workflow, entry=entry, callees=tuple(callees.items()))


def reach(ctx: AppContext, workflows: Iterable[str], version_of: VersionOf, paused: Collection[str]) -> list[str]:
    """``workflows`` and those of ``paused`` that copies of them start, without opening any. Raises :class:`Refused` for
    a circle."""
    keys = _keys(ctx)
    found: set[str] = set()

    def go(key: str, above: tuple[str, ...]) -> None:
        found.add(key)
        for other in _called(ctx, version_of(key).definition, keys, paused):
            _refuse_circle(other, (*above, key))
            go(other, (*above, key))

    for workflow in workflows:
        go(workflow, ())
    return sorted(found)


def called(ctx: AppContext, version: Version) -> frozenset[str]:
    """The app's workflows that ``version`` calls."""
    return dependents.called(ctx.platform.outline(version.definition), _keys(ctx))


def closed(ctx: AppContext, private: Private) -> None:
    """Remove the copies, callers before what they call."""
    ctx.platform.close_private_entry(private.entry)
    for _, copy in reversed(private.callees):
        ctx.platform.close_private_entry(copy)


def children(ctx: AppContext, private: Private, run: Run) -> list[tuple[str, Run]]:
    """The runs that a run of the copy started, with their workflows, once they ended; none where the platform lists no
    runs. Events go through one by one, so they are those that began while it was under way."""
    found: list[tuple[str, Run]] = []
    for key, copy in private.callees:
        for child in ctx.platform.runs(copy.workflow_id):
            begun, first, last = child.started_at, run.started_at, run.stopped_at
            if begun is not None and (first is None or begun >= first) and (last is None or begun <= last):
                found.append((key, ended(ctx, child, limit_s(ctx, key))))
    return found


def limit_s(ctx: AppContext, workflow: str) -> float:
    """How many seconds a run of its copy may go on before it is stopped."""
    return ctx.app.workflow(workflow).trigger.replay_timeout_s


def too_long(run: Run, workflow: str, stopped: float) -> str:
    """Why a run of its copy was stopped, for people."""
    return (
        f"run {run.id} went on for more than {stopped:g} s, so Reinstate stopped it; if it needs longer, raise "
        f"`trigger.replay_timeout_s` of workflow {workflow} in the catalogue"
    )


def _refuse_circle(key: str, above: tuple[str, ...]) -> None:
    if key in above:
        raise Refused(
            f"workflow {key}: it calls itself ({' -> '.join((*above[above.index(key) :], key))}), so no private copy "
            "can stand for it while it is paused; declare `trigger.replay: discard` for it in the catalogue, "
            "recover again, and enter its events by hand"
        )


def _keys(ctx: AppContext) -> dict[str, str]:
    """The catalogue's key of each workflow, by its id and by its names."""
    infos = ctx.infos(partly=True)
    keys = {name: key for key, info in infos.items() for name in (info.name, ctx.app.workflow(key).name)}
    return keys | {info.id: key for key, info in infos.items()}


def _called(ctx: AppContext, definition: Definition, keys: dict[str, str], paused: Collection[str]) -> list[str]:
    return sorted(dependents.called(ctx.platform.outline(definition), keys) & frozenset(paused))
