"""The throw-away estate of a drill: PostgreSQL, n8n, the example app, a ledger and a store of its own.

Each lies in ``home/drills/<drill>``, with ``owner.json`` (pid and start time of the drill's process) and one pid file
per process that the drill started. It is torn down when the drill ends, also by an error, Ctrl-C or SIGTERM. What a
drill that was killed left behind is found by its owner's record and cleared: nothing that has no record of ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from catalog.load import load
from drills.errors import DrillHeld
from drills.order_desk import DATABASE, EXAMPLE, OrderDesk
from estate import Estate, process
from estate.errors import EstateBusy, EstateError
from estate.files import locked, write_private
from recovery import setup
from recovery.context import AppContext, open_app
from recovery.protect import protect

FOLDER: Final = "drills"
OWNER, PIDS = "owner.json", "processes"
APP: Final = "order-desk"
"""The example app: the only one that can be rehearsed, since a drill needs somebody who knows what was right."""
QUICK: Final = ((signal.SIGTERM, 2.0),)
"""How the processes of a sandbox end: nobody needs what they still had to do."""
PARTS: Final = ("postgres", "n8n")

Say = Callable[[str], None]


def quiet(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a drill happens. ``home`` is the product's home there, ``work`` holds the driver's dumps and the logs."""

    home: Path
    desk: OrderDesk = field(repr=False)
    work: Path
    catalog: Path = EXAMPLE

    @contextmanager
    def opened(self) -> Iterator[AppContext]:
        with open_app(self.catalog, APP, self.home) as ctx:
            yield ctx

    def prepare(self, say: Say = quiet) -> str:
        """A healthy, protected app as on its first day: roles, journal, a verified point. Returns the point's id."""
        self.desk.provision(say)
        with self.opened() as ctx:
            setup.install_roles(ctx, self.desk.superuser_dsn(DATABASE))
            setup.install_journal(ctx)
            return protect(ctx, say=say).id

    def remember(self, name: str, pid: int) -> None:
        """Record a process of this drill, so that it can be ended if the drill is killed."""
        ticks = process.start_ticks(pid)
        if ticks is not None:
            (self.home / PIDS).mkdir(mode=0o700, exist_ok=True)
            write_private(self.home / PIDS / f"{name}.pid", json.dumps({"pid": pid, "start_ticks": ticks}))


@contextmanager
def sandbox(home: Path, drill: str, *, say: Say = quiet) -> Iterator[Path]:
    """The folder of a new sandbox, empty, torn down at the end. One drill at a time per ``home``.

    What earlier, killed drills left is cleared first. Raises :class:`DrillHeld` naming the drill that runs."""
    with only_drill(home):
        clear_left(home, say=say)
        folder = home / FOLDER / drill
        folder.mkdir(mode=0o700)
        own = process.start_ticks(os.getpid())
        owner = {"pid": os.getpid(), "start_ticks": own, "started_at": datetime.now(UTC).isoformat()}
        write_private(folder / OWNER, json.dumps(owner))
        with ended_by_signal():
            try:
                yield folder
            finally:
                with undisturbed():
                    demolish(folder, say=say)


def build(folder: Path, *, say: Say = quiet) -> Place:
    """Start the estate in ``folder``. Raises ``EstateError`` naming the part that does not come up."""
    at = Estate(folder).up(PARTS)
    say(f"sandbox up after {at.total_s:.0f} s")
    work = folder / "work"
    work.mkdir(mode=0o700, exist_ok=True)
    desk = OrderDesk(superuser_dsn=at.superuser_dsn, n8n_url=at.n8n_url, n8n_key=at.n8n_api_key, home=folder)
    return Place(home=folder, desk=desk, work=work)


@contextmanager
def product_lives_in(home: Path) -> Iterator[None]:
    """While it lasts, the product in this process and its children knows the sandbox only.

    The environment comes first when secrets are looked up, so that an address of the real app there would win over the
    sandbox's: every name that the example's catalogue refers to is taken away for the time being."""
    catalog = load(EXAMPLE).model_dump_json()
    with environment({"REINSTATE_HOME": str(home)}, without=tuple(re.findall(r'"env:([^"]+)"', catalog))):
        yield


@contextmanager
def environment(values: Mapping[str, str], *, without: tuple[str, ...] = ()) -> Iterator[None]:
    """Environment variables for the time being."""
    before = {name: os.environ.get(name) for name in (*values, *without)}
    for name in without:
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def only_drill(home: Path) -> Iterator[None]:
    """Exclude other drills of this home; ends with the process at the latest. Raises :class:`DrillHeld`."""
    (home / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    held = locked(home / FOLDER / "drill.lock", patience_s=0.0)
    try:
        held.__enter__()
    except EstateBusy:
        holder = (home / FOLDER / "drill.lock").read_text("utf-8").strip() or "unknown"
        raise DrillHeld(f"drill: process {holder} is at one already; wait for it or end it, then retry") from None
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def clear_abandoned(home: Path, *, say: Say = quiet) -> list[str]:
    """Stop and remove the sandboxes whose process died; returns their names. Raises :class:`DrillHeld` while a drill
    runs: it has cleared them at its start."""
    with only_drill(home):
        return clear_left(home, say=say)


def clear_left(home: Path, *, say: Say = quiet) -> list[str]:
    """The same for who excludes other drills already. A sandbox whose owner lives is left alone."""
    cleared = []
    for folder in sorted(p for p in (home / FOLDER).iterdir() if p.is_dir() and not p.is_symlink()):
        owner = process.read_record(folder / OWNER)
        if owner is not None and owner.process() is not None and owner.pid != os.getpid():
            continue
        demolish(folder, say=say)
        say(f"cleared what drill {folder.name} had left behind")
        cleared.append(folder.name)
    return cleared


def demolish(folder: Path, *, say: Say = quiet) -> None:
    """End every process recorded below ``folder``, then remove it. Raises ``EstateError`` when one survives."""
    if not folder.is_dir():
        return
    for record in sorted((folder / PIDS).glob("*.pid")):
        process.stop(record, QUICK, name=f"{record.stem} of drill {folder.name}")
    estate = Estate(folder)
    process.stop(estate.n8n().pid_file, QUICK, name="n8n")
    estate.down()
    for _ in range(20):  # a process that is just ending may still make a file
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            say(f"sandbox {folder.name} is gone")
            return
        time.sleep(0.25)
    raise EstateError(f"sandbox {folder}: it cannot be removed; remove it by hand, then run `reinstate drill clear`")


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """SIGTERM becomes an exception here, so that the teardown happens; left alone where somebody handles it."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C or SIGTERM does not stop the teardown."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
