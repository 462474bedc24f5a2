"""`reinstate restore`: tables back to a recovery point, or to any moment the journal reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from console import exits, output
from console.commands.diff import At, From, PointId, Tables, document, moment, show
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Json, opened

if TYPE_CHECKING:
    from recovery.context import AppContext
    from recovery.going_back import Done, Goal
    from snapshots.restore.model import RestorePlan


def register(app: typer.Typer) -> None:
    app.command()(restore)


def restore(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    point: PointId = None,
    at: At = None,
    table: Tables = None,
    into: Annotated[
        str | None,
        typer.Option(help="Fill this empty database instead: a reference (env:NAME, file:PATH) to its owner's DSN."),
    ] = None,
    source: From = "auto",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Sessions that load at once.")] = 2,
    over_caps: Annotated[
        bool, typer.Option("--over-caps", help="Do it although it passes the catalogue's caps.")
    ] = False,
    by: Annotated[str, typer.Option(help="Who decided, for the record.")] = "operator",
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do what the plan says without asking.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring tables back to how they were. Whatever was written since is overwritten, damage and work alike: the plan
    says whose. To take back only what one run wrote, use `reinstate undo`.

    A table that was dropped comes back with indexes, constraints, sequences, grants and triggers. Exit code 5 when
    something stands against it, 8 when nothing differs.

    Examples: `reinstate restore --dry-run`, `reinstate restore --at 2026-03-01T02:55 --reason "import ran twice"`,
    `reinstate restore --table shop.orders`, `reinstate restore --into env:COPY_DSN`.
    """
    from recovery import going_back

    if as_json and not (yes or dry_run or into):
        raise BadUse("restore: --json asks no questions; add --yes or --dry-run")
    when = moment(point, at)
    if into and when is not None:
        raise BadUse("restore: --into takes a point; the journal cannot fill an empty database")
    with opened(catalog, app) as ctx:
        if not (into or dry_run):
            for earlier in going_back.finish(ctx, say=output.progress):
                for line in left(earlier):
                    output.progress(line)
        wanted = going_back.goal(ctx, point=point, at=when, tables=table or ())
        if into:
            copied(ctx, wanted, into, table or [], workers=workers, dry_run=dry_run, as_json=as_json)
            return
        output.progress(f"comparing with {wanted.sentence}")
        plan = going_back.preview(ctx, wanted, source=source)
        crossed = None if over_caps else going_back.crossed(ctx, plan)
        against = [*plan.problems, *([crossed] if crossed else [])]
        nothing = plan.empty and not wanted.lost
        if not as_json:
            tell(wanted, plan, against)
        if nothing or against or dry_run:
            report(wanted, plan, against, None, as_json=as_json)
            raise typer.Exit(exits.REFUSED if against else exits.NOTHING if nothing else exits.OK)
        if not yes:
            typer.confirm("Overwrite this?", abort=True)
        done = going_back.go_back(
            ctx,
            wanted,
            plan,
            source=source,
            by=by,
            reason=reason,
            over_caps=over_caps,
            workers=workers,
            say=output.progress,
        )
    report(wanted, plan, [], done, as_json=as_json)


def copied(
    ctx: AppContext, wanted: Goal, into: str, tables: list[str], *, workers: int, dry_run: bool, as_json: bool
) -> None:
    """The point into another, empty database."""
    from recovery import going_back

    if wanted.point is None:
        raise BadUse("restore: --into takes a point")
    rows = {t.name: t.rows for t in wanted.point.tables if not tables or t.name in tables}
    if not dry_run:
        output.progress(f"loading {wanted.sentence} into {into}")
        rows = going_back.into(ctx, wanted.point, into, tables, workers=workers)
    output.emit({"point": wanted.point.id, "into": into, "dry_run": dry_run, "rows": rows}, as_json=as_json)
    if not as_json:
        output.table("Loaded" if not dry_run else "Would load", ["table", "rows"], rows.items())


def tell(wanted: Goal, plan: RestorePlan, against: list[str]) -> None:
    """The plan for people."""
    output.say(f"Back to {wanted.sentence}. Written since, and overwritten by this:")
    show(plan.loss)
    then = {t.name: t.rows for t in wanted.point.tables} if wanted.point else {}
    for name in wanted.lost:
        output.say(
            f"{name} does not exist: it is made again with its {then.get(name, '')} rows of then (by the installer)"
        )
    for name in plan.sequences:
        output.say(f"sequence {name} moves forward")
    for view in plan.views:
        output.say(f"materialised view {view} is refreshed afterwards where the role may")
    for problem in against:
        output.say(f"not now: {problem}")
    if any("more than its cap" in problem for problem in against):
        output.say("next: where that many rows are meant, `--over-caps` goes on")
    output.say(f"plan {plan.hash}")


def report(wanted: Goal, plan: RestorePlan, against: list[str], done: Done | None, *, as_json: bool) -> None:
    applied = done.applied.detail if done and done.applied else {}
    returned = done.returned if done else None
    if as_json:
        shown: dict[str, Any] = {
            **document(wanted, plan.loss),
            "plan_hash": plan.hash,
            "sequences": list(plan.sequences),
            "problems": against,
            "done": None
            if done is None
            else {
                "recovery": done.recovery,
                "tables": applied.get("tables", {}),
                "made": dict(returned.rows) if returned else {},
                "unvalidated": output.plain(returned.unvalidated) if returned else [],
                "stale": list(applied.get("stale", [])),
            },
        }
        output.emit(shown, as_json=True)
        return
    if done is None:
        if plan.empty and not wanted.lost:
            output.say("nothing differs")
        return
    for table, count in applied.get("tables", {}).items():
        if any(count.values()):
            output.say(f"{table}: {count['delete']} deleted, {count['update']} updated, {count['insert']} inserted")
    if returned:
        for table, rows in returned.rows.items():
            output.say(f"{table}: made again with {rows} rows")
    for line in left(done):
        output.say(line)
    back = (
        ""
        if returned or plan.loss.gaps or not plan.loss.journaled
        else f"; `reinstate undo --recovery {done.recovery}` takes it back"
    )
    output.say(f"restored and proven row by row; recorded as {done.recovery}{back}")


def left(done: Done) -> list[str]:
    """What a restore leaves to people, in sentences."""
    keys = done.returned.unvalidated if done.returned else ()
    stale = done.applied.detail.get("stale", ()) if done.applied else ()
    return [
        *(
            f"{name} of {table} does not hold for the rows there are; "
            "correct them, then validate it, or add it where it is missing"
            for table, name in keys
        ),
        *(f"materialised view {view} is stale: its owner must refresh it" for view in stale),
    ]
