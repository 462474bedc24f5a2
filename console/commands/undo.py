"""`reinstate undo`: take back what a selection of runs wrote, and keep everything else."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console import exits, output
from console.commands import undo_told
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Json, opened

if TYPE_CHECKING:
    from datetime import datetime

    from recovery.context import AppContext
    from recovery.undoing import Undone, UndoPlan, Wanted
    from snapshots.undo.undo import Disagreement, Look

SELECT = "What is undone (all that is given must apply)"
LIMITS = "Limits, instead of the catalogue's"

UndoPolicy = Annotated[
    Literal["refuse", "non-conflicting-only", "keep-later", "cascade"],
    typer.Option(
        help="Where later work is in the way: refuse; leave those rows; keep the later values; or undo it as well."
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(undo)


def undo(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    run: Annotated[list[str] | None, typer.Option(help="A run, by the tag of its writes; repeatable.")] = None,
    recovery: Annotated[
        list[str] | None, typer.Option(help="What a recovery or an earlier undo wrote: undo the undo; repeatable.")
    ] = None,
    workflow: Annotated[list[str] | None, typer.Option(help="A workflow of the catalogue; repeatable.")] = None,
    actor: Annotated[list[str] | None, typer.Option(help="A database role; repeatable.")] = None,
    tx: Annotated[list[int] | None, typer.Option(help="A transaction's number; repeatable.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="From this moment on (ISO 8601, UTC if it says no zone): nearest tick.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Up to this moment: nearest tick.")] = None,
    table: Annotated[list[str] | None, typer.Option(help="Only this table; repeatable.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only rows for which SQL over r holds: 'shop.orders: r.total = 0'. For operators; repeatable."
        ),
    ] = None,
    policy: UndoPolicy = "refuse",
    limit: Annotated[int, typer.Option(min=0, help="Show so many conflicts; 0: all.")] = 50,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Show values of columns that are not public.")
    ] = False,
    max_deleted_rows: Annotated[
        int | None, typer.Option(min=0, help="Cap for once, instead of the catalogue's.")
    ] = None,
    max_deleted_share: Annotated[float | None, typer.Option(min=0, max=1, help="The same, of a table's rows.")] = None,
    max_changed_rows: Annotated[
        int | None, typer.Option(min=0, help="Cap for once, instead of the catalogue's.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who decided, for the record.")] = "operator",
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    plan_hash: Annotated[str | None, typer.Option(help="Do it only if the plan is still this one.")] = None,
    compensate: Annotated[
        bool,
        typer.Option("--compensate", help="With --run: also do the declared inverses of the steps that left the rows."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do what the plan says without asking.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take back what a selection wrote, and nothing else: later work of others stays, column by column.

    Selections combine: what is undone meets all of them. An undo is recorded like any other write, so `--recovery`
    takes it back, exactly. Steps of the runs that left the rows (a payment, a call) are listed; `--compensate` takes
    them back as well, once. Needs the journal, and the platform for that alone. Exit code 5 when something stands
    against it, 6 when a step could not be taken back, 8 when there is nothing to undo.

    Examples: `reinstate undo --run 4711 --dry-run`, `reinstate undo --workflow intake --from 2026-03-01T02:55`,
    `reinstate undo --actor wf_intake --where "shop.orders: r.total = 0" --policy keep-later --reason "zero totals"`,
    `reinstate undo --run 4711 --compensate`, `reinstate undo --recovery undo-20260301T031500Z-1a2b3c4d`.
    """
    from recovery import undo_outside, undoing

    if compensate and not run:
        raise BadUse("undo: --compensate takes back steps of runs; name them with --run")
    if as_json and not (yes or dry_run):
        raise BadUse("undo: --json asks no questions; add --yes or --dry-run")
    with opened(catalog, app) as ctx:
        caps = {
            "max_deleted_rows": max_deleted_rows,
            "max_deleted_share": max_deleted_share,
            "max_changed_rows": max_changed_rows,
        }
        wanted = wanted_of(
            ctx,
            {name: tuple(given or ()) for name, given in (("runs", run), ("recoveries", recovery), ("tables", table))}
            | {name: tuple(given or ()) for name, given in (("workflows", workflow), ("actors", actor))}
            | {"transactions": tuple(tx or ()), "since": moment("--from", since), "until": moment("--until", until)},
            where or [],
            policy,
            caps,
        )
        outside = undo_outside.look(ctx, wanted.runs)
        beyond = {"outside": output.plain(outside), "stays_done": undo_outside.stays_done(ctx, wanted.recoveries)}
        with undoing.look(ctx, wanted, say=output.progress) as (plan, seen):
            if as_json and dry_run:
                stream(plan, beyond, seen, limit=limit, show_values=show_values)
            elif not as_json:
                tell(plan, seen, limit=limit, show_values=show_values)
                for line in (*undo_told.about(outside, compensate=compensate), *beyond["stays_done"]):
                    output.say(line)
        performs = compensate and outside.possible > 0
        nothing = plan.preview.empty and not performs
        if plan.preview.problems or nothing or dry_run:
            if as_json and not dry_run:
                output.emit(document(plan) | beyond | {"done": None}, as_json=True)
            against = bool(plan.preview.problems)
            raise typer.Exit(exits.REFUSED if against else exits.NOTHING if nothing else exits.OK)
        if compensate:
            undo_outside.refuse(outside)
        if not yes:
            typer.confirm("Undo exactly this?", abort=True)
        done = None
        if not plan.preview.empty:
            done = undoing.undo_it(ctx, plan, by=by, reason=reason, plan_hash=plan_hash, say=output.progress)
        taken = []
        if performs:
            named = done.recovery if done else f"undo-{plan.hash[:16]}"
            taken = undo_outside.take_back(ctx, outside, recovery=named, plan_hash=plan.hash, say=output.progress)
    report(plan, done, beyond | {"compensated": undo_told.outcomes(taken)}, as_json=as_json)
    if any(not outcome.taken_back for _, outcome in taken):
        raise typer.Exit(exits.NOT_PROVEN)


