"""An inverse as one HTTP call with an ``Idempotency-Key``: sent again with the same key until the answer is clear.

| answer | means |
| --- | --- |
| 2xx | done |
| 410; 404 to DELETE; what ``not_needed`` names | nothing (more) to take back |
| no connection, 408, 425, 429 | nothing happened, try again (``Retry-After`` is kept to) |
| 5xx, 409, a lost or late answer | it may have happened: try again with the same key |
| 3xx, other 4xx | refused |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote, urlsplit

import httpx

from catalog.models import Compensation
from catalog.placeholders import WHOLE_TEXT, filled, in_text
from recovery.compensating import Scalar
from recovery.inverses.attempt import Attempt, Given, Result, text

KEY: Final = "Idempotency-Key"
LONGEST_WAIT_S: Final = 60.0
LATER: Final = frozenset({408, 425, 429})


def attempt(inverse: Compensation, given: Given, *, key: str, resolve: Callable[[str], str]) -> Attempt:
    """Call once. ``resolve`` turns references to secrets into their values. Raises nothing of the other side's."""
    declared = str(inverse.url)
    address = resolve(declared) if declared.startswith(("env:", "file:")) else declared
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or "{" in parts.netloc:
        return Attempt(result=Result.REFUSED, why=f"{declared.partition('?')[0]} holds no http address")
    if any(text(given[name]) in (".", "..") for name in in_text(address)):
        return Attempt(result=Result.REFUSED, why="a value would change the path of the address")
    try:
        return call(inverse, given, address, {name: resolve(ref) for name, ref in inverse.headers.items()} | {KEY: key})
    except httpx.TransportError as error:
        return lost(error, parts.hostname, inverse.timeout_s)
    except (httpx.InvalidURL, UnicodeEncodeError):
        return Attempt(result=Result.REFUSED, why="the address or a header is malformed")


def call(inverse: Compensation, given: Given, address: str, headers: Mapping[str, str]) -> Attempt:
    """Send, and judge the answer; its body is of no interest."""
    body = {name: filled_in(template, given) for name, template in inverse.body.items()}
    # Proxies of the environment must not stand between, and a redirect would carry the call to somebody else.
    with (
        httpx.Client(timeout=inverse.timeout_s, trust_env=False, follow_redirects=False) as client,
        client.stream(
            inverse.method,
            filled(address, lambda name: quote(text(given[name]), safe="")),
            headers=headers,
            json=body if body or inverse.method != "DELETE" else None,
        ) as response,
    ):
        wants = response.headers.get("retry-after")
        return judge(response.status_code, method=inverse.method, not_needed=inverse.not_needed, retry_after=wants)


def lost(error: httpx.TransportError, host: str, timeout_s: float) -> Attempt:
    """No answer: whether the call can have arrived. Pure."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return Attempt(result=Result.AGAIN, why=f"{host} cannot be reached")
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return Attempt(result=Result.REFUSED, why="the address or a header is malformed")
    if isinstance(error, httpx.TimeoutException):
        return Attempt(result=Result.LOST, why=f"{host} did not answer within {timeout_s:g} s")
    return Attempt(result=Result.LOST, why=f"the answer of {host} was lost")


def filled_in(template: str, given: Given) -> Scalar:
    """A text of the body; one that is nothing but a name keeps the value's type."""
    if (whole := WHOLE_TEXT.match(template)) is not None:
        return given[whole[1]]
    return filled(template, lambda name: text(given[name]))


def judge(status: int, *, method: str, not_needed: tuple[int, ...] = (), retry_after: str | None = None) -> Attempt:
    """What an answer means. Pure."""
    facts = {"http_status": status}
    why = f"the answer was {status}"
    if 200 <= status <= 299:
        return Attempt(result=Result.DONE, facts=facts)
    if status in not_needed or status == 410 or (status == 404 and method == "DELETE"):
        return Attempt(result=Result.NOT_NEEDED, why=why, facts=facts)
    wait = min(float(retry_after), LONGEST_WAIT_S) if retry_after and retry_after.strip().isdecimal() else None
    if status in LATER:
        return Attempt(result=Result.AGAIN, why=why, wait_s=wait, facts=facts)
    if status >= 500 or status == 409:
        return Attempt(result=Result.LOST, why=why, wait_s=wait, facts=facts)
    return Attempt(result=Result.REFUSED, why=why, facts=facts)
