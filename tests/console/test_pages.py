"""The pages: nobody without the password, nothing but reading, nothing outside the home, plain words when empty."""

import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from console import exits
from console.pages.door import HEADERS
from console.pages.site import application
from incidents import record
from ledger import Ledger, kinds
from tests.console.report_desk import Page, Teller

ROOT = Path(__file__).parents[2]
USER, WORD = "operator", "a:b c-ü"
PATHS = ("/", "/scorecards", "/trends.html", "/reports/INC-20261121-0001.html", "/scorecards/DRILL-20261121-0001.json")


class Browser:
    """Asks the application without a server between."""

    def __init__(self, home: Path, *, catalog: Path | None = None, headers: Any = None) -> None:
        self._app = application(home, catalog)
        self._headers = headers

    def get(self, path: str, headers: Any = None) -> httpx.Response:
        return self.request("GET", path, headers)

    def request(self, method: str, path: str, headers: Any = None) -> httpx.Response:
        async def ask() -> httpx.Response:
            door = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=door, base_url="http://pages") as client:
                return await client.request(method, path, headers=self._headers if headers is None else headers)

        return asyncio.run(ask())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    (tmp_path / "secrets.env").write_text(f"OTHER=x\nPREFECT_AUTH={USER}:{WORD}\n")
    return tmp_path


@pytest.fixture
def browser(home: Path) -> Browser:
    return Browser(home, headers=login(USER, WORD))


def login(user: str, word: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()}


def told(home: Path) -> Ledger:
    """A home whose ledger holds one recovered incident."""
    teller = Teller(home)
    teller.ledger.close()
    teller.ledger = Ledger(home / "ledger.sqlite", clock=teller._tick)
    teller.happy()
    return teller.ledger


def card(home: Path, number: int, **fields: Any) -> None:
    (home / "scorecards").mkdir(exist_ok=True)
    name = f"DRILL-20261121-{number:04d}"
    values = {
        "drill": name,
        "scenario": "bad-version",
        "title": "A bad version",
        "app": "desk",
        "at": f"2026-11-21T10:0{number}:00+00:00",
        "passed": True,
        **fields,
    }
    (home / "scorecards" / f"{name}.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    "given",
    [
        {},
        login(USER, "wrong"),
        login("Operator", WORD),
        login(USER, ""),
        {"authorization": "Basic ???"},
        {"authorization": "Bearer token"},
        {"authorization": "Basic"},
    ],
)
def test_nothing_is_told_without_the_password(home: Path, given: dict[str, str]) -> None:
    client = Browser(home)
    for path in (*PATHS, "/nothing", "//", "/health/x"):
        answer = client.get(path, headers=given)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Basic realm="Reinstate"')
        assert answer.text == "User and password, please.\n"


def test_two_passwords_at_once_are_none(home: Path) -> None:
    both = [("authorization", login(USER, WORD)["authorization"]), ("authorization", "Basic eA==")]
    assert Browser(home).get("/", headers=both).status_code == 401


def test_only_health_is_open(home: Path) -> None:
    client = Browser(home)
    assert client.get("/health").text == "ok\n"


def test_a_new_password_counts_at_once_and_without_one_nobody_gets_in(home: Path, browser: Browser) -> None:
    assert browser.get("/").status_code == 200
    (home / "secrets.env").write_text("PREFECT_AUTH=operator:new\n")
    assert browser.get("/").status_code == 401
    assert browser.get("/", headers=login("operator", "new")).status_code == 200
    (home / "secrets.env").write_text("PREFECT_AUTH=\n")
    assert browser.get("/", headers=login("operator", "new")).status_code == 401
    assert browser.get("/", headers=login("", "")).status_code == 401


def test_a_server_of_ones_own_brings_its_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:mine")
    client = Browser(home)
    assert client.get("/", headers=login("me", "mine")).status_code == 401
    (home / "secrets.env").unlink()
    assert client.get("/", headers=login("me", "mine")).status_code == 200


def test_the_environment_gives_no_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_AUTH", "intruder:known")
    client = Browser(home)
    assert client.get("/", headers=login("intruder", "known")).status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_only_reading_is_possible(browser: Browser, method: str) -> None:
    for path in ("/", "/nothing", "/health"):
        answer = browser.request(method, path)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"


