"""Bad input: one line, the documented exit code, nothing changed, no secret shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from console import exits
from console.main import run
from tests.conftest import AppDb
from tests.console.desk import CONTAINED, DIAGNOSED, KEY, OPENED, PASSWORDS, PROVEN, Desk, answering
from tests.snapshots import point_desk

LOOKS = (
    ["status"],
    ["protect"],
    ["journal", "status"],
    ["journal", "install"],
    ["contain", "order-intake"],
)


class Refusal:
    """Runs command lines and holds them to the rule."""

    def __init__(self, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
        self.desk, self.capsys = desk, capsys

    def __call__(self, code: int, *arguments: str) -> str:
        """The one line, without its prefix."""
        before = self.desk.entries(), self.desk.points()
        self.capsys.readouterr()
        found = self.desk.run(*arguments)
        said = self.capsys.readouterr()
        assert found == code, said.err
        assert said.out == ""
        assert said.err.startswith("reinstate: ")
        assert said.err.endswith("\n")
        assert said.err.count("\n") == 1
        assert "Traceback" not in said.err
        assert not [secret for secret in (KEY, *PASSWORDS) if secret in said.err]
        assert (self.desk.entries(), self.desk.points()) == before
        return said.err.removeprefix("reinstate: ").strip()


@pytest.fixture
def refused(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(desk, capsys)


@pytest.fixture
def platform_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recovery.context.open_platform", answering)


@pytest.mark.parametrize("command", [["status"], ["plan"], ["points"], ["roles"], ["watch"], ["report"]])
def test_an_unknown_app(refused: Refusal, command: list[str]) -> None:
    assert "nope" in refused(exits.CATALOGUE, *command, "--app", "nope")


@pytest.mark.parametrize("command", LOOKS)
@pytest.mark.usefixtures("platform_up")
def test_a_database_that_is_not_there(refused: Refusal, nobody: str, command: list[str]) -> None:
    line = refused(exits.UNREACHABLE, *command)
    assert nobody.partition(":")[2] in line


@pytest.mark.usefixtures("platform_up")
@pytest.mark.postgres
def test_a_database_that_refuses_the_password(refused: Refusal, desk: Desk, app_db: AppDb) -> None:
    desk.write(DESK_RECOVERER=app_db.recoverer.replace("test-recoverer", "test-wrong"))
    assert "password" in refused(exits.UNREACHABLE, "status")


@pytest.mark.parametrize("command", [["status"], ["contain", "order-intake"]])
def test_a_platform_that_is_not_there(refused: Refusal, nobody: str, command: list[str]) -> None:
    assert nobody in refused(exits.UNREACHABLE, *command)


@pytest.mark.postgres
def test_a_platform_that_is_not_there_for_a_capture(
    live_desk: Desk, nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert live_desk.run("protect") == exits.UNREACHABLE
    *progress, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("reinstate: ")
    assert nobody in line
    assert not [p for p in progress if "reinstate: " in p or "Traceback" in p]
    assert live_desk.entries() == []
    assert live_desk.points() == []


def test_yaml_that_is_malformed_is_named_with_its_line(refused: Refusal, desk: Desk) -> None:
    lines = desk.catalog.read_text().splitlines()
    at = next(n for n, text in enumerate(lines) if "capturer:" in text)
    desk.catalog.write_text("\n".join([*lines[:at], "    capturer: [unclosed", *lines[at + 1 :]]))
    line = refused(exits.CATALOGUE, "status")
    assert line.startswith(f"{desk.catalog}:")
    assert at <= int(line.removeprefix(f"{desk.catalog}:").partition(":")[0]) <= at + 2


def test_a_value_that_is_not_allowed_is_named_with_its_line(refused: Refusal, desk: Desk) -> None:
    text = desk.catalog.read_text().replace("rto_s: 60", "rto_s: soon")
    desk.catalog.write_text(text)
    number = next(n for n, line in enumerate(text.splitlines(), start=1) if "rto_s" in line)
    assert refused(exits.CATALOGUE, "status").startswith(f"{desk.catalog}:{number}: ")


def test_no_catalogue(refused: Refusal, desk: Desk) -> None:
    desk.catalog.unlink()
    assert str(desk.catalog) in refused(exits.CATALOGUE, "status")


@pytest.mark.parametrize(("secret", "command"), [("DESK_KEY", "status"), ("DESK_INSTALLER", "roles")])
def test_a_missing_secret_is_named(refused: Refusal, desk: Desk, secret: str, command: str) -> None:
    desk.write(**{secret: ""})
    assert f"env:{secret}" in refused(exits.CATALOGUE, command)


@pytest.mark.usefixtures("platform_up")
@pytest.mark.parametrize(
    "broken", ["{", "[]", json.dumps({"name": "x", "table": "shop.orders", "expectations": []})], ids=str
)
def test_a_broken_suite(refused: Refusal, desk: Desk, broken: str) -> None:
    suite = desk.folder / "checks" / "orders.json"
    suite.write_text(broken)
    assert str(suite) in refused(exits.CATALOGUE, "protect")


@pytest.mark.usefixtures("platform_up")
@pytest.mark.parametrize(
    "command", [["timeline"], ["report"], ["plan"], ["diagnose"], ["resume"], ["contain", "order-intake"]], ids=str
)
def test_an_unknown_incident(refused: Refusal, command: list[str]) -> None:
    assert "INC-9" in refused(exits.NOTHING, *command, "--incident", "INC-9")


@pytest.mark.usefixtures("platform_up")
@pytest.mark.parametrize("command", ["plan", "diagnose", "resume", "timeline", "report"])
def test_no_incident_at_all(refused: Refusal, command: str) -> None:
    assert "incident" in refused(exits.NOTHING, command)


@pytest.mark.usefixtures("platform_up")
def test_a_closed_incident_is_not_recovered_again(refused: Refusal, desk: Desk) -> None:
    desk.tell(OPENED, ("incident.closed", {"resolution": "resolved", "by": "ada", "reason": "done"}))
    assert "closed" in refused(exits.NOTHING, "plan", "--incident", "INC-1")


@pytest.mark.usefixtures("platform_up", "live_desk")
@pytest.mark.postgres
def test_an_incident_nobody_diagnosed(refused: Refusal, desk: Desk) -> None:
    desk.tell(OPENED, CONTAINED, PROVEN)
    assert "reinstate diagnose" in refused(exits.REFUSED, "plan")


@pytest.mark.usefixtures("platform_up")
def test_an_unknown_workflow(refused: Refusal) -> None:
    line = refused(exits.CATALOGUE, "contain", "order-intake", "nope")
    assert "nope" in line
    assert "stock-sync" in line


@pytest.mark.usefixtures("platform_up")
def test_an_unknown_recovery(refused: Refusal) -> None:
    assert "R9" in refused(exits.NOTHING, "replay", "R9")


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--mode", "sideways"],
        ["plan", "--policy", "hope"],
        ["recover", "--mode", "sideways"],
        ["recover", "--json"],
        ["journal", "remove", "--json"],
        ["contain"],
        ["plan", "--nope"],
    ],
    ids=str,
)
def test_options_that_do_not_exist(refused: Refusal, arguments: list[str]) -> None:
    refused(exits.USAGE, *arguments)


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nope"]) == exits.USAGE
    assert capsys.readouterr().err == "reinstate: No such command 'nope'; see `reinstate --help`\n"


@pytest.mark.usefixtures("platform_up")
class TestNoPrefect:
    def test_none_is_running(self, refused: Refusal, desk: Desk) -> None:
        desk.tell(OPENED, CONTAINED, PROVEN, DIAGNOSED)
        assert "reinstate estate up" in refused(exits.UNREACHABLE, "recover", "--yes")

    def test_none_answers(self, refused: Refusal, desk: Desk, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREFECT_API_URL", f"http://ann:{KEY}@{nobody}/api")
        desk.tell(OPENED, CONTAINED, PROVEN, DIAGNOSED)
        assert nobody in refused(exits.UNREACHABLE, "recover", "--yes")


@pytest.mark.usefixtures("platform_up")
@pytest.mark.postgres
class TestPoints:
    @pytest.fixture
    def contained(self, live_desk: Desk) -> Desk:
        live_desk.tell(OPENED, CONTAINED, PROVEN, DIAGNOSED)
        return live_desk

    def test_one_that_is_not_verified(self, refused: Refusal, contained: Desk, app_db: AppDb) -> None:
        point, _ = point_desk.take(app_db, contained.home / "store", passed=False)
        line = refused(exits.REFUSED, "plan", "--point", point.id)
        assert point.id in line
        assert "not verified" in line

    @pytest.mark.usefixtures("contained")
    def test_one_that_does_not_exist(self, refused: Refusal) -> None:
        assert "nope" in refused(exits.NOTHING, "plan", "--point", "nope")

    def test_one_that_holds_the_bad_version(self, refused: Refusal, contained: Desk, app_db: AppDb) -> None:
        kind, body = DIAGNOSED
        contained.tell((kind, {**body, "bad_version": point_desk.HASH}))
        point, _ = point_desk.take(app_db, contained.home / "store")
        assert "bad version" in refused(exits.REFUSED, "plan", "--point", point.id)

    def test_a_verified_one_is_used(self, contained: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]) -> None:
        point, _ = point_desk.take(app_db, contained.home / "store")
        assert contained.run("plan", "--mode", "logic", "--point", point.id, "--json") == exits.OK
        plan = json.loads(capsys.readouterr().out)
        assert plan["point_id"] == point.id
        assert [p["to_version"] for p in plan["publications"]] == [point_desk.HASH]


def test_as_a_process_of_its_own(desk: Desk, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "console", "status", "-c", str(desk.catalog), "--app", "nope"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ}, timeout=60)
    assert ended.returncode == exits.CATALOGUE
    assert ended.stdout == ""
    assert ended.stderr.startswith("reinstate: ")
    assert ended.stderr.count("\n") == 1
