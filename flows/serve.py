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
from uuid import UUID

import psutil
import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH
from prefect.runner import Runner
from prefect.settings import PREFECT_HOME
from prefect.states import Cancelled, Crashed

from catalog.load import load
from catalog.models import App
from flows import deployments

END_RUNS_S: Final = 5.0
END_S: Final = 3.0
POLL_S: Final = 1.0
AT_WORK: Final = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
GONE: Final = "its process ended without a word; a recovery that had begun is continued by another run"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Raises ``catalog.errors.CatalogError`` before anything is deployed."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description="Serve the flows of a catalogue.")
    parser.add_argument("--catalog", type=Path, required=True, help="a YAML file or a folder with one")
    catalog = parser.parse_args(arguments).catalog.absolute()
    os.environ["REINSTATE_CATALOG"] = str(catalog)  # the runs inherit it
    os.environ["PREFECT_LOGGING_SETTINGS_PATH"] = str(plain_console(PREFECT_HOME.value()))
    asyncio.run(serve(load(catalog).apps, catalog))
    return 0


def plain_console(folder: Path) -> Path:
    """Logging settings for the runs. Prefect's own console ends its process when nobody reads its pipe any more, and
    with it a recovery that could have outlived the server which started it."""
    settings = yaml.safe_load(DEFAULT_LOGGING_SETTINGS_PATH.read_text("utf-8"))
    console = settings["handlers"]["console"]
    console["class"] = "logging.StreamHandler"
    console.pop("styles", None)
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "reinstate-logging.yml"
    made.write_text(yaml.safe_dump(settings), "utf-8")
    return made


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
    numbers = []
    async with get_client() as client:
        for app in apps:
            choices = deployments.choices(app)
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
                numbers.append(number)
                if name == "recover":
                    await deployments.automate(client, app.key, number)
        await bury(client, numbers)
    say(f"serving {', '.join(deployments.flows())} of {', '.join(keys)}")
    if ready := os.environ.get("REINSTATE_READY_FILE"):
        Path(ready).write_text("serving\n", encoding="utf-8")


async def bury(client: PrefectClient, numbers: Sequence[UUID]) -> None:
    """Give runs whose process is gone a state that says so, which frees their place. A run whose process outlived the
    server that started it goes on."""
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=list(numbers)),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(AT_WORK))),
        )
    )
    here = runs_here() if runs else set()
    for run in runs:
        if run.work_pool_name is None and str(run.id) not in here and run.state is not None:
            ended = Cancelled if run.state.is_cancelling() else Crashed
            await client.set_flow_run_state(run.id, ended(message=GONE), force=True)
            say(f"run {run.name}: {GONE}")


def runs_here() -> set[str]:
    """The runs that have a process on this machine."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
    return found


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
