"""`reinstate workflow list | history | diff | publish | export`: the versions of the app's workflows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Json, opened

if TYPE_CHECKING:
    from recovery.context import AppContext
    from recovery.history import Seen
    from recovery.publishing import Published
    from recovery.versioning import PublishPlan

SHORT = 12
Key = Annotated[str, typer.Argument(help="The workflow's key in the catalogue.")]
VERSION_HELP = (
    "A version: the beginning of its hash, or a word: live, saved, good (of the newest verified point), "
    "before (what was in use before)."
)


def register(app: typer.Typer) -> None:
    workflow = typer.Typer(
        help="Versions of the app's workflows, kept far longer than the platform keeps them.\n\nExamples: `reinstate "
        "workflow list`, `reinstate workflow diff intake`, `reinstate workflow publish intake good --reason '...'`.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, command in (
        ("list", list_),
        ("history", history),
        ("diff", diff),
        ("publish", publish),
        ("export", export),
    ):
        workflow.command(name)(command)
    app.add_typer(workflow, name="workflow")


def list_(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """List the workflows with the version that is live, after a look at the platform.

    Examples: `reinstate workflow list`, `reinstate workflow list --json`.
    """
    from recovery import versioning

    with opened(catalog, app) as ctx:
        found = versioning.listed(ctx)
    if as_json:
        output.emit([{**output.plain(row), "seen": shown(row.seen)} for row in found], as_json=True)
        return
    good = {None: "no point", True: "yes", False: "no"}
    output.table(
        "Workflows",
        ["workflow", "name", "state", "live", "saved", "as in the newest verified point", "versions", "changed"],
        [
            (r.workflow, r.name, r.state, short(r.live), short(r.saved), good[r.good], r.versions, when(r.seen))
            for r in found
        ],
    )


def history(workflow: Key, catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Show every change of a workflow that was seen: content, settings, live version, activation.

    Examples: `reinstate workflow history intake`, `reinstate workflow history intake --json`.
    """
    from recovery import history as own
    from recovery import versioning

    with opened(catalog, app) as ctx:
        versioning.known(ctx, workflow)
        own.observe(ctx)
        found = own.listing(ctx, workflow)
    if as_json:
        output.emit([shown(seen) for seen in found], as_json=True)
        return
    output.table(
        f"History of {workflow}, oldest first (times UTC)",
        ["changed", "version", "state", "live", "settings", "by", "reason"],
        [
            (
                when(seen),
                short(seen.version),
                versioning.state(seen),
                short(seen.live),
                short(seen.settings),
                seen.by or seen.author,
                seen.reason,
            )
            for seen in found
        ],
    )


