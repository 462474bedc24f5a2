"""`reinstate erase`: take a person out of the journal, every recovery point and the events kept, for good."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Json, opened

if TYPE_CHECKING:
    from recovery.erase import Preview
    from snapshots.erasure.apply import Erased


def register(app: typer.Typer) -> None:
    app.command()(erase)


def erase(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    subject: Annotated[str | None, typer.Option(help="Whom: the value of the tables' subject columns.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read that value from standard input instead.")] = False,
    table: Annotated[str | None, typer.Option(help="Look in this table, beside those with a subject.")] = None,
    where: Annotated[str | None, typer.Option(help="The column of --table that names a person.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A table whose rows stay on purpose; repeatable.")] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="A table whose rows go although they could stay unlinked; repeatable.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who decided, for the record.")] = "operator",
    reason: Annotated[str, typer.Option(help="Why, for the record; do not name the person.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do what the plan says without asking.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Erase a person from the journal, every recovery point and the events kept, so that nothing brings them back.

    The app deletes (or makes anonymous) its live rows first; this does the past. Shows what goes and what is left to
    decide, and asks. Run again after an interruption, it finishes. Exit code 5 while the app still has the person, a
    point with them is under legal hold or an event of theirs waits, 8 when nothing of them is left.

    Examples: `reinstate erase --stdin --dry-run`, `reinstate erase --subject ann@example.com --reason
    "request 17"`, `reinstate erase --stdin --table shop.visits --where visitor_email --keep shop.invoices --yes`.
    """
    if as_json and not (yes or dry_run):
        raise BadUse("erase: --json asks no questions; add --yes or --dry-run")
    if (table is None) != (where is None):
        raise BadUse("erase: --table and --where belong together")
    value = named(subject, stdin)
    from recovery import erase as erasing
    from snapshots.erasure.find import Who

    with opened(catalog, app) as ctx:
        subjects = dict(erasing.subjects(ctx)) | ({table: where} if table and where else {})
        who = Who(value=value, subjects=subjects, keep=frozenset(keep or ()), also=frozenset(also or ()))
        output.progress("looking through the journal, the points and the events")
        plan = erasing.preview(ctx, who, say=output.progress)
        if not as_json:
            show(plan)
        if plan.empty or plan.problems or dry_run:
            report(plan, None, as_json=as_json)
            raise typer.Exit(exits.REFUSED if plan.problems else exits.NOTHING if plan.empty else exits.OK)
        if not yes:
            typer.confirm("Erase this for good?", abort=True)
        done = erasing.erase(ctx, who, plan, by=by, reason=reason, say=output.progress)
    report(plan, done, as_json=as_json)


def named(subject: str | None, stdin: bool) -> str:
    """The value, from the command line or from standard input."""
    if (subject is None) == (not stdin):
        raise BadUse("erase: say whom, with --subject VALUE or with --stdin")
    value = subject if subject is not None else sys.stdin.readline().rstrip("\r\n")
    if not value:
        raise BadUse("erase: an empty value names nobody")
    return value


def show(plan: Preview) -> None:
    """The plan for people. It never shows the person."""
    data = plan.data
    if data.tables:
        output.table(
            "What goes",
            ["table", "rows", "journal images", "copies in points", "in journal pieces", "links cleared"],
            [
                (t.table, "-" if t.rows is None else t.rows, t.images, t.stored, t.segments, t.cleared)
                for t in data.tables
            ],
        )
    if data.points:
        output.say(f"points rewritten under the same id: {', '.join(data.points)}")
    if plan.events:
        output.say(f"{len(plan.events)} events that the ingress kept and that have ended")
    if data.pending:
        output.say(f"{len(data.pending)} objects are left from an interrupted erasure and go now")
    for left in plan.left:
        rows = f" ({left.rows})" if left.rows else ""
        output.say(f"left, decide: {left.where}{rows}: {left.what}")
    for problem in plan.problems:
        output.say(f"not now: {problem}")
    if plan.empty:
        output.say("nothing of this person is in the journal, in a point or among the events kept")


def report(plan: Preview, done: Erased | None, *, as_json: bool) -> None:
    if as_json:
        also = {"events": len(plan.events), "left": output.plain(plan.left), "problems": list(plan.problems)}
        shown = {**output.plain(plan.data), **also, "plan_hash": plan.plan_hash, "done": output.plain(done)}
        output.emit(shown, as_json=True)
    elif done is not None:
        images = sum(done.images.values())
        output.say(
            f"erased: {images} journal images, {len(done.points)} points rewritten, "
            f"{done.objects} old objects removed, {len(plan.events)} events forgotten; "
            f"recorded as {done.entry or 'finished'}"
        )
        if done.points:
            output.say("next: `reinstate store verify --restore --all` proves the rewritten points again")
