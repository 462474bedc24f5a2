"""Great Expectations suites over an app's tables, on one snapshot: a fast gate first, details for what failed.

The gate runs every expectation ``BOOLEAN_ONLY``; only what failed runs again for counts and keys. The second pass asks
for ``SUMMARY`` with key columns rather than ``COMPLETE``, which would load every violating row; queries of unexpected
rows run ``COMPLETE``, where Great Expectations itself bounds them.
Great Expectations takes seconds to import, so only functions import it; :func:`warm` does so in the background.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from checks.errors import SuiteBroken
from checks.model import ExpectationResult, SuiteReport
from checks.snapshot_engine import opener, pin, snapshot_of
from checks.suite_files import SuiteFile, read

KEYS_PER_EXPECTATION = 20
TIMEOUT_S = 300.0
ROWS_QUERY = "unexpected_rows_expectation"
NUMBER = "reinstate_number"


def warm() -> threading.Thread:
    """Import Great Expectations in a background thread, so that the first :func:`run` need not wait for it."""
    thread = threading.Thread(target=_library, name="warm-great-expectations", daemon=True)
    thread.start()
    return thread


def run(
    dsn: str,
    folder: Path,
    *,
    tables: Sequence[str] | None = None,
    snapshot: str | None = None,
    gate_first: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> SuiteReport:
    """Run the suites in ``folder`` (those over ``tables``, if given) as the role of ``dsn``: reading is enough.

    ``snapshot`` is an exported snapshot whose exporter is still open; without one, a fresh snapshot is taken, so the
    suites agree among themselves. ``timeout_s`` bounds each query. ``gate_first=False`` asks for details at once.
    Raises ``SuiteBroken`` if anything cannot run, and ``psycopg.OperationalError`` if the database is out of reach.
    """
    started = time.monotonic()
    suites = [s for s in read(Path(folder)) if tables is None or s.table in tables]
    if not suites:
        raise SuiteBroken(f"suites in {folder}: none is about {', '.join(tables or ())}. Add one; nothing was checked")
    keys = _keys(dsn, suites)
    failed: list[ExpectationResult] = []
    ran = 0
    with _quiet(), snapshot_of(dsn, snapshot) as pinned, opener(dsn, timeout_s) as connect:
        source = _source(connect, pinned)
        for suite in suites:
            results = _run_suite(source, suite, keys[suite.table], gate_first=gate_first)
            ran += len(results)
            failed.extend(r for r in results if not r.success)
    if ran == 0:
        raise SuiteBroken(f"suites in {folder}: no expectation ran, which proves nothing. Check the suites")
    return SuiteReport(
        passed=not failed, ran=ran, failed=tuple(failed), seconds=time.monotonic() - started, snapshot=snapshot
    )


def _library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations

    # What it logs as errors is raised here as SuiteBroken; once is enough.
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
    return great_expectations


@contextmanager
def _quiet() -> Iterator[None]:
    """Great Expectations warns of its own deprecations; none of them is about what it finds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _source(connect: Callable[[], psycopg.Connection], snapshot: str) -> Any:
    gx = _library()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_postgres(
        "app",
        # Only the dialect counts: `creator` connects, and keeps the password out of the configuration.
        connection_string="postgresql+psycopg://reader@app/app",
        create_temp_table=False,
        kwargs={"creator": connect},
    )
    for engine in (source.get_engine(), source.get_execution_engine().engine):
        engine.dispose()  # the connection test began a transaction outside the snapshot
        pin(engine, snapshot)
    return source


def _run_suite(source: Any, suite: SuiteFile, key: tuple[str, ...], *, gate_first: bool) -> list[ExpectationResult]:
    batch = _batch(source, suite)
    numbers = list(range(len(suite.expectations)))
    found: dict[int, Any] = {}
    if gate_first:
        found = _validate(batch, suite, numbers, {"result_format": "BOOLEAN_ONLY"})
        numbers = [i for i in numbers if not found[i].success]
    queries = [i for i in numbers if suite.expectations[i]["type"] == ROWS_QUERY]
    others = [i for i in numbers if i not in queries]
    found |= _validate(batch, suite, queries, {"result_format": "COMPLETE"})
    found |= _validate(batch, suite, others, _details(key))
    return [_result(suite, found[i], key) for i in sorted(found)]


def _batch(source: Any, suite: SuiteFile) -> Any:
    schema, table = suite.table.split(".")
    try:
        asset = source.add_table_asset(suite.name, table_name=_exact(table), schema_name=_exact(schema))
        return asset.add_batch_definition_whole_table("all").get_batch()
    except Exception as error:  # noqa: BLE001 - the library raises many types; each is passed on in one line
        _raise_if_lost(error)
        raise SuiteBroken(f"suite {suite.file}: table {suite.table}: {_first(error)}. "
                          "Correct the table's name, or grant the reading role SELECT on it") from None  # fmt: skip