def diff(
    workflow: Key,
    before: Annotated[str | None, typer.Argument(metavar="[FROM]", help=VERSION_HELP)] = None,
    after: Annotated[str | None, typer.Argument(metavar="[TO]", help="The same; what is in use by default.")] = None,
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two versions: nodes, parameters, SQL, links, schedule, settings, credentials.

    By default from what the newest verified point holds (without one: from what was in use before) to what is in use.

    Examples: `reinstate workflow diff intake`, `reinstate workflow diff intake 3f9a1c before --json`.
    """
    from platforms.difference import sentences
    from recovery import history as own
    from recovery import versioning

    with opened(catalog, app) as ctx:
        versioning.known(ctx, workflow)
        own.observe(ctx)
        old = chosen(ctx, workflow, before)
        new = versioning.version(ctx, workflow, after or in_use(ctx, workflow))
        found = versioning.difference(ctx, old, new)
    if as_json:
        output.emit({"workflow": workflow, "from": old.hash, "to": new.hash, **output.plain(found)}, as_json=True)
        return
    output.say(f"{workflow}: version {short(old.hash)} to {short(new.hash)}")
    for line in sentences(found):
        output.say(line)
    if found.empty:
        output.say("no difference in what decides how it behaves")


def publish(
    workflow: Key,
    version: Annotated[str, typer.Argument(help=VERSION_HELP)] = "good",
    reason: Annotated[str, typer.Option(help="Why, for the record. Required.")] = "",
    by: Annotated[str, typer.Option(help="Who decided, for the record.")] = "operator",
    activate: Annotated[
        bool | None, typer.Option("--activate/--inactive", help="Whether it runs afterwards; as it is, or was.")
    ] = None,
    despite: Annotated[
        bool, typer.Option("--despite-credentials", help="Go live although a credential cannot work.")
    ] = False,
    plan_hash: Annotated[str | None, typer.Option("--plan", help="Do it only if the plan is still this one.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do what the plan says without asking.")] = False,
    dry_run: DryRun = False,
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    as_json: Json = False,
) -> None:
    """Make a version live and prove it: read back with settings, schedule, activation and credential references.

    A workflow that was deleted is made again, and calls of the others follow its new id. Exit code 5 when it may not be
    done now, 6 when what was published does not read back as live, 8 when all is as wanted already.

    Examples: `reinstate workflow publish intake good --reason "totals were zero" --dry-run`,
    `reinstate workflow publish intake 3f9a1c --reason "totals were zero" --yes`.
    """
    from recovery import history as own
    from recovery import versioning

    if as_json and not (yes or dry_run):
        raise BadUse("workflow publish: --json asks no questions; add --yes or --dry-run")
    if not (reason.strip() or dry_run):
        raise BadUse('workflow publish: say why, for the record: --reason "..."')
    with opened(catalog, app) as ctx:
        versioning.known(ctx, workflow)
        own.observe(ctx)
        made = versioning.plan(ctx, workflow, versioning.version(ctx, workflow, version), activate=activate)
        if not as_json:
            tell(made)
        nothing = done_already(made)
        if made.problems or nothing or dry_run:
            output.emit({**document(made), "done": None}, as_json=as_json)
            raise typer.Exit(exits.REFUSED if made.problems else exits.NOTHING if nothing else exits.OK)
        if not yes:
            typer.confirm("Publish exactly this?", abort=True)
        done = versioning.publish(
            ctx, made, by=by, reason=reason, plan_hash=plan_hash, despite=despite, say=output.progress
        )
    report(made, done, as_json=as_json)


def export(
    workflow: Annotated[str | None, typer.Argument(help="The workflow's key; all workflows by default.")] = None,
    version: Annotated[str | None, typer.Option(help=VERSION_HELP)] = None,
    every: Annotated[bool, typer.Option("--all-versions", help="Every version that was seen.")] = False,
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files of other content.")] = False,
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    as_json: Json = False,
) -> None:
    """Write definitions to files, one JSON document each. They hold no secrets.

    Examples: `reinstate workflow export --to definitions`, `reinstate workflow export intake --all-versions --to past`.
    """
    from recovery import history as own
    from recovery import versioning

    if version and (every or workflow is None):
        raise BadUse("workflow export: --version is for one workflow, without --all-versions")
    with opened(catalog, app) as ctx:
        keys = [versioning.known(ctx, workflow)] if workflow else [w.key for w in ctx.app.workflows]
        own.observe(ctx)
        wanted = []
        for key in keys:
            if every:
                names = list(dict.fromkeys(s.version for s in own.listing(ctx, key) if not s.gone))
            else:
                names = [version or in_use(ctx, key)]
            wanted += [(key, versioning.version(ctx, key, name)) for name in names]
        written = versioning.export(wanted, to, replaced=force)
    output.emit([str(path) for path in written], as_json=as_json, text="\n".join(str(path) for path in written))


def chosen(ctx: AppContext, workflow: str, text: str | None) -> Any:
    """The version to compare with: the one named, else the good one, else what was in use before."""
    from recovery import versioning
    from recovery.errors import Refused

    if text is not None:
        return versioning.version(ctx, workflow, text)
    try:
        return versioning.version(ctx, workflow, versioning.GOOD)
    except Refused:
        return versioning.version(ctx, workflow, versioning.BEFORE)


def in_use(ctx: AppContext, workflow: str) -> str:
    """The word or hash of what is live, of what is saved where it is inactive, of what was where it is gone."""
    from recovery import history as own

    seen = own.newest(ctx, workflow)
    if seen is None:
        return "saved"
    return seen.version if seen.gone else "live" if seen.live else "saved"


def tell(made: PublishPlan) -> None:
    """The plan for people."""
    from platforms.difference import sentences

    what = "made live" if made.activate else "saved, and stays inactive"
    gone = "" if made.exists else "; it is gone from the platform and is made again"
    output.say(
        f"{made.workflow}: version {short(made.version.hash)} is {what}; now {short(made.now) or 'nothing'}{gone}"
    )
    for line in sentences(made.difference) if made.difference else ():
        output.say(f"  {line}")
    for trouble in made.troubles:
        output.say(f"think about {trouble.sentence}")
    for problem in made.problems:
        output.say(f"not now: {problem}")
    if done_already(made):
        output.say("there is nothing to do: it is as wanted")
    output.say(f"plan {made.hash}")


def done_already(made: PublishPlan) -> bool:
    return (
        made.exists
        and made.now == made.version.hash
        and made.active == made.activate
        and made.difference is not None
        and made.difference.empty
    )


def document(made: PublishPlan) -> dict[str, Any]:
    return {
        "workflow": made.workflow,
        "version": made.version.hash,
        "now": made.now,
        "exists": made.exists,
        "activate": made.activate,
        "difference": output.plain(made.difference),
        "credentials": [t.sentence for t in made.troubles],
        "problems": list(made.problems),
        "plan_hash": made.hash,
    }


def report(made: PublishPlan, done: Published, *, as_json: bool) -> None:
    shown_ = {
        "outcome": done.outcome.value,
        "platform_id": done.platform_id,
        "recreated": done.recreated,
        "previous_id": done.previous_id,
        "references": list(done.references),
        "foreign": list(done.foreign),
        "credentials": [t.sentence for t in done.troubles],
    }
    output.emit({**document(made), "done": shown_}, as_json=as_json)
    if as_json:
        return
    if not made.exists:
        output.say(f"{done.workflow} was made again under id {done.platform_id}")
    for workflow in done.references:
        output.say(f"{workflow} calls the new id")
    for name in done.foreign:
        output.say(f"workflow {name!r} is none of this app's and still calls the old id: change it by hand")
    for trouble in done.troubles:
        output.say(f"think about {trouble.sentence}")
    output.say(f"{done.workflow}: version {short(done.version)} is {done.outcome} (read back)")


def shown(seen: Seen) -> dict[str, Any]:
    """One change for scripts."""
    from recovery import versioning

    return {**output.plain(seen), "state": versioning.state(seen)}


def short(version: str | None) -> str:
    return (version or "")[:SHORT]


def when(seen: Seen) -> str:
    """The platform's time of a change where it tells, else the look's."""
    from datetime import UTC

    told = seen.changed_at if seen.passed else seen.since or seen.at
    return f"{(told or seen.at).astimezone(UTC):%Y-%m-%d %H:%M:%S}"
