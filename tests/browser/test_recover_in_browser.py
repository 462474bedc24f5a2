"""An operator recovers the wrecked order desk in Prefect's pages, with nothing but a browser.

Everything is real: `reinstate up`, n8n, PostgreSQL, the wreck by `reinstate wreck` and its independent judge.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from drills.n8n_api import N8nApi
from drills.order_desk import EXAMPLE
from estate import Estate, secrets
from incidents import record
from ledger import Ledger, kinds
from tests.browser.pages import Camera, Prefect, Run, until
from tests.browser.wrecked import right, wrecked
from tests.live import service

pytestmark = [pytest.mark.live, pytest.mark.browser, pytest.mark.timeout(1800)]

APP = service.APP
NAME = f"recover {APP} both"
PLAN_S = 240.0
RECOVER_S = 300.0
EXPIRES_S = 90
PAUSED = {"Order intake", "Payment", "Status change"}
MAIL = re.compile(r"[\w.]+@[\w.]+\.\w+")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Everything at work, in a home of its own; PostgreSQL's own user must be able to reach it."""
    made = Path(tempfile.mkdtemp(prefix="reinstate-seen-"))
    try:
        with service.up(made):
            yield made
    finally:
        shutil.rmtree(made)


@pytest.fixture
def prefect(home: Path, page: Page) -> Prefect:
    """Prefect's sign-in page."""
    seen = Prefect(page=page, url=Estate(home).addresses().prefect_api_url.removesuffix("/api"))
    seen.open()
    return seen


def credentials(home: Path) -> str:
    return secrets.read(home / secrets.FILE)["PREFECT_AUTH"]


def ledger(home: Path) -> Ledger:
    return Ledger(home / "ledger.sqlite")


def still_contained(home: Path) -> bool:
    """Whether the app is as the watcher left it: an incident is open, and what writes wrong rows is paused."""
    at = Estate(home).addresses()
    with N8nApi(at.n8n_url, at.n8n_api_key) as api:
        paused = {w["name"] for w in api.workflows() if not w["active"]}
    incident = record.find_open(ledger(home), APP)
    return paused >= PAUSED and incident is not None and incident.status.value == "contained"


def begun(home: Path) -> int:
    """How many recoveries were ever started."""
    return len(list(ledger(home).entries(kinds=[kinds.RECOVERY_STARTED])))


def start(prefect: Prefect, **fields: str) -> Run:
    """Fill in the form of `recover`, submit it, and wait for its plan."""
    prefect.open_deployment("recover", APP)
    form = prefect.custom_run()
    for label, text in fields.items():
        form.write(label, text)
    run = prefect.submit()
    run.await_state("Suspended", seconds=PLAN_S)
    return run


def approve(run: Run, *, by: str) -> None:
    form = run.resume()
    form.decide("approve", by=by, reason="the plan fits the damage")
    form.confirm()
    run.await_state("Recovered", seconds=RECOVER_S)


