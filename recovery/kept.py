"""Definitions in the app's store: one object per content and settings, sealed like everything there, with a checksum of
its own. They hold no secrets, by the port's contract. Nothing prunes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from platforms.base import Platform, Version
from snapshots.points.errors import Damaged, UnknownFormat

if TYPE_CHECKING:
    from recovery.context import AppContext
    from snapshots.store.store import Store

FOLDER: Final = "versions"
FORMAT: Final = 1
SETTINGS_CHARS: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """``workflow`` is the catalogue key under which the version was seen first with these settings."""

    workflow: str
    version: Version


def keep(ctx: AppContext, workflow: str, version: Version, known: Collection[str], *, again: bool) -> str:
    """Put ``version`` into the store and return its name there. ``known`` are names that the record holds already;
    ``again``: look whether the object really is there. Raises the store's errors."""
    name = path(ctx.app.key, version.hash, settings(ctx.platform, version))
    if name in known and not (again and ctx.store.read_object(name) is None):
        return name
    values = {
        "app": ctx.app.key,
        "workflow": workflow,
        "platform": ctx.platform.kind,
        "platform_id": version.workflow_id,
        "hash": version.hash,
        "settings_hash": settings(ctx.platform, version),
        "platform_version": version.platform_version,
        "author": version.author,
        "created_at": version.created_at.isoformat() if version.created_at else None,
        "definition": dict(version.definition),
    }
    text = json.dumps({"checksum": _checksum(values), "format": FORMAT, "version": values}, sort_keys=True, indent=1)
    with ctx.store.writing("a version of a workflow"):
        ctx.store.replace_object(name, text.encode())
    return name


def read(store: Store, name: str) -> Kept | None:
    """What lies there; ``None`` when nothing does. Raises ``Damaged`` or ``UnknownFormat``."""
    data = store.read_object(name)
    if data is None:
        return None
    try:
        whole = json.loads(data)
        values, checksum, written = whole["version"], whole["checksum"], whole["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{name} in {store.name} is not a version; restore its copy.") from error
    if written != FORMAT:
        raise UnknownFormat(f"{name} in {store.name} has format {written!r}; upgrade reinstate to read it.")
    if _checksum(values) != checksum:
        raise Damaged(f"{name} in {store.name} fails its checksum; restore its copy.")
    version = Version(
        workflow_id=values["platform_id"],
        hash=values["hash"],
        settings_hash=values["settings_hash"],
        definition=values["definition"],
        platform_version=values["platform_version"],
        author=values["author"],
        created_at=datetime.fromisoformat(values["created_at"]) if values["created_at"] else None,
    )
    return Kept(workflow=values["workflow"], version=version)


def names(store: Store, app: str, version_hash: str) -> list[str]:
    """What the store holds of one version, under whatever settings."""
    return [f"{FOLDER}/{app}/{n}" for n in store.object_names(f"{FOLDER}/{app}") if n.startswith(f"{version_hash}-")]


def path(app: str, version_hash: str, settings_hash: str) -> str:
    return f"{FOLDER}/{app}/{version_hash}-{settings_hash[:SETTINGS_CHARS]}.json"


def settings(platform: Platform, version: Version) -> str:
    """The hash of what the platform keeps per workflow; a version out of a point does not carry it."""
    return version.settings_hash or platform.hashes(version.definition)[1]


def _checksum(values: Any) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
