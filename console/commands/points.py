"""`reinstate points`: list, rank, show and export the recovery points of an app."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened

if TYPE_CHECKING:
    from recovery.context import AppContext
    from snapshots.model import RecoveryPoint
    from snapshots.points.proof import Proof
    from snapshots.points.ranking import Choice, Start

PointId = Annotated[str, typer.Argument(metavar="ID", help="A point as `reinstate points` lists it, or `latest`.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(invoke_without_command=True, no_args_is_help=False, rich_markup_mode=None)
    group.callback()(points)
    group.command("show")(points_show)
    group.command("export")(points_export)
    app.add_typer(group, name="points")


def points(
    context: typer.Context,
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    rank: Annotated[
        bool,
        typer.Option("--rank", help="Order them by what going back to each would lose; needs one of the next two."),
    ] = False,
    incident_start: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the damage began, as ISO time (UTC without an offset).")
    ] = None,
    incident: Annotated[
        str | None, typer.Option("--incident", "-i", metavar="ID", help="Take that from this incident's diagnosis.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The recovery points: list them, newest first, or rank, show and export them.

    With `--rank`, also the last tick before the incident is a choice: `reinstate restore --at TICK` goes there.

    Examples: `reinstate points --json`, `reinstate points --rank --incident-start 2026-11-21T03:12:00Z`,
    `reinstate points --rank --incident INC-20261121-0001`.
    """
    if context.invoked_subcommand is not None:
        return
    if rank != ((incident_start or incident) is not None) or (incident_start and incident):
        raise BadUse("points: --rank needs --incident-start TIME or --incident ID, and those need --rank")
    begun = time_of(incident_start) if incident_start else None
    with opened(catalog, app) as ctx:
        if rank:
            ranked(ctx, begun, incident, as_json=as_json)
        else:
            listed(ctx, as_json=as_json)


