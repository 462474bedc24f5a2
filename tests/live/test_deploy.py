"""`prefect deploy --all` works on the estate's Prefect server, automation included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import deployments
from tests.conftest import RunningEstate
from tests.live.service import Prefect

ROOT = Path(__file__).parents[2]


@pytest.mark.live
def test_every_deployment_deploys(estate: RunningEstate, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_API_URL": estate.addresses.prefect_api_url,
        "PREFECT_API_AUTH_STRING": estate.addresses.prefect_auth,
        "DO_NOT_TRACK": "1",
    }

    def prefect(*arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", *arguments]
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    prefect("work-pool", "create", "reinstate", "--type", "process", "--overwrite")
    prefect("--no-prompt", "deploy", "--all")
    with Prefect(estate.home) as server:
        found = server.post("/deployments/filter", {})
        for deployment in found:
            server.ask("DELETE", f"/deployments/{deployment['id']}")
        automations = server.post("/automations/filter", {})
    assert {d["entrypoint"] for d in found} == {f"flows.{name}.{name}" for name in deployments.NAMES}
    assert all(d["name"] == "order-desk" and d["description"] and "reinstate" in d["tags"] for d in found)
    assert all(d["global_concurrency_limit"]["limit"] == 1 for d in found)
    assert sorted(s["slug"] for d in found for s in d["schedules"] if s["active"]) == ["drill", "maintain", "protect"]
    assert [a["name"] for a in automations] == [deployments.automation_name("order-desk")]