def test_an_operator_recovers_the_app(home: Path, prefect: Prefect, camera: Camera, tmp_path: Path) -> None:
    page = prefect.page
    user, _, password = credentials(home).partition(":")
    with wrecked(home, tmp_path) as wreck:
        camera.shoot(page, "sign-in")
        prefect.sign_in(f"{user}:a guess")
        assert prefect.refusal().is_visible()
        assert not prefect.signed_in()
        prefect.sign_in(f"{user}:{password}")
        assert ("recover", APP) in prefect.deployments()
        camera.shoot(page, "deployments")
        wreck.await_contained()

        prefect.open_deployment("recover", APP)
        form = prefect.custom_run()
        assert form.labels()[:4] == ["App", "What comes back", "Rows in conflict", "Recovery point"]
        assert all(form.help(label) for label in form.labels())
        assert form.chosen("Rows in conflict") == "refuse"
        assert form.choose("App", APP) == [APP]
        assert form.choose("What comes back", "both") == ["both", "logic", "data"]
        assert form.choose("Recovery point", "automatic")[0] == "automatic"
        camera.shoot(page, "form")
        run = prefect.submit()
        run.await_state("Suspended", seconds=PLAN_S)
        assert re.fullmatch(rf"{NAME} #\d+", run.name())
        run.await_log("Resume")

        run.await_card(f"{APP}-plan", seconds=90)
        with run.artifact(f"{APP}-plan") as plan:
            expect(plan).to_contain_text("Nothing has been changed yet")
            expect(plan).to_contain_text("desk.orders")
            assert not MAIL.search(plan.inner_text()), "values of rows have no place here"
            camera.shoot(page, "plan")
        assert still_contained(home)
        approval = run.resume()
        assert service.plan_hash(home)[:12] in approval.text()
        assert approval.labels()[:3] == ["Decision", "Your name", "Reason"]
        approval.press()  # without a decision: nothing happens
        until("a refusal", lambda: "required" in approval.notice(), seconds=60, instead=approval.notice)
        approval.decide("approve", by="Ada Byron", reason="the plan fits the damage")
        until("the notice goes", lambda: "required" not in approval.notice(), seconds=60, instead=approval.notice)
        approval.to_the_end()
        camera.shoot(page, "approval")
        approval.confirm()

        run.await_card(f"{APP}-progress", seconds=180)
        run.await_log("Replay", seconds=120)
        camera.shoot(page, "progress")
        run.await_state("Recovered", seconds=RECOVER_S)
        run.await_log("Logic and data agree")
        run.settle()
        camera.shoot(page, "recovered")
        with run.artifact(f"{APP}-report") as report:
            expect(report).to_contain_text("Recovered")
        read_report(home, prefect, camera)
        right(wreck.verdict())


def read_report(home: Path, prefect: Prefect, camera: Camera) -> None:
    """On the pages, behind the same password."""
    page = prefect.page
    incident = next(reversed(record.fold(ledger(home).entries(app=APP, kinds=record.FOLDED))))
    pages = Estate(home).memory.port("pages")
    page.goto(f"http://{credentials(home)}@127.0.0.1:{pages}/reports/{incident}.html")
    text = page.locator("body").inner_text()
    assert incident in text
    assert "back at work" in text
    camera.shoot(page, "report")


def test_a_plan_that_is_rejected_or_too_old_does_not_run(
    home: Path, prefect: Prefect, camera: Camera, tmp_path: Path
) -> None:
    prefect.sign_in(credentials(home))
    with wrecked(home, tmp_path) as wreck:
        wreck.await_contained()
        before = begun(home)
        until("a run that started by itself", lambda: automatic(prefect), seconds=PLAN_S)
        run = prefect.newest_run(NAME)
        run.await_state("Suspended", seconds=PLAN_S)
        no = run.resume()
        no.decide("reject", by="Ada Byron", reason="I want to look at it by daylight")
        no.confirm()
        run.await_state("Rejected", seconds=120)
        assert not run.can_resume()
        run.await_log("Ada Byron rejected its plan (I want to look at it by daylight)")
        run.await_log("the app stays paused and fenced: start `recover` for another plan")
        assert "Traceback" not in run.log(newest_first=True)
        camera.shoot(prefect.page, "rejected")
        assert still_contained(home)

        late = start(prefect, **{"Catalogue (leave as it is)": str(short_lived(tmp_path))})
        form = late.resume()
        form.decide("approve", by="Ada Byron", reason="too late")
        ends = datetime.fromisoformat(service.entries(home, "plan.shown")[-1].body["expires_at"])
        time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()) + 1.0)
        form.press()
        late.open()
        late.await_state("Expired", seconds=120)
        late.await_log("start `recover`")
        assert not late.can_resume()
        assert still_contained(home)
        assert begun(home) == before

        approve(start(prefect), by="Ada Byron")
        right(wreck.verdict())


def automatic(prefect: Prefect) -> bool:
    """Whether the event has started a run."""
    prefect.page.get_by_role("link", name="Runs", exact=True).first.click()
    return "Suspended" in prefect.page.get_by_role("main").inner_text()


def short_lived(folder: Path) -> Path:
    """The example's catalogue, but a plan counts only for seconds."""
    copy = folder / "catalogue"
    shutil.copytree(EXAMPLE, copy)
    file = copy / "catalog.yaml"
    text = file.read_text()
    assert "    autonomy:\n" in text
    file.write_text(text.replace("    autonomy:\n", f"    approvals: {{expires_s: {EXPIRES_S}}}\n    autonomy:\n", 1))
    return copy
