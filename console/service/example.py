"""The example app of `reinstate up`: provisioned once on the embedded estate, kept afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from console.service import processes
from console.service.settings import WATCHER
from drills.order_desk import EXAMPLE, OrderDesk
from estate import Addresses, secrets

if TYPE_CHECKING:
    from recovery.context import AppContext

APP = "order-desk"
STOP_S = 8.0
Say = Callable[[str], None]


def is_example(catalog: Path | None) -> bool:
    """Whether the example is meant: by name, or because nothing else is."""
    return catalog is None or catalog.resolve() in (EXAMPLE, EXAMPLE / "catalog.yaml")


def prepare(home: Path, at: Addresses, *, fresh: bool, say: Say) -> bool:
    """The app as it was left, or as on its first day; with roles and journal. True when a recovery point is needed."""
    from recovery import setup
    from recovery.context import open_app

    desk = OrderDesk(superuser_dsn=at.superuser_dsn, n8n_url=at.n8n_url, n8n_key=at.n8n_api_key, home=home)
    why = "asked for" if fresh else broken(home, at)
    if why:
        say(f"order desk: provisioned from its first day ({why})")
        watching = [n for n in processes.recorded(home) if n.startswith(WATCHER)]
        processes.stop_all(home, watching, STOP_S)  # the database goes away under it
        desk.provision(lambda text: say(f"order desk: {text}"))
    with open_app(EXAMPLE, APP, home) as ctx:
        if not why:
            say("order desk: kept as it was left; `reinstate up --fresh` starts it from its first day")
            return not verified(ctx)
        start_afresh(ctx)
        setup.install_roles(ctx, at.superuser_dsn("order_desk"))
        setup.install_journal(ctx)
        say(f"order desk: roles are least-privilege, the journal is on {len(ctx.tables)} tables")
    return True


def broken(home: Path, at: Addresses) -> str:
    """Why the example cannot be used as it is; empty when it can."""
    import psycopg

    from catalog.errors import CatalogError
    from platforms.base import PlatformError
    from recovery.context import open_app
    from recovery.errors import RecoveryError
    from snapshots.errors import SnapshotError
    from snapshots.journal import journal

    known = secrets.read(home / secrets.FILE)
    if "ORDER_DESK_N8N_URL" not in known:
        return "first start"
    if known["ORDER_DESK_N8N_URL"] != at.n8n_url or f":{at.pg_port}/" not in known.get("ORDER_DESK_DB_RECOVERER", ""):
        return "the estate has moved to other ports"
    try:
        with open_app(EXAMPLE, APP, home) as ctx:
            ctx.infos()
            with ctx.connect("recoverer", "up") as connection:
                state = journal.status(connection, expected=[t.name for t in ctx.app.tables])
            return "" if state.installed and not state.missing else "its journal is gone"
    except (CatalogError, PlatformError, RecoveryError, SnapshotError, psycopg.Error) as error:
        return str(error).splitlines()[0]


def verified(ctx: AppContext) -> bool:
    """Whether there is a verified point of the database as it is."""
    from snapshots.points.points import latest_verified

    return latest_verified(ctx.store, ctx.app.key) is not None


def start_afresh(ctx: AppContext) -> None:
    """An incident that is still open belongs to a database that is gone."""
    from incidents import record

    left = record.find_open(ctx.ledger, ctx.app.key)
    if left is not None:
        record.close(ctx.ledger, left.id, reason="the order desk was started again from its first day", by="up")


def taking_point(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Take a recovery point and prove it, in a process of its own: the suites need memory that is given back."""
    command = [sys.executable, "-m", "console", "protect", "--catalog", str(EXAMPLE), "--app", APP]
    with log.open("ab") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
