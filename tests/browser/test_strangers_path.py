"""Somebody who never saw the code: README, a clean clone, one command, and the app is back. Timed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Page, expect

from tests.browser import strangers
from tests.browser.pages import Prefect, until
from tests.live import service

pytestmark = [pytest.mark.live, pytest.mark.browser, pytest.mark.timeout(1800)]

MADE_S: Final = 1200.0
"""Most of it is what `make` installs."""
CONTAINED_S: Final = 240.0
PLAN_S: Final = 240.0
RECOVER_S: Final = 300.0
JUDGED_S: Final = 180.0
STOP_S: Final = 60.0
PREFECT: Final = re.compile(r"Prefect\s+(http://\S+)")


class Terminal:
    """A shell in the clone that runs what README says, one command after the other; its output is kept."""

    def __init__(self, commands: tuple[str, ...], *, cwd: Path, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["/bin/bash", "-c", "set -e\n" + "\n".join(commands)],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def shown(self) -> str:
        return self.log.read_text(errors="replace")

    def await_words(self, pattern: str, *, seconds: float) -> str:
        """Until it shows this. Returns what matched."""
        compiled = re.compile(pattern)
        deadline = time.monotonic() + seconds
        while not (found := compiled.search(self.shown())):
            assert self.process.poll() is None, f"it ended: {self.shown()[-3000:]}"
            assert time.monotonic() < deadline, f"no {pattern} in {seconds:.0f} s: {self.shown()[-3000:]}"
            time.sleep(0.5)
        return found[0]

    def interrupt(self) -> int:
        """Ctrl-C: every process of the terminal gets it. Returns the exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(STOP_S)

    def close(self) -> None:
        """Whatever a failed test left."""
        try:
            self.interrupt()
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Outside pytest's folders: PostgreSQL's own user must be able to reach it."""
    made = Path(tempfile.mkdtemp(prefix="reinstate-stranger-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def test_a_stranger_brings_the_app_back_with_readme_and_a_browser(
    folder: Path, page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = strangers.clone(folder)
    told = strangers.read((clone / "README.md").read_text())
    assert told.first == ("make up",)
    assert [c for c in told.second if "reinstate" in c] == ["reinstate password", "reinstate wreck"]
    home = folder / "home"
    home.mkdir(mode=0o755)
    environment = strangers.environment(home)
    began = time.monotonic()
    up = Terminal(told.first, cwd=clone, environment=environment, log=folder / "up.log")
    wreck = None
    try:
        up.await_words("Everything runs", seconds=MADE_S)
        address = PREFECT.search(up.await_words(PREFECT.pattern, seconds=30))
        up.await_words("Ctrl-C", seconds=30)
        runs = time.monotonic()
        wreck = Terminal(told.second, cwd=clone, environment=environment, log=folder / "wreck.log")
        wreck.await_words("is contained", seconds=CONTAINED_S)
        assert address is not None
        recover(Prefect(page=page, url=address[1]), password(wreck.shown()))
        recovered = time.monotonic()
        assert wreck.process.wait(JUDGED_S) == 0, wreck.shown()[-3000:]
        assert "the app is right again" in wreck.shown()
        with capsys.disabled():
            print(f"\nmake up: {runs - began:.0f} s; recovered {recovered - began:.0f} s after the first command")
        up.interrupt()
        assert "everything is stopped" in up.shown(), up.shown()[-3000:]
    finally:
        for terminal in (wreck, up):
            if terminal is not None:
                terminal.close()
    left = [line for line in service.left(folder) if "pytest" not in line]
    assert left == []


def password(shown: str) -> str:
    """What `reinstate password` printed: it stands in a line of its own, before the wreck's story."""
    line = next(line.strip() for line in shown.splitlines() if line.strip())
    return line if ":" in line else f"operator:{line}"


def recover(prefect: Prefect, credentials: str) -> None:
    """As README says: the run that waits, its plan, Resume, approve, watch."""
    prefect.open()
    prefect.sign_in(credentials)
    assert prefect.signed_in()

    def waits() -> bool:
        prefect.page.get_by_role("link", name="Runs", exact=True).first.click()
        return "recover order-desk both" in prefect.page.get_by_role("main").inner_text()

    until("the run that waits", waits, seconds=PLAN_S)
    run = prefect.newest_run("recover order-desk both")
    run.await_state("Suspended", seconds=PLAN_S)
    run.await_card("order-desk-plan", seconds=90)
    with run.artifact("order-desk-plan") as plan:
        expect(plan).to_contain_text("What will happen")
    form = run.resume()
    form.decide("approve", by="A stranger", reason="README says so")
    form.confirm()
    run.await_state("Recovered", seconds=RECOVER_S)
