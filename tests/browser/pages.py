"""What a person does on the pages of Prefect (its default UI), in the words that stand there.

Nothing here waits for a fixed time or knows an id: elements are found by their role and visible name, as a person finds
them. Labels of optional fields end in "(Optional)"; callers leave that out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from playwright.sync_api import Error, Locator, Page, expect

OPTIONAL: Final = r"( \(Optional\))?"
TICK_S: Final = 0.5
SETTLE_MS: Final = 3_000
SUBMITS: Final = 3
SUBMIT_MS: Final = 15_000


class NotSeenError(AssertionError):
    """What should have appeared on a page did not. Says what was there instead."""


def until(what: str, look: Callable[[], bool], *, seconds: float, instead: Callable[[], str] = str) -> None:
    """Look until it is so. Raises NotSeenError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if look():
                return
        except (Error, AssertionError):  # the page is being drawn anew
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise NotSeenError(f"not seen within {seconds:.0f} s: {what}; instead: {instead()}")
        time.sleep(TICK_S)


def named(label: str) -> re.Pattern[str]:
    return re.compile(f"^{re.escape(label)}{OPTIONAL}$")


@dataclass(kw_only=True)
class Camera:
    """Takes pictures for the documentation into ``folder``; none when it is None."""

    folder: Path | None = None
    taken: list[str] = field(default_factory=list)

    def shoot(self, page: Page, name: str) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=self.folder / f"{name}.png", animations="disabled")
        self.taken.append(name)


@dataclass(kw_only=True)
class Fields:
    """A form that Prefect draws from a schema, inside ``root``."""

    root: Locator

    def _page(self) -> Page:
        return self.root.page

    def labels(self) -> list[str]:
        """The labels from top to bottom, without the mark of optional fields."""
        texts = self.root.locator(".group label").all_inner_texts()
        return [re.sub(f"{OPTIONAL}$", "", text.strip()) for text in texts]

    def help(self, label: str) -> str:
        """The help text below a label; empty when there is none."""
        found = self.root.locator("label").filter(has_text=named(label)).locator("xpath=following-sibling::p")
        return found.first.inner_text().strip() if found.count() else ""

    def chosen(self, label: str) -> str:
        """What a dropdown shows."""
        return self._dropdown(label).inner_text().strip()

    def choose(self, label: str, value: str) -> list[str]:
        """Take ``value`` from a dropdown. Returns everything it offered."""
        self._dropdown(label).click()
        offered = self._page().get_by_role("option")
        expect(offered.first).to_be_visible()
        found = [text.strip() for text in offered.all_inner_texts()]
        self._page().get_by_role("option", name=value, exact=True).click()
        expect(self._dropdown(label)).to_have_text(value)
        expect(self._page().get_by_role("option")).to_have_count(0)  # it fades away
        return found

    def write(self, label: str, text: str) -> None:
        """Type into a field."""
        self.root.get_by_role("textbox", name=named(label)).fill(text)

    def _dropdown(self, label: str) -> Locator:
        return self.root.get_by_role("button", name=f"Select {label}", exact=True)


