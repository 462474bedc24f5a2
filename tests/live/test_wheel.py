"""What users install: the wheel, in an environment that has only what the wheel declares, far from the checkout."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from drills.needed import shortfalls

pytestmark = [pytest.mark.live, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
HELP_S = 0.5
"""The promise for `reinstate --help`."""
LOADS = """
import sys
from prefect.flows import load_flow_from_entrypoint
for entrypoint in sys.argv[1:]:
    print(load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False).name)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder outside the checkout and outside pytest's own, which PostgreSQL's user could not enter."""
    with tempfile.TemporaryDirectory(prefix="reinstate-wheel-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """Built from a copy of the checkout without what a developer's tree gathers."""
    source = place / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".venv", ".git", "*cache*", "__pycache__", "dist"))
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=source, check=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, place: Path) -> Path:
    """The ``bin`` folder of an environment with the wheel and what it declares, in the versions of the lock."""
    lock = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [line.split(" ")[0] for line in lock if "==" in line and not line.startswith((" ", "#"))]
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join(pins), "utf-8")
    environment = place / "environment"
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(constraints), f"{wheel}[estate]"], cwd=place, check=True)
    return environment / "bin"


def run(
    command: list[str | Path], place: Path, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it in the empty folder, with nothing of ours in the environment."""
    kept = {k: os.environ[k] for k in ("PATH", "HOME", "LANG", "REINSTATE_CACHE") if k in os.environ}
    return subprocess.run(
        [str(c) for c in command],
        cwd=place,
        env={**kept, "DO_NOT_TRACK": "1", **(more or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )


def test_it_holds_all_rooms_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"console", "flows", "drills", "recovery", "incidents", "examples", "estate"} <= tops
    assert not tops & {"tests", "docs", "benchmarks"}
    templates = {p.name for p in ROOT.glob("*/**/templates/*") if ".venv" not in p.parts}
    assert templates
    assert templates <= {Path(name).name for name in names}


def test_help_answers_at_once(installed: Path, place: Path) -> None:
    took = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = run([installed / "reinstate", "--help"], place)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert ran.returncode == 0, ran.stderr
        assert "recover" in ran.stdout
    assert min(took) <= HELP_S, took


def test_every_entrypoint_loads(installed: Path, place: Path) -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    entrypoints = sorted({d["entrypoint"] for d in deployments})
    ran = run([installed / "python", "-c", LOADS, *entrypoints], place, {"PREFECT_HOME": str(place / "prefect")})
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.split()) == len(entrypoints)


def test_the_demo_runs(installed: Path, place: Path) -> None:
    figures = place / "demo.json"
    ran = run(
        [installed / "reinstate", "demo", "--down", "--report", place / "report.html"],
        place,
        {"REINSTATE_HOME": str(place / "home"), "DEMO_JSON": str(figures)},
    )
    found = json.loads(figures.read_text("utf-8"))
    # How fast it contains is measured where nothing else runs, by the one loop of `make test`.
    assert shortfalls({**found, "contain_s": 0.0}) == [], ran.stdout + ran.stderr
    assert ran.returncode == 0 or found["contain_s"] > 3
