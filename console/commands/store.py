"""`reinstate store status | verify | prune | hold | release | holds | rotate`: looking after the recovery points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Json, opened

if TYPE_CHECKING:
    from recovery.storekeeping import Status, Verified
    from snapshots.store.retention import Pruned

Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
By = Annotated[str, typer.Option(help="Who decided, for the record.")]


def register(app: typer.Typer) -> None:
    store = typer.Typer(
        help="Where recovery points live: look after it, prove it, prune it, encrypt it.\n\nExamples: `reinstate store "
        "status`, `reinstate store verify --restore`, `reinstate store prune --dry-run`.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, command in (
        ("status", status),
        ("verify", verify),
        ("prune", prune),
        ("hold", hold),
        ("release", release),
        ("holds", holds),
        ("rotate", rotate),
    ):
        store.command(name)(command)
    app.add_typer(store, name="store")


def status(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Say how large the store is, what it holds, whether it is encrypted, and who is at work in it.

    Exit code 5 when a manifest cannot be read. Example: `reinstate store status --json`.
    """
    from recovery import storekeeping

    with opened(catalog, app) as ctx:
        found = storekeeping.status(ctx)
    output.emit(found, as_json=as_json, text="\n".join(told(found)))
    if found.problems:
        raise typer.Exit(exits.REFUSED)


def told(found: Status) -> list[str]:
    """The state of the store, for people."""
    secure = found.encryption if found.key is None else f"{found.encryption}, key {found.key}"
    lines = [
        f"store {found.name}: {secure}",
        f"points: {found.points}, of which {found.verified} verified, {found.proven} proven, {found.held} held",
    ]
    if found.oldest and found.newest:
        lines.append(f"from {found.oldest:%Y-%m-%d %H:%M:%S} to {found.newest:%Y-%m-%d %H:%M:%S} (UTC)")
    others = f"; it also holds {', '.join(found.others)}" if found.others else ""
    lines.append(f"objects: {found.objects}, {size(found.bytes)}{others}")
    if found.piece_bytes and found.logical_bytes > found.piece_bytes:
        times = found.logical_bytes / found.piece_bytes
        lines.append(f"shared: the points stand for {size(found.logical_bytes)}, {times:.1f} times what is stored")
    if found.unneeded:
        lines.append(
            f"needed by no point: {found.unneeded} objects, {size(found.unneeded_bytes)}; `store prune` sweeps"
        )
    lines += [f"at work: {who}" for who in found.at_work]
    lines += [f"problem: {problem}" for problem in found.problems]
    return lines