def wanted_of(
    ctx: AppContext, given: dict[str, Any], where: list[str], policy: str, caps: dict[str, float | None]
) -> Wanted:
    from recovery.undoing import Wanted
    from snapshots.model import Policy

    conditions = []
    for text in where:
        name, colon, condition = text.partition(":")
        if not colon or not condition.strip():
            raise BadUse(f"undo: --where {text!r}: write it as 'schema.table: condition over r'")
        conditions.append((name.strip(), condition.strip()))
    if len({name for name, _ in conditions}) < len(conditions):
        raise BadUse("undo: --where names a table twice; join the conditions with AND or OR")
    limits = ctx.app.caps.model_copy(update={name: value for name, value in caps.items() if value is not None})
    return Wanted(**given, where=tuple(conditions), policy=Policy(policy), caps=limits)


def moment(option: str, text: str | None) -> datetime | None:
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise BadUse(f"undo: {option} {text}: write it like 2026-03-01T02:55 or 2026-03-01T02:55:10+01:00") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def tell(plan: UndoPlan, seen: Look, *, limit: int, show_values: bool) -> None:
    """The plan for people, with its conflicts."""
    preview, wanted = plan.preview, plan.wanted
    output.say(f"Undo of {wanted.sentence}")
    if preview.first_at is not None:
        output.say(f"first write: {preview.first_at:%Y-%m-%d %H:%M:%S.%f} {preview.first_at:%Z}")
    output.table(
        f"Rows (policy {wanted.policy})",
        ["table", "delete", "update", "insert", "later work kept", "of rows"],
        [(c.table, c.delete, c.update, c.insert, c.merged, c.table_rows) for c in preview.counts],
    )
    for tx in plan.joined:
        who = f"run {tx.run} of {tx.actor}" if tx.run else tx.actor
        output.say(f"also undone: transaction {tx.xid}, {who} ({', '.join(tx.why)}; {', '.join(tx.tables)})")
    for table, images in preview.erased.items():
        output.say(f"{table}: {images} row images of this were erased with a person; those rows stay as they are")
    total = sum(preview.conflict_counts.values())
    if total:
        kinds = ", ".join(f"{rows} {kind}" for kind, rows in sorted(preview.conflict_counts.items()))
        output.say(f"conflicts: {kinds}")
        for found in taken(seen, limit, show_values=show_values):
            output.say(sentence(found))
        if limit and total > limit:
            output.say(f"  and {total - limit} more: --limit 0 lists all")
    if plan.suspects.count:
        output.say(f"suspects: {plan.suspects.count} later transactions may have read damaged values; they stay")
        for late in plan.suspects.listed[: limit or None]:
            who = f"run {late.run} of {late.actor}" if late.run else late.actor
            output.say(f"  transaction {late.xid}, {who}, {late.at:%H:%M:%S} ({', '.join(late.tables)})")
    caps = wanted.caps
    output.say(
        f"caps: {caps.max_deleted_rows} deleted rows, {caps.max_deleted_share:.0%} of a table, "
        f"{caps.max_changed_rows} changed rows, drift of {caps.drift_rows}"
    )
    for problem in preview.problems:
        output.say(f"not now: {problem}")
    if any("compare with a recovery point" in problem for problem in preview.problems):
        output.say(
            "next: `reinstate diff` compares with the newest verified point, `reinstate restore` goes back to it"
        )
    if any("raise it if meant" in problem for problem in preview.problems):
        output.say("next: --max-changed-rows, --max-deleted-rows or --max-deleted-share raise a cap for once")
    if preview.empty and not preview.problems:
        output.say("there is nothing to undo")
    output.say(f"plan {plan.hash}")


