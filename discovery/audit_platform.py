"""Workflows of a catalogue against the definitions that the platform runs. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from catalog.models import App, Workflow
from discovery.facts import PlatformFacts, WorkflowFacts
from discovery.findings import Finding, error, note, warning
from discovery.guesses import found_in
from discovery.uses import WorkflowUse
from platforms.base import CredentialState, EntryKind

_NEXT_LISTS = "Correct `reads:` and `writes:` in the catalogue; `reinstate discover` drafts them"
_KINDS = {"webhook": EntryKind.WEBHOOK, "schedule": EntryKind.SCHEDULE}


def workflows(app: App, platform: PlatformFacts, seen: Sequence[WorkflowUse]) -> Iterator[Finding]:
    """Every workflow, declared or not. ``seen`` are their uses of the database; empty when it was out of reach."""
    by_name: dict[str, list[WorkflowFacts]] = defaultdict(list)
    for facts in platform.workflows:
        by_name[facts.name].append(facts)
    by_id = {use.facts.id: use for use in seen}
    for problem in platform.problems:
        yield warning("platform", problem, "Look at it in the platform")
    for workflow in app.workflows:
        about = f"workflow {workflow.key}"
        match by_name.get(workflow.name, []):
            case []:
                yield error(
                    about,
                    f"the platform has no workflow named {workflow.name!r}",
                    "Correct `name:`, or make the workflow again with `reinstate workflow publish`",
                )
            case [facts]:
                yield from _one(app, workflow, facts, by_id.get(facts.id), platform)
            case several:
                yield error(
                    about, f"the platform has {len(several)} workflows named {workflow.name!r}", "Rename one of them"
                )
    yield from _undeclared(app, seen)
    yield from _ingress(app, by_name)


def _one(
    app: App, workflow: Workflow, facts: WorkflowFacts, use: WorkflowUse | None, platform: PlatformFacts
) -> Iterator[Finding]:
    about = f"workflow {workflow.key}"
    if not facts.active:
        yield note(about, "it is not active in the platform", "Activate it, or take it out of the catalogue")
    yield from _trigger(workflow, facts)
    for credential in facts.credentials:
        if credential.state not in (CredentialState.VALID, CredentialState.PRESENT):
            detail = f" ({credential.detail})" if credential.detail else ""
            yield error(
                about,
                f"its credential {credential.name!r} is {credential.state}{detail}",
                "Enter it again in the platform; its runs fail until then",
            )
    nodes = {n.name for n in facts.outline.nodes}
    for step in workflow.steps:
        if step.node is not None and step.node not in nodes:
            yield error(
                about, f"step {step.name!r} names node {step.node!r}, which it does not have", "Correct `node:`"
            )
    if use is not None:
        yield from _lists(app, workflow, use)
        yield from _calls(app, workflow, use, platform)


def _trigger(workflow: Workflow, facts: WorkflowFacts) -> Iterator[Finding]:
    about, trigger = f"workflow {workflow.key}", workflow.trigger
    kinds = {e.kind for e in facts.outline.entries}
    expected = _KINDS.get(trigger.kind)
    if kinds and expected is not None and expected not in kinds:
        named = ", ".join(sorted(kinds))
        yield error(about, f"the catalogue says {trigger.kind}, the definition {named}", "Correct `trigger:`")
    elif expected is None and EntryKind.WEBHOOK in kinds:
        yield warning(about, "it has a webhook that the catalogue does not mention", "Write `kind: webhook`")
    if trigger.kind != "webhook" or trigger.replay != "once":
        return
    if trigger.event_key is None:
        yield warning(
            about, "no `event_key:`, so its events are never replayed", "Name the field that identifies an event"
        )
        return
    if not facts.events:
        yield note(about, "no recent run, so its event key was not seen", "Check again after the first events")
        return
    for field, path in (("event_key", trigger.event_key), ("event_time", trigger.event_time)):
        if path is None:
            continue
        missing = sum(1 for e in facts.events if not found_in(path, e))
        if missing:
            kind = error if missing == len(facts.events) and field == "event_key" else warning
            text = f"`{field}: {path}` is missing in {missing} of its last {len(facts.events)} events"
            yield kind(about, text, "Correct the path, or ask the sender for the field")


def _lists(app: App, workflow: Workflow, use: WorkflowUse) -> Iterator[Finding]:
    """Tables and columns that the definition uses, against those that the catalogue lists."""
    about = f"workflow {workflow.key}"
    tables = {t.name for t in app.tables}
    for name in use.writes:
        table = ".".join(name.split(".")[:2])
        if table not in tables:
            yield error(about, f"it writes {table}, which the catalogue does not name", "Declare it under `tables:`")
        elif not _covered(name, workflow.writes):
            yield warning(about, f"it writes {name}, which its `writes:` does not list", _NEXT_LISTS)
    for table in use.reads:
        listed = (*workflow.reads, *workflow.writes)
        if table not in tables:
            yield warning(about, f"it reads {table}, which the catalogue does not name", "Declare it under `tables:`")
        elif not any(n == table or n.startswith(f"{table}.") for n in listed):
            yield warning(about, f"it reads {table}, which its `reads:` does not list", _NEXT_LISTS)
    # What a definition leaves open may still write what is listed.
    kind = note if use.unsure else warning
    for name in workflow.writes:
        if not any(_covered(used, (name,)) or _covered(name, (used,)) for used in use.writes):
            yield kind(about, f"its `writes:` lists {name}, which its definition does not write", _NEXT_LISTS)
    for name in workflow.reads:
        table = ".".join(name.split(".")[:2])
        if table not in use.tables and table not in use.reads:
            yield note(about, f"its `reads:` lists {name}, which its definition does not read", _NEXT_LISTS)
    for why in use.unsure:
        yield note(about, f"what it does is not all to be seen: {why}", "Look at the node, and keep its lists by hand")


def _covered(name: str, listed: Sequence[str]) -> bool:
    """Whether ``schema.table[.column]`` is listed, itself or as its whole table."""
    return name in listed or ".".join(name.split(".")[:2]) in listed


def _calls(app: App, workflow: Workflow, use: WorkflowUse, platform: PlatformFacts) -> Iterator[Finding]:
    """Sub-workflows: who calls them waits for them."""
    names = {w.id: w.name for w in platform.workflows}
    by_name = {w.name: w for w in app.workflows}
    for call in use.calls:
        called = by_name.get(names.get(call, call))
        if called is None:
            yield warning(
                f"workflow {workflow.key}",
                f"it calls workflow {names.get(call, call)!r}, which the catalogue does not name",
                "Declare it, so that it is captured and paused with the app",
            )
        elif workflow.key not in called.downstream:
            yield note(
                f"workflow {called.key}",
                f"{workflow.key} calls it and is not among its `downstream:`",
                f"Add {workflow.key} there, so that it pauses when {called.key} does",
            )


def _undeclared(app: App, seen: Sequence[WorkflowUse]) -> Iterator[Finding]:
    """Workflows that use the app's tables and are not in the catalogue."""
    names = {w.name for w in app.workflows}
    tables = {t.name for t in app.tables}
    for use in seen:
        if use.facts.name in names:
            continue
        about = f"workflow {use.facts.name!r}"
        written = sorted(use.sql.writes & tables)
        read = sorted(use.tables & tables)
        if written:
            text = f"it is not in the catalogue and writes {', '.join(written)}"
            yield error(about, text, "Declare it, or nobody can pause it or undo what it wrote")
        elif read:
            yield note(
                about, f"it is not in the catalogue and reads {', '.join(read)}", "Declare it if it belongs here"
            )


