"""Wiring: one opened app with its platform, database connections, store and ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import psycopg

from catalog import secrets
from catalog.errors import SecretMissing
from catalog.load import load
from catalog.models import App
from ingress.queue import Queue
from ledger import Ledger
from platforms.base import Platform, WorkflowInfo
from platforms.dated import Dated, Span
from platforms.registry import open_platform
from platforms.retrying import Retrying
from platforms.stand_in import StandIn
from recovery import history
from recovery.errors import RecoveryError
from snapshots import database
from snapshots.erasure import erasure
from snapshots.model import TableSpec
from snapshots.store.store import Store

Role = Literal["installer", "capturer", "recoverer"]


@dataclass(frozen=True, kw_only=True)
class AppContext:
    """Everything a recovery needs of one app. ``home`` holds ledger, store and secrets file."""

    home: Path
    catalog_path: Path
    app: App
    platform: Platform = field(repr=False)
    ledger: Ledger = field(repr=False)
    store: Store = field(repr=False)
    events: Queue | None = field(default=None, repr=False)
    """What the ingress keeps; ``None`` where the catalogue names no ingress."""

    def dsn(self, role: Role) -> str:
        return secrets.resolve(getattr(self.app.database, role), self.home / "secrets.env")

    @contextmanager
    def connect(self, role: Role, purpose: str) -> Iterator[psycopg.Connection]:
        connection = database.connect(self.dsn(role), purpose=purpose)
        try:
            yield connection
        finally:
            connection.close()

    @cached_property
    def tables(self) -> tuple[TableSpec, ...]:
        with self.connect("recoverer", "catalogue") as connection:
            return database.tables(connection, self.app.tables)

    @cached_property
    def book(self) -> history.Book:
        """The own history of the app's workflows, as the ledger tells it."""
        return history.Book(self.ledger, self.app.key, self.home / history.FILE / self.app.key)

    @property
    def suites(self) -> Path:
        folder = self.catalog_path if self.catalog_path.is_dir() else self.catalog_path.parent
        return folder / self.app.suites

    def infos(self, *, partly: bool = False) -> dict[str, WorkflowInfo]:
        """The platform's workflows by catalogue key; one that was renamed is still the one we know. Raises when a
        declared one is missing there; ``partly`` leaves out one that we knew and that was deleted since."""
        listed = self.platform.workflows()
        located = self.located(listed)
        for workflow in self.app.workflows:
            if workflow.key not in located or (located[workflow.key] is None and not partly):
                raise RecoveryError(
                    f"workflow {workflow.key}: {sum(i.name == workflow.name for i in listed)} workflows named "
                    f"{workflow.name!r} in the platform; correct the name in the catalogue or in the platform"
                )
        return {key: info for key, info in located.items() if info is not None}

    def ids(self) -> dict[str, str]:
        """The platform's ids by catalogue key, of those of :meth:`infos` that can be told."""
        located = self.located(self.platform.workflows())
        return {key: info.id for key, info in located.items() if info is not None}

    def located(self, listed: Sequence[WorkflowInfo]) -> dict[str, WorkflowInfo | None]:
        """Which of the platform's workflows is which, by catalogue key: the only one of its name; of several, the one
        that we knew; of none, the one that we knew and that was renamed, ``None`` when that one is gone. Without those
        that cannot be told."""
        by_name: dict[str, list[WorkflowInfo]] = {}
        for info in listed:
            by_name.setdefault(info.name, []).append(info)
        found: dict[str, WorkflowInfo | None] = {}
        for workflow in self.app.workflows:
            named = by_name.get(workflow.name, [])
            if len(named) == 1:
                found[workflow.key] = named[0]
            elif (last := history.newest(self, workflow.key)) is not None:
                known = next((i for i in listed if not last.gone and i.id == last.platform_id), None)
                if known is not None or not named:
                    found[workflow.key] = known
        return found

    def roles(self, keys: frozenset[str] | set[str] | tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({self.app.workflow(key).role for key in keys}))


def default_home() -> Path:
    """``$REINSTATE_HOME``, else the user's data directory."""
    if home := os.environ.get("REINSTATE_HOME"):
        return Path(home).absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("reinstate"))


@contextmanager
def open_app(catalog_path: Path, app_key: str | None = None, home: Path | None = None) -> Iterator[AppContext]:
    """Open the named app (the only one when ``None``). Checks nothing beyond what opening needs.

    Raises ``catalog.errors.CatalogError`` on a bad catalogue, unknown app or missing secret."""
    home = home or default_home()
    app = select(load(catalog_path).apps, app_key)
    env_file = home / "secrets.env"
    api_key = secrets.resolve(app.platform.api_key, env_file)
    adapter = open_platform(app.platform.kind, secrets.resolve(app.platform.url, env_file), api_key)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    events = open_queue(app, home, env_file)

    def locate(listed: Sequence[WorkflowInfo]) -> dict[str, WorkflowInfo | None]:
        return ctx.located(listed)

    if events is not None:
        adapter = StandIn(adapter, events, locate)

    def spans() -> dict[str, tuple[Span, ...]]:
        return ctx.book.spans()  # read from the ledger, which the context opens

    platform = Retrying(Dated(adapter, spans))
    try:
        ctx = AppContext(
            home=home,
            catalog_path=catalog_path,
            app=app,
            platform=platform,
            ledger=Ledger(home / "ledger.sqlite", secrets=[api_key]),
            store=open_store(app, home, env_file),
            events=events,
        )
        yield ctx
    finally:
        platform.close()
        if events is not None:
            events.close()


def open_queue(app: App, home: Path, env_file: Path, *, owner: str = "") -> Queue | None:
    """The queue of the app's ingress: where the catalogue says, else a file beside the ledger."""
    if app.ingress is None:
        return None
    address = secrets.resolve(app.ingress.queue, env_file) if app.ingress.queue else home / f"events-{app.key}.sqlite"
    return Queue(address, app=app.key, owner=owner)


def open_store(app: App, home: Path, env_file: Path) -> Store:
    """The store that the catalogue names, else the one beside the ledger."""
    policy = app.store
    url = secrets.resolve(policy.url, env_file) if policy.url else str(home / "store")
    store = Store(
        url,
        options={name: secrets.resolve(ref, env_file) for name, ref in policy.options.items()},
        keys=[secrets.resolve(ref, env_file) for ref in policy.keys],
    )
    store.guard = erasure_guard(home, env_file)
    return store


def erasure_guard(home: Path, env_file: Path) -> erasure.Guard:
    """What keeps erased people out of whatever store is opened: the secret of the hashes, and the list beside the
    ledger. There is no secret before the first erasure."""
    return erasure.Guard(secret=erasure_secret(env_file), beside=home / "erased", ask=partial(erasure_secret, env_file))


def erasure_secret(env_file: Path) -> bytes | None:
    try:
        return secrets.resolve(f"env:{erasure.SECRET}", env_file).encode()
    except SecretMissing:
        return None


def select(apps: tuple[App, ...], key: str | None) -> App:
    """The app named ``key``; the only one when ``None``."""
    from catalog.errors import CatalogError

    known = ", ".join(sorted(a.key for a in apps))
    if key is None:
        if len(apps) == 1:
            return apps[0]
        raise CatalogError(f"catalogue: it holds several apps ({known}); name one")
    for app in apps:
        if app.key == key:
            return app
    raise CatalogError(f"app {key}: not in the catalogue, which holds {known}; correct the name")