def time_of(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadUse(f"points: {text!r} is no time; write it like 2026-11-21T03:12:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def listed(ctx: AppContext, *, as_json: bool) -> None:
    from snapshots.points import points as reading
    from snapshots.points import proof
    from snapshots.store import retention

    found = reading.listing(ctx.store, ctx.app.key)
    held = {h.point: h.reason for h in retention.holds(ctx.store, ctx.app.key)}
    proven = {p.point: p for p in proof.proofs(ctx.store, ctx.app.key)}
    rows: list[dict[str, Any]] = []
    for point in found.points:
        tried = proven.get(point.id)
        rows.append(
            {
                "id": point.id,
                "taken_at": point.taken_at,
                "verified": point.verified,
                "rows": sum(t.rows for t in point.tables),
                "bytes": size(point),
                "method": method(point),
                "base": point.base,
                "workflows": len(point.workflows),
                "in_flight": len(point.in_flight),
                "held": held.get(point.id),
                "proof": None if tried is None else {"passed": tried.passed, "at": tried.at},
            }
        )
    for problem in found.problems:
        output.progress(f"not readable: {problem}")
    if as_json:
        output.emit(rows, as_json=True)
        return
    if not rows:
        output.say("no recovery point yet: run `reinstate protect`")
        return
    output.table(
        "Recovery points",
        ["id", "taken", "verified", "method", "rows", "size", "proof", "hold", "base"],
        [
            (
                r["id"],
                f"{r['taken_at']:%Y-%m-%d %H:%M:%S}",
                yes(r["verified"]),
                r["method"],
                r["rows"],
                sized(r["bytes"]),
                tried_as(proven.get(r["id"])),
                r["held"] or "",
                r["base"] or "",
            )
            for r in rows
        ],
    )


def tried_as(tried: Proof | None) -> str:
    """What came of restoring the point, for people."""
    return "never" if tried is None else f"{'passed' if tried.passed else 'FAILED'} {tried.at:%m-%d %H:%M}"


def ranked(ctx: AppContext, begun: datetime | None, incident: str | None, *, as_json: bool) -> None:
    from recovery import choices
    from snapshots.points.ranking import Start

    start: Start = Start(at=begun) if begun is not None else choices.start_of(ctx, incident or "")
    output.progress(f"the incident began at {start.at:%Y-%m-%d %H:%M:%S} UTC")
    found = choices.ranked(ctx, start)
    if as_json:
        output.emit({"incident_start": start.at, "choices": found}, as_json=True)
    else:
        show_ranked(ctx, found)
        if not start.bad_xids:
            output.say("what the damage wrote is counted too: nobody has said yet which runs are to blame")
    if not any(c.safe for c in found):
        output.progress("no choice lies surely before the incident")
        raise typer.Exit(exits.NOTHING)


def show_ranked(ctx: AppContext, found: tuple[Choice, ...]) -> None:
    names = {w.role: w.key for w in ctx.app.workflows}
    output.table(
        "Where to go back to, best first",
        ["choice", "kind", "verified", "safe", "row changes lost", "in tables", "work of", "why"],
        [
            (
                c.id,
                c.kind,
                "-" if c.kind == "tick" else yes(c.verified),
                "yes" if c.safe else "NO",
                "unknown" if c.lost is None else c.lost,
                ", ".join(f"{t} {n}" for t, n in c.tables.items()),
                ", ".join(f"{names.get(a.actor, a.actor)} {a.rows}" for a in c.actors),
                "; ".join(c.reasons),
            )
            for c in found
        ],
    )
    best = next((c for c in found if c.safe), None)
    if best is None:
        return
    if best.damage:
        output.say(f"{best.damage} more row changes since {best.id} are the incident's own damage")
    for run in best.runs:
        blame = " (to blame)" if run.bad else ""
        output.say(
            f"  run {run.run} of {names.get(run.actor, run.actor)}{blame}: {run.rows} in {', '.join(run.tables)}"
        )
    if best.runs_in_all > len(best.runs):
        output.say(f"  and {best.runs_in_all - len(best.runs)} more runs")
    target = f"--point {best.id}" if best.kind == "point" else f"--at {best.id}"
    output.say(f"next: `reinstate diff {target}` shows the rows; `reinstate undo` of the bad runs loses none")


def points_show(point: PointId, catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """One point: its tables, workflows, sequences and what its suites said.

    Examples: `reinstate points show latest`, `reinstate points show 20261121T030000.000000Z-0a1b2c3d --json`.
    """
    with opened(catalog, app) as ctx:
        found = chosen(ctx, point)
    shown = described(found)
    if as_json:
        output.emit(shown, as_json=True)
        return
    output.say(f"point {found.id} of {found.app}, taken {found.taken_at:%Y-%m-%d %H:%M:%S} UTC")
    output.say(f"  {method(found)}, {sized(size(found))}" + (f", on the chunks of {found.base}" if found.base else ""))
    output.say(f"  {verdict(found)}")
    for broken in failures(found):
        output.say(f"    {broken}")
    output.table(
        "Tables",
        ["table", "rows", "key", "method", "chunks", "deltas", "size"],
        [
            (t["table"], t["rows"], ", ".join(t["key"]), t["method"], t["chunks"], t["deltas"], sized(t["bytes"]))
            for t in shown["tables"]
        ],
    )
    if found.segments:
        output.say(f"journal: {len(found.segments)} pieces, {sum(s.rows for s in found.segments)} row images")
    output.table(
        "Workflows",
        ["workflow", "active", "version"],
        [(w.workflow, yes(w.active), w.version_hash[:12]) for w in found.workflows],
    )
    if found.sequences:
        output.table("Sequences", ["sequence", "value"], sorted(found.sequences.items()))


def points_export(
    point: PointId,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where to write; made where missing.")],
    form: Annotated[Literal["parquet", "csv"], typer.Option("--format", help="Files of which kind.")] = "parquet",
    table: Annotated[list[str] | None, typer.Option(help="Only this table; repeatable.")] = None,
    by: Annotated[str, typer.Option(help="Who exports, for the record.")] = "operator",
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    as_json: Json = False,
) -> None:
    """Write a point's rows as files that DuckDB, pandas or a spreadsheet reads: all values, nothing masked, on record.

    Examples: `reinstate points export latest --to out`,
    `reinstate points export latest --to out --format csv --table shop.orders`.
    """
    from ledger import kinds
    from snapshots.points import export

    with opened(catalog, app) as ctx:
        found = chosen(ctx, point)
        made = export.export(ctx.store, found, to, form=form, tables=table or (), say=output.progress)
        summary = [f"exported {len(made)} tables of point {found.id} as {form}, values not masked"]
        counts = {m.table: {"rows": m.rows} for m in made}
        body = {"operation": "export", "plan_hash": "", "summary": summary, "by": by, "counts": counts}
        ctx.ledger.append(kinds.DATA_APPLIED, app=ctx.app.key, body=body)
    if as_json:
        output.emit({"point": found.id, "format": form, "files": made}, as_json=True)
        return
    for one in made:
        output.say(f"{one.file}: {one.rows} rows, {sized(one.bytes)}")
    output.say(f"exact types: {to / export.SCHEMA}")


def chosen(ctx: AppContext, name: str) -> RecoveryPoint:
    """The point of that id, or the newest one."""
    from snapshots.points import points as reading
    from snapshots.points.errors import PointMissing

    if name != "latest":
        return reading.load(ctx.store, ctx.app.key, name)
    found = reading.listing(ctx.store, ctx.app.key).points
    if not found:
        raise PointMissing(f"No recovery point of {ctx.app.key} yet; run `reinstate protect`.")
    return found[0]


def described(point: RecoveryPoint) -> dict[str, Any]:
    """A point for scripts, without the definitions of its workflows."""
    return {
        "id": point.id,
        "app": point.app,
        "taken_at": point.taken_at,
        "base": point.base,
        "method": method(point),
        "bytes": size(point),
        "verified": point.verified,
        "verification": point.verification,
        "position": point.position,
        "in_flight": point.in_flight,
        "tables": [
            {
                "table": t.name,
                "rows": t.rows,
                "key": t.key,
                "method": t.method,
                "chunks": len(t.chunks),
                "deltas": len(t.deltas),
                "bytes": sum(c.bytes for c in (*t.chunks, *t.deltas)),
                "fingerprint": bool(t.fingerprint),
                "columns": {c.name: c.type for c in t.columns},
            }
            for t in point.tables
        ],
        "segments": [{"table": s.table, "rows": s.rows, "bytes": s.bytes, "since": s.since.at} for s in point.segments],
        "workflows": [{"workflow": w.workflow, "active": w.active, "version": w.version_hash} for w in point.workflows],
        "sequences": point.sequences,
    }


def method(point: RecoveryPoint) -> str:
    """How it was captured: one word, or several where tables differ."""
    return ", ".join(sorted({t.method for t in point.tables})) or "full"


def size(point: RecoveryPoint) -> int:
    """Bytes of all its objects, shared ones too."""
    return sum(c.bytes for t in point.tables for c in (*t.chunks, *t.deltas)) + sum(s.bytes for s in point.segments)


def failures(point: RecoveryPoint) -> list[str]:
    """What its suites found wrong, one line each, without a value of any row."""
    failed = (point.verification or {}).get("failed") or ()
    return [f"suite {f.get('suite', '?')}: {f.get('detail', '?')}" for f in failed]


def verdict(point: RecoveryPoint) -> str:
    said = point.verification
    if not said:
        return "not verified: no suites ran on it"
    failed = len(said.get("failed") or ())
    return f"{'verified' if point.verified else 'NOT verified'}: {said.get('ran', 0)} checks ran, {failed} failed"


def yes(value: bool) -> str:
    return "yes" if value else "no"


def sized(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
