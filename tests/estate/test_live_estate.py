"""The whole estate on real parts: up, up again, killed, repaired, down."""

import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest

from estate import Addresses, Estate, EstateError, Progress, ports, process, secrets

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def home() -> Iterator[Estate]:
    """An estate of this module's own, since it gets hurt."""
    folder = Path(tempfile.mkdtemp(prefix="reinstate hurt "))
    made = Estate(folder)
    try:
        made.up()
        yield made
    finally:
        made.down()
        shutil.rmtree(folder)


@pytest.fixture
def running(home: Estate) -> Estate:
    """The estate with every part up, whatever the test before did to it."""
    home.up()
    return home


def pid(estate: Estate, part: str) -> int:
    found = next(status.pid for status in estate.status() if status.part == part)
    assert found is not None
    return found


def api(addresses: Addresses, method: str, path: str, body: object = None) -> dict[str, object]:
    headers = {"X-N8N-API-KEY": addresses.n8n_api_key}
    # What was just deactivated cannot be deleted yet. n8n killed while it published it: not for its lease of 120 s.
    for _ in range(300):
        answer = httpx.request(method, f"{addresses.n8n_url}/api/v1{path}", json=body, headers=headers, timeout=30)
        if answer.status_code != httpx.codes.CONFLICT:
            break
        time.sleep(0.5)
    answer.raise_for_status()
    value: dict[str, object] = answer.json()
    return value


def family(estate: Estate) -> list[psutil.Process]:
    """Every process of the estate, sessions of PostgreSQL included."""
    found = []
    for status in estate.status():
        if status.pid:
            parent = psutil.Process(status.pid)
            found += [parent, *parent.children(recursive=True)]
    return found


def test_every_part_answers(running: Estate) -> None:
    addresses = running.up()
    assert [status.state for status in running.status()] == ["up", "up", "up"]
    assert api(addresses, "GET", "/workflows?limit=1")["data"] is not None
    assert httpx.get(f"{addresses.prefect_api_url}/health", timeout=10).json() is True
    with psycopg.connect(addresses.superuser_dsn()) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)


def test_a_second_up_changes_nothing_and_is_quick(running: Estate) -> None:
    before = [status.pid for status in running.status()]
    heard: list[Progress] = []
    again = Estate(running.home).up(progress=heard.append)
    assert {news.detail for news in heard} == {"was running"}
    assert [status.pid for status in running.status()] == before
    assert again.download_s == 0.0


def test_two_ups_at_once_start_every_part_once(home: Estate) -> None:
    home.down()
    results: list[Addresses] = []
    heard: list[Progress] = []

    def start() -> None:
        results.append(Estate(home.home).up(("postgres", "prefect"), progress=heard.append))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(found.pg_port, found.prefect_url) for found in results}) == 1
    assert [news.part for news in heard if news.detail == "started"].count("prefect") == 1
    assert any(news.stage == "waiting" for news in heard)


def test_a_killed_n8n_is_repaired_and_its_workflows_answer_at_once(running: Estate) -> None:
    addresses = running.up()
    path = f"hook-{uuid4().hex}"
    hook = {
        "name": "in",
        "type": "n8n-nodes-base.webhook",
        "typeVersion": 2,
        "position": [0, 0],
        "id": str(uuid4()),
        "webhookId": str(uuid4()),
        "parameters": {"path": path, "httpMethod": "POST", "responseMode": "lastNode"},
    }
    workflow = api(addresses, "POST", "/workflows", {"name": path, "nodes": [hook], "connections": {}, "settings": {}})
    api(addresses, "POST", f"/workflows/{workflow['id']}/activate")
    children = psutil.Process(pid(running, "n8n")).children(recursive=True)
    os.kill(pid(running, "n8n"), signal.SIGKILL)
    again = running.up(("n8n",))
    answer = httpx.post(f"{again.n8n_url}/webhook/{path}", json={"a": 1}, timeout=30)
    assert again.n8n_url == addresses.n8n_url
    assert answer.status_code == httpx.codes.OK
    assert not any(process.alive(child) for child in children)
    api(again, "POST", f"/workflows/{workflow['id']}/deactivate")
    api(again, "DELETE", f"/workflows/{workflow['id']}")