def _ingress(app: App, by_name: dict[str, list[WorkflowFacts]]) -> Iterator[Finding]:
    """Addresses by which the ingress tells workflows apart."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for workflow in app.workflows:
        if workflow.trigger.kind != "webhook":
            continue
        entries = [e for f in by_name.get(workflow.name, ()) for e in f.outline.entries if e.kind is EntryKind.WEBHOOK]
        for entry in entries:
            if entry.path is not None:
                places[((entry.method or "any").upper(), entry.path)].append(workflow.key)
        if app.ingress is None:
            if workflow.trigger.during_pause != "replay" or workflow.trigger.replay_per_s is not None:
                yield warning(
                    f"workflow {workflow.key}",
                    "what is to happen to events during a pause needs an ingress, and there is none",
                    "Add `ingress:` and let senders call it",
                )
        elif not entries or any(e.path is None for e in entries):
            yield warning(
                f"workflow {workflow.key}",
                "the address of its webhook is not in its definition, so the ingress cannot serve it",
                "Give the webhook a fixed path",
            )
    for (method, path), keys in sorted(places.items()):
        if len(set(keys)) > 1:
            yield error(
                f"address {method} {path}",
                f"{', '.join(sorted(set(keys)))} share it, so the ingress cannot tell whose an event is",
                "Give each its own path",
            )
