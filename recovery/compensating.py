"""What becomes of the steps that undoing rows does not take back: decided from the runs' details. Pure.

A step was done if its node returned something; without a node, every run did it. A run that was cut off may have got
further than it recorded: its steps after the last recorded one are *unsure*, but for those whose node cannot have
begun, since nothing that leads to it returned anything. Of each step done, the declared inverse is performed with
values from the run, or a person must act, or the plan is refused (``critical``): never nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from catalog.models import Compensation as Inverse
from catalog.models import Step, Workflow
from catalog.placeholders import EACH, per_item
from platforms.base import RunState
from recovery.plan import Compensation

MASK: Final = "***"
NAMED: Final = 5
"""So many runs of a step are named in one sentence; the record has all."""
NEVER: Final = datetime.min.replace(tzinfo=UTC)
Outputs = Mapping[str, Sequence[Mapping[str, Any]]]
Scalar = str | int | float | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """One run to be undone. ``event`` and ``outputs`` are ``None`` where the platform does not tell. ``replayed``: its
    event will be sent again."""

    workflow: str
    run_id: str
    state: RunState | None
    started_at: datetime | None
    event: Mapping[str, Any] | None = field(repr=False)
    outputs: Outputs | None = field(repr=False)
    replayed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """``refusals`` are sentences that forbid the plan."""

    compensations: tuple[Compensation, ...]
    refusals: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """What the runs do not tell. ``incident`` is part of the keys. ``nodes`` are the nodes of each workflow in the
    versions that ran, each with those that lead to it; empty where nobody knows. ``settled`` says what is on record, by
    (workflow, run, step, item). ``replays``: the platform can run a workflow privately."""

    incident: str
    nodes: Mapping[str, Mapping[str, frozenset[str]]]
    settled: Mapping[tuple[str, str, str, int | None], str] = field(default_factory=dict)
    replays: bool = True


def decide(workflows: Iterable[Workflow], runs: Iterable[Facts], world: World) -> Decided:
    """Every step of ``runs`` that undoing rows does not take back, in the order in which to take them back: the
    latest run first, of each run the last step first, of each step the last item first."""
    steps = {w.key: w.steps for w in workflows}
    found: list[Compensation] = []
    refusals: list[str] = []
    for run in sorted(runs, key=lambda r: (r.started_at or NEVER, number(r.run_id)), reverse=True):
        for step, doubt in reversed(list(done(steps.get(run.workflow, ()), run, world))):
            for one in of_step(run, step, doubt, world):
                found.append(one)
                if one.action == "manual" and one.kind is not None and one.critical and not doubt:
                    refusals.append(refusal(one))
    return Decided(compensations=tuple(found), refusals=tuple(refusals))


def refusal(one: Compensation) -> str:
    return (
        f"step {one.step!r} of run {one.run_id} of {one.workflow} cannot be taken back: {one.why}; it is critical: "
        f"take it back by hand and record that with `reinstate compensations settle {one.workflow} {one.run_id} "
        f"--step {json.dumps(one.step, ensure_ascii=False)}`, or let the catalogue call it `critical: false`"
    )


def number(run_id: str) -> tuple[int, str]:
    """Run ids in the order in which platforms give them."""
    return (int(run_id), "") if run_id.isdecimal() else (0, run_id)


def done(steps: Sequence[Step], run: Facts, world: World) -> Iterator[tuple[Step, str]]:
    """The steps that the run did, or may have done, in their order; with an empty text where it surely did, else with
    the reason for the doubt. Reversible ones are left out: undoing rows is what takes them back."""
    recorded = [i for i, s in enumerate(steps) if s.node is not None and s.node in (run.outputs or {})]
    last = max(recorded, default=-1)
    for i, step in enumerate(steps):
        if step.inverse == "reversible":
            continue
        if step.node is None or i in recorded:
            yield step, ""
        elif run.outputs is None:
            yield step, "the platform does not tell what the run did, so nobody knows whether it did this"
        elif (known := world.nodes.get(run.workflow)) and step.node not in known:
            yield step, f"no version of the workflow has a node {step.node!r}: correct `node:` in the catalogue"
        elif run.state is not RunState.SUCCESS and i > last and not unreached(run, (known or {}).get(step.node)):
            yield step, "the run was cut off, and nobody can tell whether it got there"


def unreached(run: Facts, before: frozenset[str] | None) -> bool:
    """Whether a node cannot have begun: none of those ``before`` it returned anything, in a run whose record is whole
    (a crash may lose the last of it; a run that recorded nothing tells nothing)."""
    told = run.state in (RunState.ERROR, RunState.CANCELED) and bool(run.outputs)
    return told and bool(before) and not (before or frozenset()) & set(run.outputs or {})


def of_step(run: Facts, step: Step, doubt: str, world: World) -> Iterator[Compensation]:
    """What becomes of one step of one run: one entry, or one per item of the step's node."""
    inverse = step.compensation
    if inverse is None:
        why = doubt or ("" if step.inverse == "irreversible" else "the catalogue declares no compensation")
        yield entry(run, step, world, action="manual", why=why)
        return
    if doubt and step.unsure == "manual":
        yield entry(run, step, world, action="manual", why=doubt)
        return
    if inverse.kind == "workflow" and not world.replays:
        yield entry(run, step, world, action="manual", why="the platform cannot run a workflow while it is paused")
        return
    items = (run.outputs or {}).get(step.node or "", ())
    each = any(per_item(path) for path in inverse.values.values())
    if each and not items:
        yield entry(run, step, world, action="manual", why=f"node {step.node!r} returned no item")
        return
    if not each and len(items) > 1 and any(p.startswith(f"outputs.{step.node}.") for p in inverse.values.values()):
        why = f"node {step.node!r} did it {len(items)} times, and the compensation takes back one (use * in its paths)"
        yield entry(run, step, world, action="manual", why=why)
        return
    for item in reversed(range(len(items))) if each else (None,):
        missing = sorted(n for n, v in values(inverse, run, item).items() if v is None)
        if missing:
            why = f"the run has no value for {', '.join(f'{n} ({inverse.values[n]})' for n in missing)}"
            yield entry(run, step, world, action="manual", why=why, item=item)
        else:
            yield entry(run, step, world, action="do", why=doubt, item=item)