def test_a_killed_prefect_server_is_repaired(running: Estate) -> None:
    before = running.addresses().prefect_url
    os.kill(pid(running, "prefect"), signal.SIGKILL)
    assert running.up(("prefect",)).prefect_url == before


def test_a_killed_postgres_is_repaired_and_n8n_finds_it_again(running: Estate) -> None:
    os.kill(pid(running, "postgres"), signal.SIGKILL)
    addresses = running.up()
    assert [status.state for status in running.status()] == ["up", "up", "up"]
    assert api(addresses, "GET", "/workflows?limit=1")["data"] is not None


def test_down_leaves_no_process_no_socket_no_port(running: Estate) -> None:
    addresses, processes = running.addresses(), family(running)
    assert len(processes) >= 3
    running.down()
    assert not [found.pid for found in processes if process.alive(found)]
    assert addresses.pg_socket_dir is not None
    assert not addresses.pg_socket_dir.exists()
    assert ports.is_free(addresses.pg_port)
    assert [status.state for status in running.status()] == ["down", "down", "down"]
    running.down()


def test_after_down_the_same_addresses_and_data_are_back_in_seconds(running: Estate) -> None:
    before = running.up()
    running.down()
    after = Estate(running.home).up()
    assert (after.pg_port, after.n8n_url, after.prefect_url) == (before.pg_port, before.n8n_url, before.prefect_url)
    assert after.n8n_api_key == before.n8n_api_key
    assert after.total_s < 240


def test_a_key_that_was_revoked_or_lost_is_replaced(running: Estate) -> None:
    secrets.write(running.secrets_file, {"N8N_API_KEY": "wrong"})
    os.kill(pid(running, "n8n"), signal.SIGKILL)
    assert api(running.up(), "GET", "/workflows?limit=1")["data"] is not None


def test_n8n_has_a_role_that_owns_only_its_own_database(running: Estate) -> None:
    addresses = running.up()
    with psycopg.connect(addresses.superuser_dsn()) as connection:
        rights = "rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
        query = f"SELECT {rights} FROM pg_roles WHERE rolname = 'n8n'"
        assert connection.execute(query).fetchone() == (False,) * 5
        query = "SELECT datname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE rolname = 'n8n'"
        assert connection.execute(query).fetchall() == [("n8n",)]


def test_prefect_answers_only_those_who_know_its_password(running: Estate) -> None:
    addresses = running.up(("prefect",))
    kept = secrets.read(running.secrets_file)["PREFECT_AUTH"]
    assert addresses.prefect_auth == kept == running.up(("prefect",)).prefect_auth
    assert kept not in repr(addresses)
    where = f"{addresses.prefect_api_url}/version"
    user, _, password = kept.partition(":")
    assert httpx.get(where, timeout=10).status_code == httpx.codes.UNAUTHORIZED
    assert httpx.get(where, timeout=10, auth=(user, "guess")).status_code == httpx.codes.UNAUTHORIZED
    assert httpx.get(where, timeout=10, auth=(user, password)).status_code == httpx.codes.OK


def test_everything_kept_is_private(running: Estate) -> None:
    assert stat.S_IMODE(running.secrets_file.stat().st_mode) == 0o600
    for folder in ("logs", "n8n", "prefect"):
        assert stat.S_IMODE((running.home / folder).stat().st_mode) == 0o700
    texts = [path.read_text(errors="replace") for path in (running.home / "logs").iterdir()]
    for value in secrets.read(running.secrets_file).values():
        assert not any(value in text for text in texts)


def test_a_part_that_cannot_start_is_named_with_its_log_and_the_others_stay_up(running: Estate) -> None:
    running.up()
    key = secrets.read(running.secrets_file)["N8N_ENCRYPTION_KEY"]
    os.kill(pid(running, "n8n"), signal.SIGKILL)
    secrets.write(running.secrets_file, {"N8N_ENCRYPTION_KEY": "another"})
    try:
        with pytest.raises(EstateError, match=r"n8n ended while starting; .*n8n\.log ends: .*encryption key") as caught:
            running.up()
        assert len(str(caught.value).splitlines()) == 1
        assert [status.state for status in running.status()] == ["up", "down", "up"]
    finally:
        secrets.write(running.secrets_file, {"N8N_ENCRYPTION_KEY": key})
