"""Secrets in what Node-RED shows: taken out when flows are read, put back when they are written. Pure.

Credentials that a node declares as such never leave Node-RED. But many nodes keep passwords among their ordinary
properties (``postgresDB`` of *postgrestor* does), and those stand in ``GET /flows`` in the clear.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from platforms.secretish import SECRET_NAME, USERINFO

KEPT = "(kept by Node-RED)"
"""Stands in a definition for a secret: on writing, the one that Node-RED has stays."""

PAIRS = (("name", "value"), ("keyType", "valueValue"), ("keyValue", "valueValue"), ("h", "v"))
"""Lists of name and value: environment variables, headers of requests."""
REFERENCE_TYPES = ("env", "flow", "global", "msg", "jsonata", "cred", "re", "bool", "num", "date")
"""Types of a field whose text is no secret but says where it comes from."""
PLACEHOLDER = re.compile(r"\$[{(][^})]*[})]$")


def taken_out(value: Any) -> Any:
    """``value`` (a node, or part of one) with :data:`KEPT` in the place of each secret."""
    if isinstance(value, Mapping):
        pairs = {v for n, v in PAIRS if isinstance(value.get(n), str) and SECRET_NAME.search(value[n])}
        return {
            key: KEPT if _secret(key, item, value, named=key in pairs) else taken_out(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [taken_out(item) for item in value]
    if isinstance(value, str) and "://" in value:
        return USERINFO.sub(lambda m: m[0] if m["secret"].startswith("$") else m["before"] + KEPT, value)
    return value


def put_back(wanted: Any, present: Any) -> Any:
    """``wanted`` with the secrets of ``present``, the same part as Node-RED has it now (``None``: it has none, and the
    secret stays empty)."""
    if isinstance(wanted, Mapping):
        here = present if isinstance(present, Mapping) else {}
        return {key: put_back(item, here.get(key)) for key, item in wanted.items()}
    if isinstance(wanted, list):
        others = present if isinstance(present, list) else []
        return [put_back(item, _counterpart(item, index, others)) for index, item in enumerate(wanted)]
    if not isinstance(wanted, str) or KEPT not in wanted:
        return wanted
    secret = present if isinstance(present, str) else ""
    if wanted != KEPT:
        found = USERINFO.search(secret)
        return wanted.replace(KEPT, found["secret"] if found else "")
    return "" if KEPT in secret else secret


def held(node: Mapping[str, Any]) -> dict[str, bool]:
    """The secrets among a node's own properties, by name: whether there is one."""
    return {
        key: bool(value)
        for key, value in node.items()
        if SECRET_NAME.search(key) and isinstance(value, str) and not _refers(key, value, node)
    }


def without(value: Any) -> Any:
    """``value`` without secrets and the places they stand in: what counts when two definitions are compared."""
    if isinstance(value, Mapping):
        return {k: without(v) for k, v in value.items() if v != KEPT and not (v == "" and SECRET_NAME.search(k))}
    return [without(item) for item in value] if isinstance(value, list) else value


def _secret(key: str, value: Any, owner: Mapping[str, Any], *, named: bool) -> bool:
    if not isinstance(value, str) or not value or not (named or SECRET_NAME.search(key)):
        return False
    return not _refers(key, value, owner)


def _refers(key: str, value: str, owner: Mapping[str, Any]) -> bool:
    """Whether the text only names where the secret is."""
    kinds = [owner.get(f"{key}{suffix}") for suffix in ("Type", "FieldType")]
    kinds += [owner.get("type")] if key == "value" else [owner.get("valueType")] if key == "valueValue" else []
    return bool(PLACEHOLDER.match(value)) or any(kind in REFERENCE_TYPES for kind in kinds)


def _counterpart(item: Any, index: int, present: list[Any]) -> Any:
    same = next((other for other in present if taken_out(other) == item), None)
    if same is None and index < len(present):
        same = present[index]
    return same
