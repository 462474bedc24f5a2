"""Plain HTTP to the parts on the loopback address, past any proxy the user's environment names."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from estate.errors import StartFailed, tail

PROBE_TIMEOUT_S = 5.0


def client(base_url: str, *, timeout_s: float = 30.0) -> httpx.Client:
    """A client that talks to ``base_url`` directly."""
    return httpx.Client(base_url=base_url, timeout=timeout_s, trust_env=False)


def healthy(url: str) -> bool:
    """Whether ``url`` answers 200."""
    try:
        return httpx.get(url, timeout=PROBE_TIMEOUT_S, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def await_health(
    url: str, *, part: str, process: Callable[[], psutil.Process | None], patience_s: float, log: Path
) -> None:
    """Return when ``url`` is healthy. Raises StartFailed when the process ends or the time is up."""
    deadline = time.monotonic() + patience_s
    while not healthy(url):
        if process() is None:
            raise StartFailed(f"{part} ended while starting; {tail(log)}")
        if time.monotonic() > deadline:
            raise StartFailed(f"{part} did not answer at {url} within {patience_s:.0f} s; {tail(log)}")
        time.sleep(0.1)
