"""How much of an app Reinstate can take back: the declared steps by kind of inverse, and the gaps by name."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.models import App, Workflow


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """Counts of declared mutating steps. ``gaps`` are sentences, each naming what is missing where."""

    app: str
    reversible: int
    compensable: int
    irreversible: int
    gaps: tuple[str, ...]

    @property
    def steps(self) -> int:
        return self.reversible + self.compensable + self.irreversible

    def share(self, count: int) -> float:
        """``count`` as a share of all declared steps, 0..1; 0 when none is declared."""
        return count / self.steps if self.steps else 0.0

    @property
    def covered(self) -> float:
        """Share of steps that can be taken back without a person."""
        return self.share(self.reversible + self.compensable)


def coverage(app: App) -> Coverage:
    """The coverage of one app, as its catalogue declares it."""
    steps = [step for workflow in app.workflows for step in workflow.steps]
    return Coverage(
        app=app.key,
        reversible=sum(s.inverse == "reversible" for s in steps),
        compensable=sum(s.inverse == "compensable" for s in steps),
        irreversible=sum(s.inverse == "irreversible" for s in steps),
        gaps=tuple(gap for workflow in app.workflows for gap in _workflow_gaps(workflow)) + _app_gaps(app),
    )


def _workflow_gaps(workflow: Workflow) -> list[str]:
    gaps = []
    if workflow.writes and not workflow.steps:
        gaps.append(f"{workflow.key}: writes {len(workflow.writes)} places but declares no steps")
    gaps.extend(
        f"{workflow.key}: step {step.name!r} is {step.inverse} and has no manual way back"
        for step in workflow.steps
        if step.inverse != "reversible" and not step.manual
    )
    if workflow.writes and workflow.trigger.kind == "webhook" and not workflow.trigger.event_key:
        gaps.append(f"{workflow.key}: no event key, so its events cannot be replayed")
    if workflow.writes and workflow.trigger.kind == "webhook" and workflow.canary is None:
        gaps.append(f"{workflow.key}: no canary proves it after a recovery")
    return gaps


def _app_gaps(app: App) -> tuple[str, ...]:
    watched = {d.table for d in app.detectors}
    written = {".".join(place.split(".")[:2]) for w in app.workflows for place in w.writes}
    return tuple(f"{table}: written, but no detector watches it" for table in sorted(written - watched))
