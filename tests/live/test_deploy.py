"""`prefect deploy --all` works on the estate's Prefect server, automation included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RunningEstate

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

    def prefect(*arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", *arguments]
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    prefect("work-pool", "create", "reinstate", "--type", "process", "--overwrite")
    prefect("--no-prompt", "deploy", "--all")
    assert "recover__automation_1" in prefect("automation", "ls")
