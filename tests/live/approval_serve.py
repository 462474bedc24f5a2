"""Serve that flow as `reinstate up` serves the real one: one deployment, one run at a time, a process per run."""

from __future__ import annotations

import asyncio

from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from tests.live import approval_flow


async def serve() -> None:
    runner = Runner(name="kiosk", query_seconds=1, pause_on_shutdown=False, limit=None)
    made = RunnerDeployment.from_flow(
        approval_flow.recover,
        name="kiosk",
        parameters={"app": "kiosk", "catalog": "unused"},
        concurrency_limit=1,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made.entrypoint = "tests.live.approval_flow.recover"
    print(await runner.aadd_deployment(made), flush=True)
    await runner.start()


if __name__ == "__main__":
    asyncio.run(serve())
