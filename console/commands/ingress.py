"""`reinstate ingress`: the small server in front of webhooks, which keeps what comes while a workflow is paused."""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from console import output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened

if TYPE_CHECKING:
    from ingress.model import Route
    from ingress.queue import Queue
    from recovery.context import AppContext

REFRESH_S: Final = 10.0
"""How long a new webhook may be unknown: until then its events are passed on, unrecorded."""


def register(app: typer.Typer) -> None:
    app.command()(ingress)


def ingress(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT instead of the catalogue's.")] = None,
    as_json: Json = False,
) -> None:
    """Stand in front of the webhooks until Ctrl-C: pass events on, and keep them while their workflow is paused.

    Senders call it at the platform's paths and methods. The catalogue's `ingress:` says where it listens and where
    events are kept; `reinstate up` runs it by itself. GET /.reinstate/health says how it is.
    Examples: `reinstate ingress`, `reinstate ingress --app shop --listen 0.0.0.0:8420`.
    """
    from catalog import secrets
    from ingress import serving
    from ingress.server import Ingress
    from recovery import events
    from recovery.context import open_queue

    with opened(catalog, app) as ctx:
        policy = ctx.app.ingress
        env_file = ctx.home / "secrets.env"
        queue = open_queue(ctx.app, ctx.home, env_file, owner=uuid.uuid4().hex)
        if policy is None or queue is None:
            raise BadUse(f"ingress: app {ctx.app.key} has none; write `ingress: {{}}` under it in the catalogue")
        server = Ingress(
            queue=queue,
            upstream=secrets.resolve(ctx.app.platform.url, env_file),
            key_of=events.look_up,
            largest=policy.largest_mb * 1024 * 1024,
            keep_days=policy.keep_days,
        )
        bound = serving.bind(listen or policy.listen)
        known = refreshed(ctx, queue, queue.routes())
        host, port = bound.getsockname()[:2]
        said = {"address": f"http://{host}:{port}", "queue": queue.name, "webhooks": len(known)}
        if as_json:
            output.line({"event": "ready", **said})
        else:
            output.say(f"ingress: {said['address']}, {len(known)} webhooks, events in {queue.name}; Ctrl-C stops it")
        over = threading.Event()
        threading.Thread(target=keep_refreshing, args=(ctx, queue, known, over), daemon=True).start()
        if ready := os.environ.get("REINSTATE_READY_FILE"):
            Path(ready).touch()
        try:
            serving.serve(server.application(), bound)
        finally:
            over.set()
            queue.close()


def keep_refreshing(ctx: AppContext, queue: Queue, known: tuple[Route, ...], over: threading.Event) -> None:
    """Learn new webhooks while the ingress runs."""
    while not over.wait(REFRESH_S):
        known = refreshed(ctx, queue, known)


def refreshed(ctx: AppContext, queue: Queue, known: tuple[Route, ...]) -> tuple[Route, ...]:
    """The webhooks as the platform tells them now; those known before while it cannot be asked. A webhook that is gone
    stays known as long as events may still come for it: until the next start."""
    from ingress.errors import IngressError
    from platforms.base import PlatformError
    from recovery import held
    from recovery.errors import RecoveryError

    try:
        found = {(r.method, r.path): r for r in (*known, *held.routes(ctx))}
        now = tuple(found.values())
        if now != known:
            queue.set_routes(now)
    except (PlatformError, RecoveryError, IngressError) as error:
        output.progress(f"webhooks: {error}; going on with the {len(known)} known ones")
        return known
    return now
