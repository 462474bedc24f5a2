"""Suites as they lie on disk: one JSON file per suite, native Great Expectations types over one table.

``{"name": "orders", "table": "public.orders", "expectations": [{"type": "expect_column_values_to_not_be_null",
"kwargs": {"column": "total"}}, ...]}``

In the query of an ``unexpected_rows_expectation``, ``{batch}`` stands for the table. Great Expectations 1.24 gives it
the alias ``subselect``, but none as soon as the query contains ``JOIN``; then write ``{batch} AS o``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks.errors import SuiteBroken

NEXT = "Correct the file; nothing counts as passed until it runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteFile:
    """One suite. ``expectations`` are ``{"type", "kwargs"}`` mappings, at least one."""

    file: Path
    name: str
    table: str
    expectations: tuple[dict[str, Any], ...]


def read(folder: Path) -> tuple[SuiteFile, ...]:
    """All suites in ``folder``, by file name. Raises ``SuiteBroken`` when there is none or one is malformed."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise SuiteBroken(f"suites in {folder}: no *.json file there. Point `suites:` at the folder that holds them")
    suites = tuple(_read(file) for file in files)
    seen: dict[str, Path] = {}
    for suite in suites:
        if suite.name in seen:
            raise SuiteBroken(f"suite {suite.file}: its name {suite.name!r} is also that of {seen[suite.name].name}. "
                              "Rename one of them")  # fmt: skip
        seen[suite.name] = suite.file
    return suites


def _read(file: Path) -> SuiteFile:
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise SuiteBroken(f"suite {file}:{error.lineno}: not valid JSON: {error.msg}. {NEXT}") from None
    except (OSError, ValueError) as error:
        raise SuiteBroken(f"suite {file}: {error}. {NEXT}") from None
    if not isinstance(content, dict):
        raise SuiteBroken(f"suite {file}: not a JSON object. {NEXT}")
    name, table, expectations = (content.get(k) for k in ("name", "table", "expectations"))
    if not isinstance(name, str) or not name:
        raise SuiteBroken(f"suite {file}: `name` is missing. {NEXT}")
    if not isinstance(table, str) or len(table.split(".")) != 2 or not all(table.split(".")):
        raise SuiteBroken(f"suite {file}: `table` must be schema.table. {NEXT}")
    if not isinstance(expectations, list) or not expectations:
        raise SuiteBroken(f"suite {file}: it holds no expectations, so it proves nothing. Add one, or delete the file")
    for i, item in enumerate(expectations):
        if not (isinstance(item, dict) and isinstance(item.get("type"), str) and isinstance(item.get("kwargs"), dict)):
            raise SuiteBroken(f"suite {file}: expectations[{i}] needs `type` and `kwargs`. {NEXT}")
    return SuiteFile(
        file=file,
        name=name,
        table=table,
        # Ids are the platform's of their author and mean nothing here.
        expectations=tuple({k: v for k, v in item.items() if k != "id"} for item in expectations),
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a key is given twice among {', '.join(sorted(k for k, _ in pairs))}")
    return found
