"""Looking at the workflows while the app is watched: a thread beside the detectors, which must not wait for a platform
that answers slowly or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from recovery import history
from recovery.errors import one_line

if TYPE_CHECKING:
    from recovery.context import AppContext

LOOK_S: Final = 3.0
"""A change is dated no closer than this, where the platform does not tell its time."""
LONGEST_WAIT_S: Final = 60.0
END_S: Final = 5.0


@contextmanager
def looking(ctx: AppContext, say: Callable[[str], None]) -> Iterator[None]:
    """Look every few seconds as long as the block runs. What fails is said once, and tried again ever more slowly."""
    ended = threading.Event()
    thread = threading.Thread(target=_look, args=(ctx, say, ended), name="history", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(END_S)


def _look(ctx: AppContext, say: Callable[[str], None], ended: threading.Event) -> None:
    _warm(ctx)
    wait_s = LOOK_S
    while not ended.is_set():
        try:
            for seen in history.observe(ctx):
                say(sentence(seen))
            wait_s = LOOK_S
        except Exception as error:  # noqa: BLE001 - whatever stops one look must not stop the watching
            if ended.is_set():
                return
            if wait_s == LOOK_S:
                say(f"versions of workflows are not seen: {one_line(error)}; trying again")
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        ended.wait(wait_s)


def _warm(ctx: AppContext) -> None:
    """Let the platform's client learn the versions there are: a containment would have to ask for them first. Its
    failure costs only that time."""
    with suppress(Exception):
        for info in ctx.infos().values():
            ctx.platform.versions(info.id)


def sentence(seen: history.Seen) -> str:
    """One change for people."""
    if seen.gone:
        return f"{seen.workflow}: deleted in the platform (id {seen.platform_id})"
    who = f" by {seen.author}" if seen.author else ""
    if seen.passed:
        return f"{seen.workflow}: version {seen.version[:12]} was saved{who} and replaced since"
    state = "saved; the workflow is inactive" if seen.live is None else "live"
    if seen.live is not None and seen.live != seen.version:
        state = f"saved, live is {seen.live[:12]}"
    return f"{seen.workflow}: version {seen.version[:12]} is {state}{who}"
