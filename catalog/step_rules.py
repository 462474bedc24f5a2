"""What a workflow's declared steps and their inverses may still get wrong: parts that do not fit the kind, values that
nothing uses, SQL that would end its own transaction, addresses that an event could bend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from catalog import placeholders
from catalog.models import Compensation, Step, Workflow

Location = tuple[str | int, ...]
Breach = tuple[Location, str, str]

PARTS = {"sql": ("sql",), "http": ("url", "headers", "body", "not_needed", "method"), "workflow": ("workflow",)}
REQUIRED = {"sql": "sql", "http": "url", "workflow": "workflow"}
ROOTS = ("event", "outputs", "run")
HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
KEY_HEADER = "idempotency-key"
PATHS = "Begin with event. or outputs., or write run"


def broken_steps(at: Location, workflow: Workflow, keys: set[str]) -> Iterator[Breach]:
    """Every rule that the steps of the workflow at ``at`` break; ``keys`` are the app's workflows."""
    seen: dict[str, int] = {}
    for i, step in enumerate(workflow.steps):
        place = (*at, "steps", i)
        if not step.name.strip():
            yield (*place, "name"), "a step needs a name", "Say what it does"
        elif step.name in seen:
            yield (
                (*place, "name"),
                f"step {step.name!r} is there already",
                "Give each step its own name: what was taken back is recorded by it",
            )
        seen.setdefault(step.name, i)
        if step.compensation is not None:
            yield from _inverse((*place, "compensation"), workflow, step, step.compensation, keys)
        elif step.unsure != "manual":
            yield (*place, "unsure"), "there is no `compensation:` to do", "Add one, or remove it"


def _inverse(at: Location, workflow: Workflow, step: Step, given: Compensation, keys: set[str]) -> Iterator[Breach]:
    if step.inverse != "compensable":
        yield (
            at,
            f"the step is {step.inverse}, so this would never be done",
            "Write `inverse: compensable`, or remove it",
        )
        return
    if getattr(given, REQUIRED[given.kind]) is None:
        yield at, f"a compensation of kind {given.kind} needs `{REQUIRED[given.kind]}:`", "Add it"
        return
    for kind, names in PARTS.items():
        for name in names:
            if kind != given.kind and name in given.model_fields_set:
                yield (*at, name), f"a compensation of kind {given.kind} takes no `{name}:`", "Remove it"
    yield from _values(at, step, given)
    match given.kind:
        case "sql":
            yield from _sql(at, given)
        case "http":
            yield from _http(at, given)
        case "workflow":
            if given.workflow not in keys:
                known = f"Use the key of a workflow: {', '.join(sorted(keys))}"
                yield (*at, "workflow"), f"no workflow {given.workflow!r}", known
            elif given.workflow == workflow.key:
                yield (*at, "workflow"), "a workflow cannot take back its own step", "Name another one"


def _values(at: Location, step: Step, given: Compensation) -> Iterator[Breach]:
    for name, path in given.values.items():
        place = (*at, "values", name)
        parts = path.split(".")
        if not placeholders.NAME.fullmatch(name):
            yield place, f"{name!r} is no name", "Use small letters, digits and _, beginning with a letter"
        if not all(parts) or parts[0] not in ROOTS or (parts[0] == "run") != (len(parts) == 1):
            yield place, f"{path!r} leads nowhere", PATHS
        elif placeholders.per_item(path) and (step.node is None or not path.startswith(f"outputs.{step.node}.*.")):
            yield (
                place,
                f"{path!r} is not of the step's own node",
                "Write outputs.NODE.*.…, with the `node:` of the step",
            )


def _sql(at: Location, given: Compensation) -> Iterator[Breach]:
    try:
        found = placeholders.statements(given.sql or "")
    except placeholders.Malformed as error:
        yield (*at, "sql"), f"the SQL {error}", "Write statements that change rows, with values as :name"
        return
    yield from _used(at, given, frozenset().union(*(s.names for s in found)), "sql", ":{}")


def _http(at: Location, given: Compensation) -> Iterator[Breach]:
    url = given.url or ""
    names = placeholders.in_text(url).union(*(placeholders.in_text(text) for text in given.body.values()))
    if not url.startswith(("env:", "file:")) and (wrong := _address(url)) is not None:
        yield (*at, "url"), *wrong
    for name in given.headers:
        if not HEADER.fullmatch(name):
            yield (*at, "headers", name), f"{name!r} is no name of a header", "Correct it"
        elif name.lower() == KEY_HEADER:
            yield (*at, "headers", name), "Reinstate sends this header itself", "Remove it"
    for i, status in enumerate(given.not_needed):
        if not 400 <= status <= 499:
            yield (*at, "not_needed", i), f"{status} does not say that there is nothing to take back", "Use 400 to 499"
    yield from _used(at, given, names, "url", "{{{}}}")


def _address(url: str) -> tuple[str, str] | None:
    """Why ``url`` cannot be called; an event must not decide which server is."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "the address is malformed", "Write https://host/path"
    if parts.scheme not in ("http", "https") or not host:
        return "this is no address", "Write https://host/path, or a reference such as env:NAME"
    if "{" in parts.netloc:
        return "the server may not come from a value", "Write the server's name out"
    if "@" in parts.netloc:
        return "a secret must be a reference", "Put the whole address into env:NAME, or use `headers:`"
    return None


def _used(at: Location, given: Compensation, names: frozenset[str], part: str, form: str) -> Iterator[Breach]:
    for name in sorted(names - given.values.keys()):
        yield (*at, part), f"{form.format(name)} is not among the `values:`", f"Add `{name}:` with the path to it"
    for name in given.values:
        if name not in names:
            yield (*at, "values", name), f"{form.format(name)} is used nowhere", "Use it, or remove it"