def test_every_answer_carries_the_headers(home: Path, browser: Browser) -> None:
    told(home).close()
    for path in (*PATHS, "/health", "/nothing"):
        for answer in (
            browser.get(path),
            browser.request("HEAD", path),
            browser.request("POST", path),
            browser.get(path, headers=login("x", "y")),
        ):
            assert {n: answer.headers.get(n) for n in HEADERS} == HEADERS
            assert "script" not in answer.headers["content-security-policy"]


def test_an_error_is_no_way_around_the_headers(home: Path) -> None:
    (home / "ledger.sqlite").write_bytes(b"not a ledger" * 100)
    client = Browser(home, headers=login(USER, WORD))
    answer = client.get("/")
    assert answer.status_code >= 500
    assert {n: answer.headers.get(n) for n in HEADERS} == HEADERS


WAYS_OUT = (
    "/reports/..%2f..%2fsecrets.env",
    "/reports/%2e%2e/secrets.env",
    "/reports/../secrets.env",
    "/reports/INC-20261121-0001.html%00",
    "/reports/INC-20261121-0001.html/../../secrets.env",
    "/reports/inc-20261121-0001.html",
    "/scorecards/..%2fsecrets.env",
    "/scorecards/secrets.env",
    "/scorecards/DRILL-20261121-0001.json%0a",
    "/..%2fsecrets.env",
    "/%2e%2e/secrets.env",
    "/../secrets.env",
    "/secrets.env",
    "/ledger.sqlite",
    "/trends.html/../secrets.env",
    "/static/../secrets.env",
)


def test_no_path_leads_out(home: Path, browser: Browser) -> None:
    told(home).close()
    card(home, 1)
    for path in WAYS_OUT:
        answer = browser.get(path)
        assert answer.status_code == 404, path
        assert WORD not in answer.text


def test_trends_never_follow_a_link(home: Path, browser: Browser) -> None:
    (home / "trends.html").symlink_to(home / "secrets.env")
    assert "There are none yet" in browser.get("/trends.html").text
    (home / "trends.html").unlink()
    (home / "trends.html").write_text("<p>charts</p>")
    assert browser.get("/trends.html").text == "<p>charts</p>"


def test_an_empty_home_says_so_and_stays_empty(home: Path, browser: Browser) -> None:
    before = sorted(home.rglob("*"))
    assert "nothing is on record" in browser.get("/").text
    assert "no scorecard yet" in browser.get("/scorecards").text
    assert "There are none yet" in browser.get("/trends.html").text
    assert browser.get(PATHS[3]).status_code == 404
    assert browser.get(PATHS[4]).status_code == 404
    assert sorted(home.rglob("*")) == before


def test_the_report_is_rendered_from_the_ledger_as_it_is_now(home: Path, browser: Browser) -> None:
    ledger = told(home)
    answer = browser.get("/reports/INC-20261121-0001.html")
    assert "Recovered, back at work, closed" in Page(answer.text).text
    second = record.open_incident(ledger, "desk", severity="sev2", title="Again").id
    assert browser.get(f"/reports/{second}.html").status_code == 200
    assert browser.request("HEAD", f"/reports/{second}.html").text == ""
    assert browser.get("/reports/INC-20261121-0009.html").status_code == 404
    ledger.close()


def test_looking_changes_nothing(home: Path, browser: Browser) -> None:
    ledger = told(home)
    head = ledger.head()
    for path in PATHS:
        browser.get(path)
    assert ledger.head() == head
    assert ledger.verify() == []
    ledger.close()


