"""``python -m flows.serve --catalog DIR``: serve every flow of every app from this one process.

Each run is a process of its own. On SIGTERM the runs are ended first; what they were doing is on record, so that a
recovery goes on at the next start.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
from prefect.client.orchestration import get_client
from prefect.runner import Runner

from catalog.load import load
from catalog.models import App
from flows import deployments

END_RUNS_S: Final = 5.0
END_S: Final = 3.0
POLL_S: Final = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Raises ``catalog.errors.CatalogError`` before anything is deployed."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description="Serve the flows of a catalogue.")
    parser.add_argument("--catalog", type=Path, required=True, help="a YAML file or a folder with one")
    catalog = parser.parse_args(arguments).catalog.absolute()
    os.environ["REINSTATE_CATALOG"] = str(catalog)  # the runs inherit it
    asyncio.run(serve(load(catalog).apps, catalog))
    return 0


async def serve(apps: Sequence[App], catalog: Path) -> None:
    """Deploy, then run what is scheduled or asked for."""
    runner = Runner(name="reinstate", query_seconds=POLL_S, pause_on_shutdown=False, limit=None)
    await deploy(runner, apps, catalog)
    stopping = asyncio.Event()
    running = asyncio.create_task(runner.start())
    await asyncio.sleep(0)  # the runner sets a handler of its own first, which would cancel the runs for good
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
        return
    await end_runs()
    running.cancel()
    with suppress(asyncio.CancelledError, TimeoutError):
        await asyncio.wait_for(running, END_S)


async def deploy(runner: Runner, apps: Sequence[App], catalog: Path) -> None:
    """Bring the server's deployments up to date and take their runs."""
    keys = [app.key for app in apps]
    async with get_client() as client:
        for app in apps:
            choices = deployments.choices(app.key)
            for name, flow in deployments.flows().items():
                made = deployments.deployment(
                    name,
                    flow,
                    app,
                    catalog,
                    schema=deployments.form(flow, app, keys, choices),
                    known=await deployments.find(client, name, app.key),
                )
                number = await runner.aadd_deployment(made)
                if name == "recover":
                    await deployments.automate(client, app.key, number)
    say(f"serving {', '.join(deployments.flows())} of {', '.join(keys)}")
    if ready := os.environ.get("REINSTATE_READY_FILE"):
        Path(ready).write_text("serving\n", encoding="utf-8")


async def end_runs() -> None:
    """Ask the runs' processes to end, and kill those that do not: their state is in the ledger."""
    children = psutil.Process().children()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    for _ in range(int(END_RUNS_S / 0.1)):
        if not any(alive(child) for child in children):
            break
        await asyncio.sleep(0.1)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    if children:
        await asyncio.sleep(0.5)  # the runner reports how they ended


def alive(child: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    return False


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
