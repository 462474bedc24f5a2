"""What a valid catalogue may still get wrong: names that point nowhere, one role for two workflows, missing files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from catalog import cron
from catalog.models import App, Detector, Workflow
from catalog.step_rules import broken_steps

ONE_ROLE = frozenset({"directus"})
"""Platforms whose workflows cannot have database roles of their own."""

Breach = tuple[tuple[str | int, ...], str, str]
"""Where in the app, the cause, the next step."""


def broken(app: App, root: Path) -> Iterator[Breach]:
    """Every rule the app breaks. ``root`` is the catalogue's folder, for the files it names."""
    yield from _unique(app)
    yield from _workflows(app, root)
    yield from _cycles(app)
    yield from _resume_order(app)
    yield from _tables(app)
    for i, detector in enumerate(app.detectors):
        yield from _detector(app, i, detector)
    yield from _reactions(app)


def _unique(app: App) -> Iterator[Breach]:
    def twice(list_name: str, field: str, values: Iterable[str], why: str) -> Iterator[Breach]:
        seen: dict[str, int] = {}
        for i, value in enumerate(values):
            if value in seen:
                yield (list_name, i, field), f"{value!r} is already {field} of {list_name}[{seen[value]}]", why
            else:
                seen[value] = i

    yield from twice("workflows", "key", (w.key for w in app.workflows), "Rename one of them")
    yield from twice(
        "workflows", "name", (w.name for w in app.workflows), "Workflows are found by name: give each its own"
    )
    if app.platform.kind not in ONE_ROLE:
        yield from twice(
            "workflows",
            "role",
            (w.role for w in app.workflows),
            "Give each workflow its own database role, or its writes cannot be told apart",
        )
    yield from twice("tables", "name", (t.name for t in app.tables), "Describe each table once")
    yield from twice("detectors", "key", (d.key for d in app.detectors), "Rename one of them")
    yield from twice("playbooks", "key", (p.key for p in app.playbooks), "Rename one of them")
    yield from twice("channels", "key", (c.key for c in app.channels), "Rename one of them")


def _workflows(app: App, root: Path) -> Iterator[Breach]:
    keys, tables = {w.key for w in app.workflows}, {t.name for t in app.tables}
    for i, workflow in enumerate(app.workflows):
        at = ("workflows", i)
        for j, key in enumerate(workflow.downstream):
            if key not in keys:
                yield (*at, "downstream", j), f"no workflow {key!r}", _known("workflow", keys)
        for field, names in (("reads", workflow.reads), ("writes", workflow.writes)):
            for j, name in enumerate(names):
                parts = name.split(".")
                if len(parts) not in (2, 3) or not all(parts):
                    yield (*at, field, j), f"{name!r} names no table", "Write schema.table or schema.table.column"
                elif ".".join(parts[:2]) not in tables:
                    yield (
                        (*at, field, j),
                        f"table {'.'.join(parts[:2])!r} is not declared",
                        "Declare it under `tables:`",
                    )
        yield from broken_steps(at, workflow, keys)
        yield from _canary(at, workflow, root)


def _canary(at: tuple[str | int, ...], workflow: Workflow, root: Path) -> Iterator[Breach]:
    if workflow.canary is None:
        return
    place = (*at, "canary", "event")
    file = root / workflow.canary.event
    try:
        event = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        yield place, f"no readable file {workflow.canary.event!r}", "Paths start from the catalogue's folder"
    except ValueError:
        yield place, f"{workflow.canary.event!r} is not JSON", "Write the trigger's input body as a JSON object"
    else:
        if not isinstance(event, dict):
            yield (
                place,
                f"{workflow.canary.event!r} is no JSON object",
                "Write the trigger's input body as a JSON object",
            )


def _cycles(app: App) -> Iterator[Breach]:
    """A cycle of dependents has no order to resume in, unless ``resume_order`` gives one."""
    keys = {w.key for w in app.workflows}
    ordered = {key for stage in app.resume_order for key in stage}
    for i, workflow in enumerate(app.workflows):
        if workflow.key in workflow.downstream:
            yield ("workflows", i, "downstream"), f"{workflow.key!r} is downstream of itself", "Remove it"
        elif workflow.key not in ordered and workflow.key in _reached(app, workflow.downstream, keys):
            yield (
                ("workflows", i, "downstream"),
                f"{workflow.key!r} depends on itself through others, so no order to resume in follows",
                "Break the cycle, or name its workflows in `resume_order:`",
            )


