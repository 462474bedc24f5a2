"""Which adapter serves which kind of platform. Vendor modules are imported only when used."""

from __future__ import annotations

from collections.abc import Callable

from platforms.base import Permanent, Platform


def _n8n(url: str, api_key: str) -> Platform:
    from platforms.n8n import N8n

    return N8n(url, api_key)


def _directus(url: str, api_key: str) -> Platform:
    from platforms.directus import Directus

    return Directus(url, api_key)


def _node_red(url: str, api_key: str) -> Platform:
    from platforms.node_red import NodeRed

    return NodeRed(url, api_key)


FACTORIES: dict[str, Callable[[str, str], Platform]] = {"directus": _directus, "n8n": _n8n, "node-red": _node_red}


def open_platform(kind: str, url: str, api_key: str) -> Platform:
    """The platform of ``kind`` at ``url``. Connects lazily. Raises ``Permanent`` for a kind without an adapter."""
    factory = FACTORIES.get(kind)
    if factory is None:
        raise Permanent(f"platform {kind}: there is no adapter for it; use one of {', '.join(sorted(FACTORIES))}")
    return factory(url, api_key)