def test_the_first_page_shows_what_is_open_and_what_is_known(home: Path, browser: Browser) -> None:
    ledger = told(home)
    ledger.append(kinds.POINT_TAKEN, app="desk", body={"point": "P-1", "verified": True})
    ledger.append(kinds.POINT_TAKEN, app="desk", body={"point": "P-2", "verified": False})
    card(home, 1)
    card(home, 2, passed=False, reasons=["legit_events_lost: 3, needed 0 <b>"])
    text = Page(browser.get("/").text).text
    for part in ("No incident is open", "verified P-1", "not verified P-2", "INC-20261121-0001", "failed 2026-11-21"):
        assert part in text
    opened = record.open_incident(ledger, "desk", severity="sev1", title="<script>alert(1)</script>").id
    shown = {"plan_hash": "c" * 64, "flow_run": "f", "expires_at": "2026-11-22T08:00:00+00:00"}
    ledger.append(kinds.PLAN_SHOWN, app="desk", incident=opened, recovery="R1", body=shown)
    page = Page(browser.get("/").text)
    assert f"sev1, open: {opened} <script>alert(1)</script>" in page.text
    assert "R1 waits for approval until 2026-11-22 08:00:00 UTC" in page.text
    assert not [tag for tag, _ in page.tags if tag in ("script", "form", "img", "link")]
    links = {str(a["href"]) for tag, a in page.tags if tag == "a"}
    assert f"/reports/{opened}.html" in links
    for link in links:
        assert browser.get(link).status_code == 200, link
    ledger.close()


def test_scorecards_name_every_reason(home: Path, browser: Browser) -> None:
    card(home, 1)
    card(home, 2, passed=False, reasons=["3 events <b>lost</b>"], detect_s=0.8)
    (home / "scorecards" / "DRILL-20261121-0003.json").write_text("{broken")
    page = Page(browser.get("/scorecards").text)
    assert re.search(r"DRILL-20261121-0002 .* failed 3 events <b>lost</b> 0.8 s", page.text)
    assert page.text.index("0002") < page.text.index("0001")
    assert browser.get("/scorecards/DRILL-20261121-0002.json").json()["passed"] is False
    assert browser.get("/scorecards/DRILL-20261121-0003.json").status_code == 404


def test_a_broken_catalogue_is_named(home: Path) -> None:
    (home / "catalog.yaml").write_text("apps: [{key: 1}]\n")
    client = Browser(home, catalog=home / "catalog.yaml", headers=login(USER, WORD))
    text = Page(client.get("/").text).text
    assert "The catalogue cannot be read" in text
    assert "catalog.yaml:1" in text


def test_the_catalogue_gives_titles(home: Path) -> None:
    example = ROOT / "examples" / "order-desk" / "catalog.yaml"
    client = Browser(home, catalog=example, headers=login(USER, WORD))
    assert "Order desk" in Page(client.get("/").text).text


@pytest.fixture
def served(home: Path) -> Iterator[int]:
    """The server as it is started by others, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {**os.environ, "REINSTATE_HOME": str(home)}
    environment.pop("REINSTATE_CATALOG", None)
    command = [sys.executable, "-m", "console.pages", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not asked(port, "/health").startswith("HTTP/1.1 200"):
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=20)
        assert process.returncode in (0, -signal.SIGTERM)
        assert out == f"pages: http://127.0.0.1:{port}\n"


def asked(port: int, path: str, headers: str = "") -> str:
    """The raw answer to a raw path, which no client has tidied up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n".encode())
            return b"".join(iter(lambda: line.recv(65536), b"")).decode("utf-8", "replace")
    except ConnectionError:
        return ""


def test_it_serves_on_loopback_and_stops_when_told(home: Path, served: int) -> None:
    key = f"authorization: {login(USER, WORD)['authorization']}\r\n"
    assert asked(served, "/").startswith("HTTP/1.1 401")
    assert asked(served, "/", key).startswith("HTTP/1.1 200")
    for path in WAYS_OUT:
        answer = asked(served, path, key)
        assert answer.startswith(("HTTP/1.1 404", "HTTP/1.1 400")), path
        assert WORD not in answer


def test_without_a_password_it_does_not_start(tmp_path: Path) -> None:
    environment = {**os.environ, "REINSTATE_HOME": str(tmp_path), "PREFECT_API_AUTH_STRING": ""}
    command = [sys.executable, "-m", "console.pages", "--port", "1"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == exits.CATALOGUE
    assert "PREFECT_AUTH" in done.stderr
    assert len(done.stderr.splitlines()) == 1