@dataclass(kw_only=True)
class Run:
    """The page of one flow run."""

    page: Page
    id: str

    def name(self) -> str:
        """Its name, without its tags."""
        return self._main().get_by_role("listitem").nth(1).inner_text().split("\n")[0].strip()

    def state(self) -> str:
        """The word on its badge."""
        return self._main().locator("[data-slot=badge]:has(svg)").first.inner_text().strip()

    def await_state(self, *names: str, seconds: float) -> str:
        """Until its state is one of these. Any final state ends the waiting. Returns the state."""
        over = {"Completed", "Failed", "Crashed", "Cancelled"}

        def look() -> bool:
            return self.state() in over.union(names)

        until(f"state {' or '.join(names)}", look, seconds=seconds, instead=lambda: f"{self.state()}; {self.log()}")
        found = self.state()
        if found not in names:
            raise NotSeenError(f"the run is {found}, not {' or '.join(names)}; its log: {self.log()}")
        return found

    def tab(self, name: str) -> Locator:
        """Open a tab; returns what is in it."""
        self._main().get_by_role("tab", name=name, exact=True).click()
        panel = self._main().get_by_role("tabpanel", name=name)
        expect(panel).to_be_visible()
        return panel

    def log(self, *, newest_first: bool = False) -> str:
        """Its log as the page shows it: of a long one the part that fits the page."""
        panel = self.tab("Logs")
        order = panel.get_by_role("combobox", name="log sort order")
        wanted = "Newest to oldest" if newest_first else "Oldest to newest"
        if order.inner_text().strip() != wanted:
            order.click()
            self.page.get_by_role("option", name=wanted, exact=True).click()
            expect(order).to_have_text(wanted)
        expect(panel.get_by_role("log").get_by_role("listitem").first).to_be_visible()
        return panel.get_by_role("log").inner_text()

    def await_log(self, words: str, *, seconds: float = 180.0) -> None:
        """Until the newest part of its log says this. Lines arrive some seconds after the state, and the page of a
        run that has ended does not look for more: it is loaded again."""

        def look() -> bool:
            if words in " ".join(self.log(newest_first=True).split()):
                return True
            self.open()
            return False

        until(f"log: {words}", look, seconds=seconds, instead=lambda: self.log(newest_first=True))

    def cards(self) -> Mapping[str, str]:
        """Its artifacts: what they say of themselves, by key; of several versions the newest."""
        panel = self.tab("Artifacts")
        return {
            link.get_by_role("heading").inner_text().strip(): link.inner_text().strip().split("\n")[-1]
            for link in panel.get_by_role("link").filter(has=self.page.get_by_role("heading")).all()
        }

    def await_card(self, key: str, *, seconds: float) -> None:
        """Until there is an artifact of this key. The page does not notice new ones: it is loaded again."""

        def look() -> bool:
            self.open()
            return key in self.cards()

        until(f"artifact {key}", look, seconds=seconds, instead=lambda: str(list(self.cards())))

    @contextmanager
    def artifact(self, key: str) -> Iterator[Locator]:
        """Open one, as a person does: its card, then its newest version. Yields its content; then back to the run."""
        self.tab("Artifacts").get_by_role("link").filter(
            has=self.page.get_by_role("heading", name=key, exact=True)
        ).last.click()
        self.page.wait_for_url(re.compile(r"/artifacts/key/"))
        self._main().locator("a[href*='/artifacts/artifact/']").first.click()
        panel = self._main().get_by_role("tabpanel", name="Artifact")
        expect(panel.locator("h1, h2, h3, p, table").first).to_be_visible()
        yield panel
        self.open()

    def open(self) -> None:
        """Go to the run's page."""
        base = self.page.url.partition("/v2/")[0]
        self.page.goto(f"{base}/v2/runs/flow-run/{self.id}")
        expect(self._main().get_by_role("tab", name="Logs", exact=True)).to_be_visible()

    def settle(self) -> None:
        """Load the page again until graph and log are drawn, for a picture."""
        self.open()
        expect(self._main().locator("canvas")).to_be_visible()
        self.log()
        self.page.wait_for_timeout(SETTLE_MS)

    def can_resume(self) -> bool:
        """Whether its menu offers Resume."""
        self._menu().click()
        expect(self.page.get_by_role("menuitem", name="Copy ID")).to_be_visible()
        found = self.page.get_by_role("menuitem", name="Resume", exact=True).is_visible()
        self.page.mouse.click(640, 880)  # never Escape: on this page it spreads the graph over the whole window
        expect(self.page.get_by_role("menu")).not_to_be_visible()
        return found

    def resume(self) -> Decision:
        """Menu, Resume: the form that asks for a decision."""
        self._menu().click()
        self.page.get_by_role("menuitem", name="Resume", exact=True).click()
        dialog = self.page.get_by_role("dialog", name="Resume Flow Run")
        expect(dialog.locator(".group label").first).to_be_visible()
        return Decision(root=dialog)

    def _menu(self) -> Locator:
        return self._main().get_by_role("button", name="Open menu").first

    def _main(self) -> Locator:
        return self.page.get_by_role("main")


