"""Running a recovery as a flow in this process: the server's address, and what the person sees meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from console.errors import Unreachable

if TYPE_CHECKING:
    import httpx

PATIENCE_S = 5.0
BUSY_S = 20.0
"""How long a server that says that it is busy is asked again."""


def prefect_address() -> str:
    """The Prefect server's API: ``PREFECT_API_URL``, else the estate's. Raises when none is known, answers or lets us
    in. The estate's password is set for the clients of this process, unless another one is."""
    # The story goes to the run's logs on the server; here only what the command itself says.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    url = os.environ.get("PREFECT_API_URL") or estate_address()
    auth = os.environ.get("PREFECT_API_AUTH_STRING") or estate_password(url)
    check(url, auth)
    os.environ["PREFECT_API_URL"] = url
    if auth:
        os.environ["PREFECT_API_AUTH_STRING"] = auth
    return url


def estate_address() -> str:
    from estate import Estate

    estate = Estate()
    if not any(p.part == "prefect" and p.state == "up" for p in estate.status()):
        raise Unreachable("Prefect server: none is running; set PREFECT_API_URL or run `reinstate estate up`")
    return estate.addresses().prefect_api_url


def estate_password(url: str) -> str:
    """``user:password`` when ``url`` is the estate's own server, else nothing: it is told to nobody else."""
    from estate import Estate

    found = Estate().addresses()
    return found.prefect_auth if url.rstrip("/") == found.prefect_api_url else ""


def check(url: str, auth: str = "") -> None:
    """Raises unless a server answers there: a recovery must not find out half-way."""
    import httpx

    where = without_credentials(url)
    try:
        answer = httpx.get(f"{url.rstrip('/')}/health", timeout=PATIENCE_S, follow_redirects=True)
        user, _, password = auth.partition(":")
        login = (user, password) if auth else None
        door = httpx.get(f"{url.rstrip('/')}/version", timeout=PATIENCE_S, follow_redirects=True, auth=login)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        cause = str(error) or type(error).__name__
        raise Unreachable(
            f"Prefect server {where}: {cause}; start it or correct PREFECT_API_URL, which ends in /api"
        ) from None
    if answer.status_code >= 500:
        raise Unreachable(
            f"Prefect server {where}: it answers {answer.status_code} to a health question; "
            "correct PREFECT_API_URL, which ends in /api"
        )
    if door.status_code == httpx.codes.UNAUTHORIZED:
        raise Unreachable(
            f"Prefect server {where}: it refuses the password; set PREFECT_API_AUTH_STRING to user:password"
        )


def without_credentials(url: str) -> str:
    """The address as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def run_recovery(*, say: Callable[[str], None], **parameters: Any) -> dict[str, Any]:
    """Run the flow ``recover`` here against the Prefect server, telling ``say`` what the run's log is told."""
    import httpx

    from checks import suites

    suites.warm()
    from flows.progress import told_to
    from flows.recover import recover as flow

    try:
        with told_to(say):
            result: dict[str, Any] = flow(**parameters)
    except httpx.HTTPError as error:
        raise Unreachable(
            f"Prefect server {without_credentials(os.environ['PREFECT_API_URL'])}: {error}; the recovery stopped "
            "at a safe state: run `reinstate recover --continue` once the server answers"
        ) from error
    return result


def resume_run(flow_run: str, *, decision: str, by: str, reason: str, plan_hash: str) -> tuple[bool, str]:
    """Wake the suspended run that shows a plan, with the decision that is on record already. Returns whether it goes
    on, and that as a clause. Raises ``Unreachable`` when the server does not answer or refuses us."""
    import httpx

    url = prefect_address()
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    answer = {"decision": decision, "by": by, "reason": reason, "plan": plan_hash}
    login = (user, password) if user else None
    with httpx.Client(base_url=url.rstrip("/"), auth=login, timeout=BUSY_S, follow_redirects=True) as client:
        try:
            found = _asked(client, "GET", f"/flow_runs/{flow_run}")
            if found.status_code == httpx.codes.NOT_FOUND:
                return False, f"flow run {flow_run} is gone from the Prefect server"
            found.raise_for_status()
            state = found.json().get("state") or {}
            if state.get("type") != "PAUSED":
                return False, f"flow run {found.json().get('name')} does not wait any more (it is {state.get('name')})"
            answered = _asked(client, "POST", f"/flow_runs/{flow_run}/resume", {"run_input": answer})
            answered.raise_for_status()
        except httpx.HTTPError as error:
            raise Unreachable(f"Prefect server {without_credentials(url)}: {error}") from error
    if answered.json().get("status") == "ACCEPT":
        return True, f"flow run {found.json().get('name')} goes on with it"
    why = (answered.json().get("details") or {}).get("reason", "no reason given")
    return False, f"flow run {found.json().get('name')} could not be resumed ({why})"


def _asked(client: httpx.Client, method: str, path: str, body: object = None) -> httpx.Response:
    """The answer; 503 is how a Prefect server says that its database was busy and nothing has changed."""
    import tenacity

    busy = tenacity.retry_if_result(lambda answer: answer.status_code == 503)
    again = tenacity.Retrying(
        retry=busy,
        stop=tenacity.stop_after_delay(BUSY_S),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=3),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    return again(client.request, method, path, json=body)