def _reached(app: App, start: tuple[str, ...], keys: set[str]) -> set[str]:
    seen: set[str] = set()
    todo = list(start)
    while todo:
        key = todo.pop()
        if key in keys and key not in seen:
            seen.add(key)
            todo.extend(app.workflow(key).downstream)
    return seen


def _resume_order(app: App) -> Iterator[Breach]:
    keys = {w.key for w in app.workflows}
    seen: set[str] = set()
    for i, stage in enumerate(app.resume_order):
        for j, key in enumerate(stage):
            if key not in keys:
                yield ("resume_order", i, j), f"no workflow {key!r}", _known("workflow", keys)
            elif key in seen:
                yield ("resume_order", i, j), f"workflow {key!r} is named twice", "Resume each workflow once"
            seen.add(key)


def _tables(app: App) -> Iterator[Breach]:
    names = {t.name for t in app.tables}
    for i, table in enumerate(app.tables):
        for j, name in enumerate(table.derives):
            if name not in names:
                yield ("tables", i, "derives", j), f"table {name!r} is not declared", "Declare it under `tables:`"
        for j, reference in enumerate(table.references):
            at = ("tables", i, "references", j)
            if reference.table not in names:
                yield (*at, "table"), f"table {reference.table!r} is not declared", "Declare it under `tables:`"
            if len(reference.columns) != len(reference.to) or not reference.columns:
                yield at, "`columns` and `to` do not pair up", "Give as many columns on both sides"


def _detector(app: App, i: int, detector: Detector) -> Iterator[Breach]:
    at = ("detectors", i)
    names = {t.name for t in app.tables}
    if detector.table not in names:
        yield (*at, "table"), f"table {detector.table!r} is not declared", "Declare it under `tables:`"
        return
    for field, reference in (("reference", detector.reference), ("children", detector.children)):
        if reference is None:
            continue
        if reference.table not in names:
            yield (*at, field, "table"), f"table {reference.table!r} is not declared", "Declare it under `tables:`"
        if len(reference.columns) != len(reference.to) or not reference.columns:
            yield (*at, field), "`columns` and `to` do not pair up", "Give as many columns on both sides"
    needed = _NEEDS.get(detector.kind)
    if needed and not needed[0](app, detector):
        yield at, f"a {detector.kind} detector needs {needed[1]}", "Add it"


def _reactions(app: App) -> Iterator[Breach]:
    """What happens once something was found: who is told, how long a plan may wait, what runs when."""
    playbooks = {p.key for p in app.playbooks}
    for i, detector in enumerate(app.detectors):
        if detector.playbook is not None and detector.playbook not in playbooks:
            yield (
                ("detectors", i, "playbook"),
                f"no playbook {detector.playbook!r}",
                _known("playbook", playbooks) if playbooks else "Describe it under `playbooks:`",
            )
    for i, channel in enumerate(app.channels):
        if not channel.severities:
            yield (
                ("channels", i, "severities"),
                "no severity, so nothing is ever sent",
                "Name some, or remove the channel",
            )
    kept_s = app.journal.retention_days * 86_400
    if app.approvals.expires_s > kept_s:
        yield (
            ("approvals", "expires_s"),
            f"a plan could be approved after {app.journal.retention_days} days, when its journal is pruned",
            "Shorten it, or raise `journal.retention_days:`",
        )
    for name, line in app.schedules.model_dump().items():
        if (wrong := cron.problem(line)) is not None:
            yield ("schedules", name), wrong, "Write minute, hour, day, month and weekday, such as `0 5 * * 0`"


_NEEDS: dict[str, tuple[Callable[[App, Detector], bool], str]] = {
    "duplicates": (lambda app, d: bool(d.columns or app.table(d.table).unique), "`columns:`, the business key"),
    "orphans": (lambda app, d: bool(d.reference or app.table(d.table).references), "a `reference:`"),
    "partial": (lambda _, d: d.children is not None, "`children:`"),
    "rule": (lambda _, d: bool(d.sql), "`sql:`, a condition over the row `r`"),
    "mass-delete": (lambda _, d: d.min_rows > 1, "`min_rows:` above 1: a single row is no mass"),
    "value-drift": (
        lambda app, d: len(d.columns) == 1 and app.table(d.table).event_time is not None,
        "one numeric column in `columns:`, and `event_time:` on its table",
    ),
    "volume-drift": (lambda app, d: app.table(d.table).event_time is not None, "`event_time:` on its table"),
}


def _known(what: str, keys: set[str]) -> str:
    return f"Use the key of a {what}: {', '.join(sorted(keys))}"
