"""Full copies over several machines: one Prefect task per piece on a Dask cluster.

The workers stage chunks in the store; the session that holds the snapshot waits for them and publishes the point. A
worker opens the app by its catalogue, so the catalogue and the secrets must be where the worker runs: nothing secret
travels with a task.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.recover import retryable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect.task_runners import TaskRunner

    from snapshots.capture.pieces import Piece, Runner
    from snapshots.model import Chunk

ADDRESS: Final = "REINSTATE_DASK"
"""Environment variable with the address of a Dask scheduler; without it a cluster of processes is started here."""


@task(
    name="copy",
    task_run_name="copy a piece of {table}",
    retries=2,
    retry_delay_seconds=[1, 3],
    retry_condition_fn=retryable,
    persist_result=False,
    cache_policy=NO_CACHE,
)
def copy(catalog: str, app: str, snapshot: str, piece: Piece, table: str) -> tuple[Chunk, ...]:  # noqa: ARG001 - for its name
    """Read one piece on the exported snapshot into the store. Runs on any worker that reaches both."""
    from recovery.context import open_app
    from snapshots.capture import pieces
    from snapshots.capture.reader import Reader

    with open_app(Path(catalog), app) as ctx, Reader(ctx.dsn("capturer"), snapshot) as reader:
        return pieces.copy(reader, piece, ctx.store)


def runner(catalog: str, app: str, *, workers: int) -> Runner:
    """What stages pieces as tasks on the cluster at ``$REINSTATE_DASK``, or on ``workers`` processes of its own."""

    def run(snapshot: str, pieces: Sequence[Piece]) -> list[tuple[Chunk, ...]]:
        with _cluster(workers) as cluster:
            waiting = [
                cluster.submit(
                    copy,
                    {"catalog": catalog, "app": app, "snapshot": snapshot, "piece": piece, "table": piece.table},
                )
                for piece in pieces
            ]
            return [future.result() for future in waiting]

    return run


def _cluster(workers: int) -> TaskRunner[Any]:
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        from recovery.errors import RecoveryError

        raise RecoveryError("capture: runner dask needs an extra; run: pip install 'reinstate[dask]'") from error
    if address := os.environ.get(ADDRESS):
        return DaskTaskRunner(address=address)
    local = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=local)
