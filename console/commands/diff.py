"""`reinstate diff`: what differs between now and a recovery point, or any moment the journal reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console import output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened

if TYPE_CHECKING:
    from datetime import datetime

    from recovery.going_back import Goal
    from snapshots.restore.model import Loss, TableDiff

PointId = Annotated[str | None, typer.Option("--point", help="A recovery point; the newest verified one by default.")]
At = Annotated[
    str | None,
    typer.Option("--at", help="A moment (ISO 8601, UTC if it says no zone) or a tick's number: the last tick then."),
]
Tables = Annotated[list[str] | None, typer.Option("--table", help="Only this table; repeatable.")]
From = Annotated[
    Literal["auto", "journal", "scan"],
    typer.Option("--source", help="journal: what it saw; scan: the rows themselves; auto: the journal where whole."),
]


def register(app: typer.Typer) -> None:
    app.command()(diff)


def diff(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    point: PointId = None,
    at: At = None,
    table: Tables = None,
    source: From = "auto",
    keys: Annotated[int, typer.Option(min=0, help="Show so many keys of each kind; keys may name people.")] = 0,
    as_json: Json = False,
) -> None:
    """Show what was written since: rows by table, and by whom. Changes nothing.

    Examples: `reinstate diff`, `reinstate diff --at 2026-03-01T02:55`, `reinstate diff --table shop.orders --keys 5`.
    """
    from recovery import going_back

    with opened(catalog, app) as ctx:
        wanted = going_back.goal(ctx, point=point, at=moment(point, at), tables=table or ())
        loss = going_back.look(ctx, wanted, source=source, keys=keys)
    if as_json:
        output.emit(document(wanted, loss), as_json=True)
        return
    output.say(f"Since {wanted.sentence}:")
    show(loss)
    for name in wanted.lost:
        output.say(f"{name} does not exist any more; `reinstate restore --table {name}` makes it again")
    for kind, what in (("added_keys", "new"), ("changed_keys", "edited"), ("deleted_keys", "deleted")):
        for t in loss.tables:
            if found := getattr(t, kind):
                output.say(f"{t.table}, {what}: {'; '.join(', '.join(k) for k in found)}")
    if loss.rows:
        output.say("Nobody can tell from this what was damage and what was work; an undo can: `reinstate undo --help`.")


def moment(point: str | None, at: str | None) -> datetime | int | None:
    """``--at`` as a time or the number of a tick."""
    if at is None:
        return None
    if point is not None:
        raise BadUse("--point and --at name two moments; give one of them")
    if at.isdigit():
        return int(at)
    from datetime import UTC, datetime

    try:
        when = datetime.fromisoformat(at)
    except ValueError as error:
        raise BadUse(f"--at {at}: give a time such as 2026-03-01T02:55:00, or the number of a tick") from error
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def show(loss: Loss) -> None:
    """Rows by table, then by whom."""
    if loss.tables:
        output.table(
            "Rows since then",
            ["table", "new", "edited", "deleted", "rows now", "rows then", "found by"],
            [(t.table, t.added, t.changed, t.deleted, _now(t), t.point_rows, t.how) for t in loss.tables],
        )
    if loss.actors:
        output.table(
            "Written by",
            ["role", "transactions", "row images", "tables"],
            [(a.actor, a.transactions, a.images, ", ".join(a.tables)) for a in loss.actors],
        )
    elif loss.rows:
        output.say("By whom is not known: no journal saw it.")
    for gap in loss.gaps:
        output.say(f"the journal of {gap.table} has a gap ({gap.kind}: {gap.detail})")


def _now(table: TableDiff) -> int:
    """Live rows as the difference says: a large table's own count is an estimate and need not add up with it."""
    return table.point_rows + table.added - table.deleted


def document(wanted: Goal, loss: Loss) -> dict[str, Any]:
    """For scripts."""
    return {
        "point": wanted.point.id if wanted.point else None,
        "at": wanted.position.at.isoformat(),
        "rows": loss.rows,
        "tables": [{**output.plain(t), "live_rows": _now(t)} for t in loss.tables],
        "lost": list(wanted.lost),
        "actors": output.plain(loss.actors),
        "journaled": loss.journaled,
        "gaps": output.plain(loss.gaps),
    }
