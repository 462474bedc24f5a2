"""`reinstate notify`: send the notices that are due, show them, or test a channel."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from console import exits, output
from console.errors import BadUse, Unreachable
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened

if TYPE_CHECKING:
    from recovery.context import AppContext


def register(app: typer.Typer) -> None:
    app.command()(notify)


def notify(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent, as its readers see it; send nothing.")
    ] = False,
    test: Annotated[
        str | None, typer.Option("--test", metavar="CHANNEL", help="Send a marked test message on this channel.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send the notices that are due, once: state changes nobody was told of, and promised updates.

    `reinstate up` does this by itself; without it, let cron run it every minute. Examples: `reinstate notify`,
    `reinstate notify --dry-run`, `reinstate notify --test desk-mail`. Exit code 4 when a channel could not be reached;
    what failed is tried again by a later call.
    """
    if dry_run and test is not None:
        raise BadUse("notify: --dry-run and --test do not go together; leave one out")
    with opened(catalog, app) as ctx:
        if test is not None:
            try_channel(ctx, test, as_json=as_json)
        elif dry_run:
            show(ctx, as_json=as_json)
        else:
            send(ctx, as_json=as_json)


def show(ctx: AppContext, *, as_json: bool) -> None:
    from incidents.notices.dispatch import pending

    found = pending(ctx.ledger, ctx.app, datetime.now(UTC), addresses=addresses())
    if as_json:
        output.emit(found, as_json=True)
        return
    for notice in found:
        output.say(f"To {notice.audience} on {notice.channel}:")
        output.say(f"Subject: {notice.subject}\n\n{notice.text}")
    output.say(summary(ctx, [f"{len(found)} would be sent"] if found else []))


def send(ctx: AppContext, *, as_json: bool) -> None:
    from catalog import secrets
    from incidents.notices.dispatch import dispatch

    done = dispatch(
        ctx.ledger,
        ctx.app,
        resolve=lambda ref: secrets.resolve(ref, ctx.home / "secrets.env", app=ctx.app.key),
        now=datetime.now(UTC),
        addresses=addresses(),
    )
    lines = [
        f"sent to {s.channel}: {s.subject}"
        if s.ok
        else f"not sent to {s.channel}: {s.subject}: {s.why}; {'given up' if s.gave_up else 'tried again later'}"
        for s in done
    ]
    output.emit(done, as_json=as_json, text="\n".join(lines) if lines else summary(ctx, []))
    if not all(s.ok for s in done):
        raise typer.Exit(exits.UNREACHABLE)


def try_channel(ctx: AppContext, key: str, *, as_json: bool) -> None:
    from catalog import secrets
    from incidents.errors import NotSent
    from incidents.notices.dispatch import send_test

    channel = next((c for c in ctx.app.channels if c.key == key), None)
    if channel is None:
        known = ", ".join(c.key for c in ctx.app.channels) or "none"
        raise BadUse(f"notify: app {ctx.app.key} has no channel {key}; its channels are: {known}")
    try:
        sent = send_test(
            ctx.app,
            channel,
            resolve=lambda ref: secrets.resolve(ref, ctx.home / "secrets.env", app=ctx.app.key),
            now=datetime.now(UTC),
        )
    except NotSent as error:
        raise Unreachable(f"channel {key}: {error}; correct {channel.to} or its receiver, then test again") from None
    output.emit({"channel": key, "subject": sent.subject}, as_json=as_json, text=f"sent to {key}: {sent.subject}")


def summary(ctx: AppContext, lines: list[str]) -> str:
    if not ctx.app.channels:
        return f"app {ctx.app.key} has no channels; add `channels:` to its catalogue"
    return lines[0] if lines else "nothing is due"


def addresses() -> dict[str, str]:
    """Where responders look: the Prefect UI, when this process knows it."""
    from urllib.parse import urlsplit

    url = os.environ.get("PREFECT_UI_URL") or os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    parts = urlsplit(url)
    if not parts.hostname:
        return {}
    host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    return {"Prefect": f"{parts.scheme}://{host}{parts.path}"}
