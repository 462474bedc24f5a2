"""The steps of a plan, by mode. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from recovery.plan import Mode, Step

Calls = Mapping[str, frozenset[str]]
"""The workflows that each workflow calls."""

STAGE_WATCH_S = 1.0
FINAL_WATCH_S = 2.0


def stages(
    order: Sequence[Sequence[str]], contained: Iterable[str], calls: Calls | None = None
) -> list[tuple[str, ...]]:
    """The contained workflows in resume order; those the catalogue does not place come last, together. What is called
    comes back no later than its callers: they would fail, or be refused by the platform."""
    left = set(contained)
    out = []
    for group in order:
        if stage := tuple(w for w in group if w in left):
            out.append(stage)
            left -= set(stage)
    if left:
        out.append(tuple(sorted(left)))
    return _called_in_time(out, calls or {})


def _called_in_time(out: list[tuple[str, ...]], calls: Calls) -> list[tuple[str, ...]]:
    place = {w: n for n, stage in enumerate(out) for w in stage}
    for n, stage in enumerate(out):
        todo = list(stage)
        while todo:
            late = [w for w in calls.get(todo.pop(), ()) if place.get(w, n) > n]
            place |= dict.fromkeys(late, n)
            todo += late
    moved = [tuple(w for stage in out for w in stage if place[w] == n) for n in range(len(out))]
    return [stage for stage in moved if stage]


def steps(
    mode: Mode,
    *,
    published: Sequence[str],
    contained: Sequence[str],
    resume_order: Sequence[Sequence[str]],
    replayed: Sequence[str],
    canaries: Sequence[str],
    events: int,
    carried: int,
    compensations: int = 0,
    left: int = 0,
    through: Sequence[str] = (),
    calls: Calls | None = None,
    held: bool = False,
) -> tuple[Step, ...]:
    """Both halves end in a staged resume; one half alone ends in a named, paused state (``logic-restored`` or
    ``data-restored``). ``compensations`` are done, ``left`` ones a person does; ``through`` are the workflows that do
    them. ``held``: an ingress kept the events that came during the pause."""
    out = [Step(id="contain", kind="contain", title=f"Prove that {len(contained)} workflows are paused and fenced")]
    if mode is not Mode.DATA:
        out += [
            Step(
                id=f"publish:{w}",
                kind="publish",
                title=f"Bring {w} back to its known-good version",
                params={"workflow": w},
            )
            for w in published
        ]
    if mode is not Mode.LOGIC:
        out.append(Step(id="undo", kind="undo", title="Undo what the selected runs wrote, keeping later work"))
        if compensations or left:
            title = f"Take back {compensations} steps outside the rows, latest run first"
            title += f"; {left} are left to a person" if left else ""
            out.append(Step(id="compensate", kind="compensate", title=title))
        if events:
            out.append(Step(id="replay", kind="replay", title=f"Replay {events} legitimate events, once each"))
        if carried:
            out.append(Step(id="carry", kind="carry", title=f"Carry {carried} edits of people over the replay"))
    resumed = mode is Mode.BOTH
    out.append(
        Step(
            id="verify",
            kind="verify",
            title="Prove the restored state: suites and agreement",
            params={"resumed": resumed},
        )
    )
    private = sorted({*replayed, *through, *(canaries if resumed else ())}) if mode is not Mode.LOGIC else []
    if resumed:
        if canaries:
            title = f"Send a canary through {', '.join(canaries)}, check it and undo it"
            out.append(Step(id="canary", kind="canary", title=title, params={"workflows": list(canaries)}))
        for n, stage in enumerate(stages(resume_order, contained, calls), start=1):
            out.append(
                Step(
                    id=f"resume:{n}",
                    kind="resume",
                    title=f"Resume {', '.join(stage)}, watching the detectors",
                    params={"stage": n, "workflows": list(stage), "watch_s": STAGE_WATCH_S},
                )
            )
        out.append(
            Step(
                id="watch",
                kind="watch",
                title="Watch the detectors over live traffic",
                params={"watch_s": FINAL_WATCH_S},
            )
        )
        if held:
            title = "Send the events that came during the pause, in order, once each"
            out.append(Step(id="release", kind="release", title=title))
    out.append(
        Step(
            id="close",
            kind="close",
            title="Remove private copies, check the active set",
            params={"private": private, "resumed": resumed},
        )
    )
    return tuple(out)