def entry(run: Facts, step: Step, world: World, *, action: str, why: str, item: int | None = None) -> Compensation:
    inverse = step.compensation
    mine = (run.workflow, run.run_id, step.name)
    if (before := world.settled.get((*mine, item), world.settled.get((*mine, None)))) is not None:
        action, why = "settled", before
    return Compensation.model_validate(
        {
            "workflow": run.workflow,
            "run_id": run.run_id,
            "step": step.name,
            "item": item,
            "inverse": step.inverse,
            "action": action,
            "key": key(world.incident, run.workflow, run.run_id, step.name, item),
            "kind": inverse.kind if inverse else None,
            "through": inverse.workflow if inverse else None,
            "critical": step.critical,
            "declared": digest(inverse) if inverse else "",
            "values": dict.fromkeys(inverse.values, MASK) if inverse and action == "do" else {},
            "why": why,
            "manual": step.manual,
            "again": run.replayed,
        }
    )


def by_hand(left: Iterable[Compensation]) -> list[str]:
    """What a person has to do, one sentence per step with all its runs."""
    grouped: dict[tuple[str, str], list[Compensation]] = {}
    for one in left:
        grouped.setdefault((one.workflow, one.step), []).append(one)
    out = []
    for (workflow, step), group in sorted(grouped.items()):
        ids = list(dict.fromkeys(c.run_id for c in sorted(group, key=lambda c: number(c.run_id))))
        shown = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
        manual = next((c.manual for c in group if c.manual), None)
        out.append(f"{step} of {workflow}, run {shown}" + (f": {manual}" if manual else ""))
    return out


def key(incident: str, workflow: str, run_id: str, step: str, item: int | None = None) -> str:
    """The idempotency key of one inverse: the same in every attempt, process and plan of the incident."""
    parts = [incident, workflow, run_id, step, *([] if item is None else [item])]
    return f"reinstate-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


def digest(inverse: Inverse) -> str:
    """Of a declaration: what is performed must be what was approved."""
    text = json.dumps(inverse.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def values(inverse: Inverse, run: Facts, item: int | None = None) -> dict[str, Scalar | None]:
    """The inverse's values from the run; ``None`` where it has none. Texts that are empty count as none."""
    world: dict[str, Any] = {"event": run.event, "outputs": run.outputs, "run": run.run_id}
    return {
        name: look_up(world, ".".join(str(item) if p == EACH else p for p in path.split(".")))
        for name, path in inverse.values.items()
    }


def look_up(value: Any, path: str) -> Scalar | None:
    """The scalar at a dotted path. Names that hold dots themselves are found as well, the longest first."""
    if not path:
        return value if isinstance(value, str | int | float) and value != "" else None
    parts = path.split(".")
    if isinstance(value, Mapping):
        for end in range(len(parts), 0, -1):
            if (name := ".".join(parts[:end])) in value:
                return look_up(value[name], ".".join(parts[end:]))
    elif isinstance(value, Sequence) and not isinstance(value, str) and parts[0].isdecimal():
        return look_up(value[int(parts[0])], ".".join(parts[1:])) if int(parts[0]) < len(value) else None
    return None
