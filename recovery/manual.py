"""What a person starts by hand: an incident without a detector, and the names they may use."""

from __future__ import annotations

from collections.abc import Iterable

from catalog.errors import CatalogError
from incidents import record
from recovery.context import AppContext


def known_workflows(ctx: AppContext, keys: Iterable[str]) -> None:
    """Raises when a key is not in the catalogue, naming those that are."""
    known = {w.key for w in ctx.app.workflows}
    if unknown := sorted(set(keys) - known):
        raise CatalogError(
            f"workflow {', '.join(unknown)}: not in the catalogue of app {ctx.app.key}, which holds "
            f"{', '.join(sorted(known))}; correct the name"
        )


def open_incident(ctx: AppContext, workflows: list[str], reason: str) -> str:
    """Join the open incident, or open one on a person's word."""
    return record.open_incident(
        ctx.ledger, app=ctx.app.key, severity="sev2", title=reason, impact="", workflows=workflows, by="operator"
    ).id
