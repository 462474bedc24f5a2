"""Running a recovery as a flow in this process: the server's address, and what the person sees meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from console.errors import Unreachable

PATIENCE_S = 5.0


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
