"""``python -m flows.steward --catalog DIR``: does what the ledger leaves to do, whoever died in between.

It announces contained incidents as events, continues recoveries whose process died, records approvals that nobody
gave in time, sends notices, and keeps the choices of the forms up to date. What it does is on record before or right
after it happens, so it may be killed and started again at any time. A Prefect server that is away is waited for.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from catalog.load import load
from flows import stewardship
from ledger.mask import Guard
from recovery.context import AppContext, default_home, open_app

ANNOUNCE_S: Final = 0.5
KEEP_S: Final = 2.0
CHOICES_S: Final = 5.0
REMIND_S: Final = 300.0
"""An error that stays is said again after so long."""

Job = Callable[[], None]
Say = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Until SIGTERM. Raises ``catalog.errors.CatalogError`` when an app cannot be opened."""
    parser = argparse.ArgumentParser(prog="python -m flows.steward", description="Do what the ledger leaves to do.")
    parser.add_argument("--catalog", type=Path, required=True, help="a YAML file or a folder with one")
    catalog = parser.parse_args(arguments).catalog.absolute()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):  # the loop itself tries again
        run(catalog, stopping)
    return 0


def run(catalog: Path, stopping: threading.Event) -> None:
    """The loops over every app of the catalogue."""
    keys = [app.key for app in load(catalog).apps]
    guard = Guard(secrets=[s for s in (PREFECT_API_AUTH_STRING.value() or "",) if s])
    careful = partial(quietly, said={}, guard=guard, say=say)
    with ExitStack() as stack:
        apps = [stack.enter_context(open_app(catalog, key)) for key in keys]
        mailer = threading.Thread(target=notices, args=(catalog, keys, stopping, careful), name="notices", daemon=True)
        mailer.start()
        say(f"keeping {', '.join(keys)}")
        loop(jobs(apps, keys), stopping, careful)
        mailer.join(timeout=1.0)  # a notice under way is found again


def jobs(apps: Sequence[AppContext], keys: Sequence[str]) -> list[tuple[str, float, Job]]:
    """What is done for each app: a name for the log, seconds between two times, and the thing itself."""
    found: list[tuple[str, float, Job]] = []
    for ctx in apps:
        key = ctx.app.key
        found += [
            (f"announce {key}", ANNOUNCE_S, partial(stewardship.announce, ctx, say)),
            (f"expire {key}", KEEP_S, partial(stewardship.expire, ctx, say)),
            (f"continue {key}", KEEP_S, partial(stewardship.go_on, ctx, say)),
            (f"choices {key}", CHOICES_S, stewardship.keep_choices(ctx, keys)),
        ]
    return found


def loop(
    todo: Sequence[tuple[str, float, Job]], stopping: threading.Event, careful: Callable[[str, Job], None]
) -> None:
    """Each job at its own pace, until told to stop."""
    due = dict.fromkeys((name for name, _, _ in todo), 0.0)
    while not stopping.is_set():
        for name, every_s, job in todo:
            if time.monotonic() >= due[name] and not stopping.is_set():
                careful(name, job)
                due[name] = time.monotonic() + every_s
        stopping.wait(max(0.02, min(due.values()) - time.monotonic()))


def quietly(name: str, job: Job, *, said: dict[str, tuple[str, float]], guard: Guard, say: Say) -> None:
    """Do it. An error ends nothing: it is said once, without secrets, and that it is over."""
    try:
        job()
    except Exception as error:  # noqa: BLE001 - whatever one job meets must not keep the others from being done
        text = guard.text(" ".join(f"{type(error).__name__}: {error}".split())[:500])
        before, at = said.get(name, ("", 0.0))
        if text != before or time.monotonic() - at >= REMIND_S:
            said[name] = (text, time.monotonic())
            say(f"{name}: {text}; it is tried again")
    else:
        if said.pop(name, None) is not None:
            say(f"{name}: works again")


def notices(catalog: Path, keys: Sequence[str], stopping: threading.Event, careful: Callable[[str, Job], None]) -> None:
    """Send notices beside the loop, since mail may be slow."""
    with ExitStack() as stack:
        apps = [stack.enter_context(open_app(catalog, key)) for key in keys]
        loop(
            [(f"notices {c.app.key}", KEEP_S, partial(stewardship.send_notices, c, default_home(), say)) for c in apps],
            stopping,
            careful,
        )


def say(text: str) -> None:
    """A line in the log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
