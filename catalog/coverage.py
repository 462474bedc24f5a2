"""How much of an app Reinstate can take back: the declared steps by kind of inverse, and what is missing, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from catalog.models import App, Step, Workflow


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """Counts of declared mutating steps of an app or of one workflow (``of`` is its key). ``compensable`` ones have a
    compensation, ``unprovided`` ones ought to. ``undeclared`` counts workflows that write and declare no step: each
    counts as one step that is not covered. ``gaps`` are sentences, each naming what is missing where; ``rest`` names
    the steps that are not covered, with the way back that a person has."""

    of: str
    reversible: int
    compensable: int
    unprovided: int
    irreversible: int
    undeclared: int
    rest: tuple[str, ...]
    gaps: tuple[str, ...]

    @property
    def steps(self) -> int:
        return self.reversible + self.compensable + self.unprovided + self.irreversible + self.undeclared

    @property
    def covered(self) -> float:
        """Share of steps that are taken back without a person, 0..1; nothing to cover is covered."""
        return (self.reversible + self.compensable) / self.steps if self.steps else 1.0


def coverage(app: App) -> Coverage:
    """The coverage of one app, as its catalogue declares it."""
    parts = [workflow_coverage(w) for w in app.workflows]
    return summed(app.key, parts, gaps=_app_gaps(app))


def workflow_coverage(workflow: Workflow) -> Coverage:
    steps = workflow.steps
    undeclared = bool(workflow.writes) and not steps
    return Coverage(
        of=workflow.key,
        reversible=sum(s.inverse == "reversible" for s in steps),
        compensable=sum(s.inverse == "compensable" and s.compensation is not None for s in steps),
        unprovided=sum(s.inverse == "compensable" and s.compensation is None for s in steps),
        irreversible=sum(s.inverse == "irreversible" for s in steps),
        undeclared=int(undeclared),
        rest=tuple(_rest(workflow)),
        gaps=tuple(_gaps(workflow)),
    )


def summed(of: str, parts: Iterable[Coverage], *, gaps: tuple[str, ...] = ()) -> Coverage:
    """Several together; ``gaps`` are those that belong to none of them."""
    found = list(parts)
    return Coverage(
        of=of,
        reversible=sum(c.reversible for c in found),
        compensable=sum(c.compensable for c in found),
        unprovided=sum(c.unprovided for c in found),
        irreversible=sum(c.irreversible for c in found),
        undeclared=sum(c.undeclared for c in found),
        rest=tuple(line for c in found for line in c.rest),
        gaps=(*(gap for c in found for gap in c.gaps), *gaps),
    )


def covered(step: Step) -> bool:
    """Whether the step is taken back without a person."""
    return step.inverse == "reversible" or (step.inverse == "compensable" and step.compensation is not None)


def _rest(workflow: Workflow) -> Iterator[str]:
    if workflow.writes and not workflow.steps:
        places = f"{len(workflow.writes)} place{'s' if len(workflow.writes) > 1 else ''}"
        yield f"{workflow.key}: it writes to {places} and declares no steps"
    for step in workflow.steps:
        if covered(step):
            continue
        what = (
            "cannot be taken back" if step.inverse == "irreversible" else "could be compensated, and nothing says how"
        )
        yield f"{workflow.key}: step {step.name!r} {what}; by hand: {step.manual or 'nobody wrote down how'}"


def _gaps(workflow: Workflow) -> Iterator[str]:
    """What somebody should add."""
    key, trigger = workflow.key, workflow.trigger
    if workflow.writes and not workflow.steps:
        yield f"{key}: declare its steps under `steps:`"
    for step in workflow.steps:
        if step.inverse == "compensable" and step.compensation is None:
            yield f"{key}: step {step.name!r} is compensable and has no `compensation:`"
        if step.inverse != "reversible" and not step.manual:
            yield f"{key}: step {step.name!r} is {step.inverse} and has no manual way back (`manual:`)"
        if step.inverse != "reversible" and step.node is None:
            yield f"{key}: step {step.name!r} names no `node:`, so every undone run counts as having done it"
        if step.inverse == "irreversible" and workflow.canary is not None:
            yield f"{key}: its canary does step {step.name!r} for real each time; let the canary's event avoid it"
    if workflow.writes and trigger.kind == "webhook" and not trigger.event_key:
        yield f"{key}: no event key, so its events cannot be replayed"
    if workflow.writes and trigger.kind == "webhook" and workflow.canary is None:
        yield f"{key}: no canary proves it after a recovery"


def _app_gaps(app: App) -> tuple[str, ...]:
    watched = {d.table for d in app.detectors}
    written = {".".join(place.split(".")[:2]) for w in app.workflows for place in w.writes}
    return tuple(f"{table}: written, but no detector watches it" for table in sorted(written - watched))
