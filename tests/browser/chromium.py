"""A headless Chromium for the tests: Debian's own, since a test tool's own download is not to be had everywhere.

``python -m tests.browser.chromium`` makes sure that there is one (``make browser``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import BrowserContext, ViewportSize, expect, sync_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
VIEWPORT: Final[ViewportSize] = {"width": 1280, "height": 900}
PATIENCE_MS: Final = 60_000
INSTALL_S: Final = 900
FLAGS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # A page of ours that asks anybody else is refused at once, as it would be on an isolated machine.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


class NoBrowserError(Exception):
    """There is no Chromium and none could be installed. Carries the next step."""


def find() -> Path | None:
    """The browser on the PATH, if any."""
    found = next((at for name in NAMES if (at := shutil.which(name))), None)
    return Path(found) if found else None


def ensure() -> Path:
    """The browser, installed from Debian's packages when it is missing and this process may. Raises NoBrowserError."""
    if found := find():
        return found
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise NoBrowserError("browser tests: no Chromium on the PATH; run as root: apt-get install chromium")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ([apt, "update"], [apt, "install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu"]):
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise NoBrowserError(f"browser tests: `{' '.join(command)}` took over {INSTALL_S} s; try again") from None
        if done.returncode != 0:
            why = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise NoBrowserError(f"browser tests: `{' '.join(command)}` failed: {why}; install Chromium by hand")
    if found := find():
        return found
    raise NoBrowserError("browser tests: Chromium was installed but is not on the PATH; add its folder to the PATH")


@contextmanager
def browser() -> Iterator[BrowserContext]:
    """A fresh browser without a history; everything it wrote is gone afterwards."""
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else [*FLAGS]
    folder = tempfile.mkdtemp(prefix="reinstate-browser-")
    try:
        with sync_playwright() as play:
            context = play.chromium.launch_persistent_context(
                folder,
                executable_path=ensure(),
                headless=True,
                args=flags,
                viewport=VIEWPORT,
                locale="en-GB",
                timezone_id="UTC",
            )
            context.set_default_timeout(PATIENCE_MS)
            context.set_default_navigation_timeout(PATIENCE_MS)
            expect.set_options(timeout=PATIENCE_MS)  # it does not take the context's
            try:
                yield context
            finally:
                context.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Say which browser the tests will use. Exit code 1 with one line when there is none."""
    try:
        print(f"browser: {ensure()}")
    except NoBrowserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
