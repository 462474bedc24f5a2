"""Who is at work in a store: captures side by side, or one that removes or rewrites objects, alone.

Each announces itself first, by an object of its own in ``locks/``, and looks at the others then: of two that come at
once at least one sees the other. Whoever wants to be alone gives way; a capture waits. An announcement counts until it
expires, or until its process on this very machine is gone. A capture that was overlooked loses nothing: publishing
looks again whether all its objects are there (:meth:`snapshots.store.Store.publish`).
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from snapshots.points.errors import StoreBusy
from snapshots.store.backend import Backend

FOLDER = "locks"
LEASE_S = 1800.0
RENEW_S = 60.0
PATIENCE_S = 60.0
_LOOK_S = 0.2

clock = time.time
Kind = Literal["writer", "alone"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Announcement:
    """Somebody at work. ``space`` tells machines and containers apart whose process numbers mean different things."""

    kind: Kind
    purpose: str
    host: str
    space: str
    pid: int
    since: str
    until: float

    def alive(self, now: float) -> bool:
        if self.until <= now:
            return False
        if (self.host, self.space) != _here():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


class Presence:
    """One announcement, from :meth:`enter` to :meth:`leave`; :meth:`renew` keeps it from expiring (cheap to call)."""

    def __init__(self, backend: Backend, kind: Kind, purpose: str) -> None:
        self._backend = backend
        self._kind: Kind = kind
        self._purpose = purpose
        self._path = f"{FOLDER}/{kind}-{secrets.token_hex(8)}.json"
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._until = 0.0
        self._renewing = threading.Lock()

    def enter(self, *, patience_s: float = PATIENCE_S) -> None:
        """Announce, then wait for (a writer) or give way to (whoever wants to be alone) the others. Raises
        :class:`StoreBusy` naming who is there."""
        self._announce()
        deadline = time.monotonic() + patience_s
        while others := self._others():
            if self._kind == "alone" or time.monotonic() > deadline:
                self.leave()
                raise StoreBusy(
                    f"The store {self._backend.name} is in use ({'; '.join(map(described, others))}); try again later."
                )
            time.sleep(_LOOK_S)

    def renew(self) -> None:
        """Raises :class:`StoreBusy` when the announcement expired meanwhile: others may have come since."""
        with self._renewing:
            now = clock()
            if now > self._until:
                raise StoreBusy(
                    f"This {self._purpose} was held up for too long in the store {self._backend.name}; start it again."
                )
            if now > self._until - LEASE_S + RENEW_S:
                self._announce()

    def keep(self) -> None:
        """Like :meth:`renew`, for a writer: one that was held up for too long comes in again, and waits if need be."""
        if clock() > self._until:
            self.enter()
        else:
            self.renew()

    def leave(self) -> None:
        self._until = 0.0
        self._backend.remove(self._path)

    def _announce(self) -> None:
        host, space = _here()
        self._until = clock() + LEASE_S
        made = Announcement(
            kind=self._kind,
            purpose=self._purpose,
            host=host,
            space=space,
            pid=os.getpid(),
            since=self._since,
            until=self._until,
        )
        self._backend.replace(self._path, json.dumps(asdict(made), sort_keys=True).encode())

    def _others(self) -> list[Announcement]:
        found = present(self._backend, but=self._path)
        return [a for a in found if self._kind == "alone" or a.kind == "alone"]


def present(backend: Backend, *, but: str = "") -> list[Announcement]:
    """Everybody at work now. What the dead left is removed."""
    found = []
    paths = [f"{FOLDER}/{name}" for name in backend.names(FOLDER) if name.endswith(".json")]
    for path, data in backend.read_all(p for p in paths if p != but).items():
        if data is None:
            continue
        try:
            other = Announcement(**json.loads(data))
            alive = other.alive(clock())
        except (ValueError, TypeError, KeyError):
            alive = False
        if alive:
            found.append(other)
        else:
            backend.remove(path)
    return sorted(found, key=lambda a: a.since)


def described(other: Announcement) -> str:
    return f"{other.purpose} on {other.host}, process {other.pid}, since {other.since}"


def _here() -> tuple[str, str]:
    """This host, and the space of process numbers we are in: its boot, and its container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        space = ""
    return socket.gethostname(), space