def verify(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    point: Annotated[list[str] | None, typer.Option(help="This point; repeatable. The newest by default.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every point of the app.")] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Restore each into an empty database and run the suites there.")
    ] = False,
    scratch: Annotated[
        str | None,
        typer.Option(
            help="For --restore: secret (env:NAME or file:PATH) with the connection string of a role that may create "
            "databases. A PostgreSQL of its own by default."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read every object of a point and check it; prove the point by restoring it.

    Exit code 6 when an object is damaged or a point is not proven. A proof is kept in the store.
    Examples: `reinstate store verify --all`, `reinstate store verify --point ID --restore`.
    """
    if point and everything:
        raise BadUse("store verify: name points or say --all, not both")
    if scratch and not restore:
        raise BadUse("store verify: --scratch is for --restore")
    from catalog import secrets
    from recovery import storekeeping

    with opened(catalog, app) as ctx:
        done = storekeeping.verify(
            ctx,
            point_ids=point or (),
            everything=everything,
            restore=restore,
            scratch=secrets.resolve(scratch, ctx.home / "secrets.env") if scratch else None,
            say=output.progress,
        )
    if as_json:
        rows = [
            {**output.plain(c), "sound": c.sound, "proven": c.proof.passed if c.proof else None} for c in done.points
        ]
        shown = {"passed": done.passed, "bytes": done.bytes, "points": rows, "problems": done.problems}
        output.emit(shown, as_json=True)
    else:
        show_verified(done, restore=restore)
    if not done.passed:
        raise typer.Exit(exits.NOT_PROVEN)


def show_verified(done: Verified, *, restore: bool) -> None:
    """The outcome for people."""
    output.table(
        "Verified",
        ["point", "objects", "sound", *(["proven", "checks", "rows", "seconds"] if restore else [])],
        [
            (
                c.point,
                c.objects,
                "NO" if c.problems else "yes",
                *(
                    (
                        "yes" if c.proof.passed else "NO",
                        c.proof.ran,
                        sum(c.proof.rows.values()),
                        f"{c.proof.seconds:.1f}",
                    )
                    if c.proof
                    else ()
                ),
            )
            for c in done.points
        ],
    )
    for problem in done.problems:
        output.say(f"problem: {problem}")
    for c in done.points:
        wrong = (
            *c.problems,
            *((*c.proof.problems, *(f"check failed: {f}" for f in c.proof.failed)) if c.proof else ()),
        )
        for problem in wrong:
            output.say(f"{c.point}: {problem}")
    output.say(f"{size(done.bytes)} read; {'everything is sound' if done.passed else 'NOT everything is sound'}")


def prune(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    by: By = "operator",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove the points that the catalogue's `store.keep` does not keep, and the objects that no point needs.

    Never the last verified or proven point, never a held one. Shows what goes and asks.
    Examples: `reinstate store prune --dry-run`, `reinstate store prune --yes`.
    """
    if as_json and not (yes or dry_run):
        raise BadUse("store prune: --json asks no questions; add --yes or --dry-run")
    from recovery import storekeeping

    with opened(catalog, app) as ctx:
        plan = storekeeping.pruning(ctx)
        done = None
        if not as_json:
            show_pruning(plan)
        if (plan.dropped or plan.objects) and not dry_run:
            if not yes:
                typer.confirm("Remove them for good?", abort=True)
            done = storekeeping.prune(ctx, plan, by=by, say=output.progress)
    if as_json:
        output.emit(done or plan, as_json=True)
    elif done is not None:
        output.say(f"removed: points {len(done.dropped)}, objects {done.objects}, {size(done.bytes)}")


def show_pruning(plan: Pruned) -> None:
    """What would go, for people."""
    rows = [(i, "stays", ", ".join(why)) for i, why in plan.kept.items()]
    rows += [(i, "GOES", ", ".join(why)) for i, why in plan.dropped.items()]
    output.table("Pruning", ["point", "", "why"], sorted(rows, reverse=True))
    output.say(f"points that go: {len(plan.dropped)}; objects: {plan.objects}, {size(plan.bytes)}")
    if plan.left:
        output.say(f"objects stay: {plan.left}")
    for problem in plan.problems:
        output.say(f"problem: {problem}")


def hold(
    point: Annotated[str, typer.Argument(help="The point to keep, as `reinstate points` lists it.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    by: By = "operator",
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    as_json: Json = False,
) -> None:
    """Put a point under legal hold: it is not pruned until it is released.

    Example: `reinstate store hold 20261122T034756.859448Z-c77604fc --reason "case 17"`.
    """
    from recovery import storekeeping

    with opened(catalog, app) as ctx:
        made = storekeeping.hold(ctx, point, reason=reason, by=by)
    output.emit(made, as_json=as_json, text=f"point {point} is held: {reason}")


def release(
    point: Annotated[str, typer.Argument(help="The held point.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    by: By = "operator",
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    as_json: Json = False,
) -> None:
    """Release a held point: the next pruning decides about it like about any other.

    Example: `reinstate store release 20261122T034756.859448Z-c77604fc --reason "case 17 is closed"`.
    """
    from recovery import storekeeping

    with opened(catalog, app) as ctx:
        storekeeping.release(ctx, point, reason=reason, by=by)
    output.emit({"released": point}, as_json=as_json, text=f"point {point} is released")


def holds(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """List the points under legal hold, with who held them and why.

    Example: `reinstate store holds`.
    """
    from snapshots.store import retention

    with opened(catalog, app) as ctx:
        found = retention.holds(ctx.store, ctx.app.key)
    if as_json:
        output.emit(list(found), as_json=True)
    elif not found:
        output.say("no point is held")
    else:
        rows = [(h.point, f"{h.at:%Y-%m-%d %H:%M}", h.by, h.reason) for h in found]
        output.table("Held points", ["point", "since", "by", "reason"], rows)


def rotate(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Encrypt every object anew too; needed when a data key leaked.")
    ] = False,
    by: By = "operator",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make the first key of the catalogue's `store.keys` the one that opens the store; encrypt a store that is plain.

    The key that opens it now must be among the keys. Started again after an interruption, it goes on.
    Examples: `reinstate store rotate`, `reinstate store rotate --everything --yes`.
    """
    if as_json and not yes:
        raise BadUse("store rotate: --json asks no questions; add --yes")
    from recovery import storekeeping
    from snapshots.store import rotation

    with opened(catalog, app) as ctx:
        before = rotation.state(ctx.store)
        first = next(iter(storekeeping.key_ids(ctx)), "none")
        if not as_json and ctx.store.masters:
            output.say(f"store {ctx.store.name} is {before}; from now on key {first} opens it, and no other")
        if not yes and ctx.store.masters:
            typer.confirm("Keep that key where a disaster cannot reach it. Go on?", abort=True)
        done = storekeeping.rotate(ctx, everything=everything, by=by, say=output.progress)
    what = "encrypted" if done.encrypted else "keys turned"
    text = f"{what}: key {done.key}, generation {done.generation}, {done.sealed} objects sealed"
    output.emit(done, as_json=as_json, text=text)


def size(count: int) -> str:
    """Bytes for people."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