def taken(seen: Look, limit: int, *, show_values: bool) -> Iterator[Disagreement]:
    return itertools.islice(seen.disagreements(show_values=show_values), limit or None)


def sentence(found: Disagreement) -> str:
    """One conflict on one line."""
    row = found.conflict
    values = "; ".join(
        f"{v.column}: before {text(v.before)}, now {text(v.now)}, wanted {text(v.wanted)}" for v in found.values
    )
    stands = "stays as it is" if row.blocking else "the later work stands"
    return f"  {row.table} {', '.join(row.key)}: {row.kind}, {stands}{': ' if values else ''}{values}"


def text(value: str | None) -> str:
    return "nothing" if value is None else value


def document(plan: UndoPlan) -> dict[str, Any]:
    preview = plan.preview
    return {
        "selection": plan.wanted.sentence,
        "policy": str(plan.wanted.policy),
        "plan_hash": plan.hash,
        "first_at": output.plain(preview.first_at),
        "tables": output.plain(preview.counts),
        "conflict_counts": dict(preview.conflict_counts),
        "joined": output.plain(plan.joined),
        "suspects": output.plain(plan.suspects),
        "caps": plan.wanted.caps.model_dump(),
        "problems": list(preview.problems),
    }


def stream(plan: UndoPlan, beyond: dict[str, Any], seen: Look, *, limit: int, show_values: bool) -> None:
    """The document with its conflicts, written as they are read: there may be more than fit into memory."""
    sys.stdout.write(json.dumps(document(plan) | beyond, ensure_ascii=False)[:-1] + ', "done": null, "conflicts": [')
    for number, found in enumerate(taken(seen, limit, show_values=show_values)):
        sys.stdout.write(("," if number else "") + "\n" + json.dumps(output.plain(found), ensure_ascii=False))
    sys.stdout.write("]}\n")


def report(plan: UndoPlan, done: Undone | None, beyond: dict[str, Any], *, as_json: bool) -> None:
    detail = done.applied.detail if done else {"tables": {}, "left": []}
    shown = {"recovery": done.recovery, "tables": detail["tables"], "left": len(detail["left"])} if done else None
    output.emit(document(plan) | beyond | {"done": shown}, as_json=as_json)
    if as_json:
        return
    for line in beyond["compensated"]:
        output.say(line)
    if done is None:
        return
    for name, count in detail["tables"].items():
        output.say(f"{name}: {count['delete']} deleted, {count['update']} updated, {count['insert']} inserted")
    if detail["left"]:
        output.say(f"{len(detail['left'])} rows in conflict were left as they are")
    output.say(
        f"undone, and planning it again finds nothing; `reinstate undo --recovery {done.recovery}` takes it back"
    )