@dataclass(kw_only=True)
class Decision(Fields):
    """The dialog that resumes a suspended run."""

    def text(self) -> str:
        """The plan as it is shown above the form."""
        return self.root.inner_text()

    def decide(self, word: str, *, by: str, reason: str) -> None:
        self.choose("Decision", word)
        self.write("Your name", by)
        self.write("Reason", reason)

    def to_the_end(self) -> None:
        """Scroll down to the last field."""
        self.root.locator(".group").last.scroll_into_view_if_needed()

    def confirm(self) -> None:
        """Press the button; the dialog closes. A busy server's refusal is answered by pressing once more, and so is a
        button that waits to be pressed as if nothing had happened."""
        button = self.root.get_by_role("button", name="Resume", exact=True)
        for seconds in (30, 30, 60):
            if button.is_enabled():
                button.click()
            with suppress(NotSeenError):
                until("the dialog closes", lambda: self._closed(button), seconds=seconds)
                return
        raise NotSeenError(f"the dialog did not close; instead: {self.notice()}")

    def press(self) -> None:
        """Press the button, whatever comes of it."""
        self.root.get_by_role("button", name="Resume", exact=True).click()

    def notice(self) -> str:
        """What the page says in its corner."""
        return self._page().get_by_role("region", name=re.compile("Notifications")).inner_text()

    def close(self) -> None:
        self.root.get_by_role("button", name="Cancel", exact=True).click()
        expect(self.root).not_to_be_visible()

    def _closed(self, button: Locator) -> bool:
        if not self.root.is_visible():
            return True
        if "Unavailable" in self.notice() and button.is_enabled():
            button.click()
        return False


@dataclass(kw_only=True)
class Prefect:
    """The UI at ``url``, in one tab of a browser."""

    page: Page
    url: str

    def open(self) -> None:
        """The sign-in page."""
        self.page.goto(self.url)
        expect(self._password()).to_be_visible()

    def sign_in(self, credentials: str) -> None:
        """Put ``user:password`` into the one field; afterwards the dashboard or a refusal is there."""
        self._password().fill(credentials)
        self.page.get_by_role("button", name="Login", exact=True).click()
        expect(self.page.get_by_role("link", name="Deployments").or_(self.refusal()).first).to_be_visible()

    def refusal(self) -> Locator:
        return self.page.get_by_text("Invalid credentials", exact=True)

    def signed_in(self) -> bool:
        return self.page.get_by_role("link", name="Deployments").first.is_visible()

    def deployments(self) -> list[tuple[str, str]]:
        """The list of deployments: flow and name."""
        self.page.get_by_role("link", name="Deployments", exact=True).first.click()
        rows = self._main().get_by_role("row").filter(has=self.page.get_by_role("link"))
        expect(rows.first).to_be_visible()
        found = []
        for row in rows.all():
            name, flow = row.get_by_role("link").all_inner_texts()[:2]
            found.append((flow.strip(), name.strip()))
        return found

    def open_deployment(self, flow: str, name: str) -> None:
        """From the list of deployments to one of them."""
        self.page.get_by_role("link", name="Deployments", exact=True).first.click()
        row = self._main().get_by_role("row").filter(has=self.page.get_by_role("link", name=flow, exact=True))
        row.get_by_role("link", name=name, exact=True).click()
        expect(self._main().get_by_role("button", name="Run", exact=True)).to_be_visible()

    def custom_run(self) -> Fields:
        """Run, Custom run: the form."""
        self._main().get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        expect(self._main().get_by_role("heading", name="Parameters")).to_be_visible()
        expect(self._main().get_by_role("button", name="Submit", exact=True)).to_be_enabled()
        expect(self._main().locator(".group label").first).to_be_visible()
        return Fields(root=self._main())

    def submit(self) -> Run:
        """Start the run of the form, and open its page from the notice. A busy server that answered nothing is asked
        once more, as a person would."""
        button = self._main().get_by_role("button", name="Submit", exact=True)
        notice = self.page.get_by_role("link", name="View run").first
        for _ in range(SUBMITS):
            button.click()
            with suppress(AssertionError):
                expect(notice).to_be_visible(timeout=SUBMIT_MS)
                break
        notice.click()
        self.page.wait_for_url(re.compile(r"/runs/flow-run/"))
        return self._here()

    def newest_run(self, name: str) -> Run:
        """From the list of runs to the newest whose name begins like this."""
        self.page.get_by_role("link", name="Runs", exact=True).first.click()
        self._main().get_by_role("link", name=re.compile(f"^{re.escape(name)}")).first.click()
        self.page.wait_for_url(re.compile(r"/runs/flow-run/"))
        return self._here()

    def _here(self) -> Run:
        found = re.search(r"/flow-run/([0-9a-f-]{36})", self.page.url)
        if found is None:
            raise NotSeenError(f"no flow run at {self.page.url}")
        run = Run(page=self.page, id=found[1])
        expect(self._main().get_by_role("tab", name="Logs", exact=True)).to_be_visible()
        return run

    def _password(self) -> Locator:
        return self.page.get_by_placeholder("admin:pass")

    def _main(self) -> Locator:
        return self.page.get_by_role("main")