def _exact(name: str) -> str:
    """Great Expectations folds unquoted names to lower case."""
    return name if name == name.lower() else f'"{name}"'


def _details(key: tuple[str, ...]) -> dict[str, Any]:
    return {
        "result_format": "SUMMARY",
        "partial_unexpected_count": KEYS_PER_EXPECTATION,
        "return_unexpected_index_query": False,
        **({"unexpected_index_column_names": list(key)} if key else {}),
    }


def _validate(batch: Any, suite: SuiteFile, numbers: Sequence[int], result_format: dict[str, Any]) -> dict[int, Any]:
    """Results of the numbered expectations. Together, so that Great Expectations bundles their queries."""
    if not numbers:
        return {}
    content = _content(suite, numbers)
    try:
        results = batch.validate(content, result_format=result_format).results
    except Exception as error:  # noqa: BLE001 - the library raises many types; each is passed on in one line
        _raise_if_lost(error)
        raise SuiteBroken(f"suite {suite.file}: {_first(error)}. Correct the suite, or the table it reads") from None
    for result in results:
        if raised := list(_exceptions(result.exception_info or {})):
            raise SuiteBroken(
                f"suite {suite.file}: {result.expectation_config.type} cannot run on {suite.table}: "
                f"{_first(raised[0])}. Correct the suite, or the table it reads"
            )
    found = {result.expectation_config.meta[NUMBER]: result for result in results}
    if set(found) != set(numbers):
        raise SuiteBroken(f"suite {suite.file}: {len(numbers) - len(found)} expectations gave no result. Run it again")
    return found


def _content(suite: SuiteFile, numbers: Sequence[int]) -> Any:
    """The numbered expectations as a suite; the number travels along, since results come back in another order."""
    gx = _library()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    expectations = []
    for i in numbers:
        item = suite.expectations[i]
        numbered = {**item, "meta": {**(item.get("meta") or {}), NUMBER: i}}
        try:
            # Given as a mapping to ExpectationSuite, a faulty one would be dropped with nothing but a log line.
            expectations.append(ExpectationConfiguration(**numbered).to_domain_obj())
        except Exception as error:  # noqa: BLE001 - any refusal of the content means the same: the file is wrong
            raise SuiteBroken(
                f"suite {suite.file}: expectations[{i}] {item['type']}: {_first(error)}. Correct the file"
            ) from None
    return gx.ExpectationSuite(name=suite.name, expectations=expectations)


def _exceptions(info: dict[str, Any]) -> Iterator[str]:
    """Messages of what was raised: one flat entry, or one per metric."""
    entries: Iterable[Any] = info.values() if all(isinstance(v, dict) for v in info.values()) else [info]
    for entry in entries:
        if entry.get("raised_exception") not in (None, False, "False"):
            yield str(entry.get("exception_message"))


def _result(suite: SuiteFile, result: Any, key: tuple[str, ...]) -> ExpectationResult:
    content: dict[str, Any] = dict(result.result or {})
    rows = content.get("details", {}).get("unexpected_rows") or content.get("partial_unexpected_index_list") or []
    unexpected = content.get("unexpected_count", content.get("observed_value"))
    config = result.expectation_config
    columns = [str(config.kwargs[k]) for k in ("column", "column_A", "column_B", "column_list") if k in config.kwargs]
    detail = "" if result.success else f"{suite.table}: {config.type}" + (f"({', '.join(columns)})" if columns else "")
    if detail and isinstance(unexpected, int):
        detail += f" broken by {unexpected} rows"
    return ExpectationResult(
        suite=suite.name,
        table=suite.table,
        expectation=config.type,
        success=bool(result.success),
        unexpected=unexpected if isinstance(unexpected, int) else None,
        keys=tuple(
            tuple(str(row[k]) for k in key) for row in rows[:KEYS_PER_EXPECTATION] if key and set(key) <= set(row)
        ),
        detail=detail,
    )


def _keys(dsn: str, suites: Sequence[SuiteFile]) -> dict[str, tuple[str, ...]]:
    """Primary key columns by table; empty without one."""
    query = """
        SELECT coalesce(array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum)), '{}')
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[])
        WHERE n.nspname = %s AND c.relname = %s"""
    with psycopg.connect(dsn, application_name="reinstate suites", autocommit=True) as connection:
        found = {}
        for suite in suites:
            row = connection.execute(query, suite.table.split(".")).fetchone()
            found[suite.table] = tuple(row[0]) if row else ()
    return found


def _raise_if_lost(error: BaseException) -> None:
    """Losing the database says nothing about a suite; it is passed on as what it is, to be tried again."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, psycopg.OperationalError) and not isinstance(seen, psycopg.errors.QueryCanceled):
            raise seen
        seen = getattr(seen, "orig", None) or getattr(seen, "cause", None) or seen.__cause__


def _first(error: object) -> str:
    """The first telling line of a library's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
