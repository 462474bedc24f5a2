"""Serving the ingress until told to stop, in the foreground or, for tests, in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.applications import Starlette

from ingress.errors import IngressError

STOP_S: Final = 5
"""How long events in flight may take to end when it is told to stop."""
BACKLOG: Final = 1024


def bind(listen: str) -> socket.socket:
    """A socket at ``host:port``. Raises :class:`IngressError` when the address is of no use or taken."""
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, number, _, address = found[0]
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # who calls from now on waits until it serves
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no such address"
        raise IngressError(f"ingress: cannot listen at {listen}: {why}; correct `listen` in the catalogue") from error
    return bound


def server(application: Starlette) -> uvicorn.Server:
    """Adds no headers of its own, logs no request, and lets what is in flight end."""
    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
    )
    return uvicorn.Server(config)


def serve(application: Starlette, bound: socket.socket) -> None:
    """Serve at ``bound`` until SIGTERM or Ctrl-C."""
    with bound:
        server(application).run(sockets=[bound])


@contextmanager
def in_thread(application: Starlette, listen: str = "127.0.0.1:0") -> Iterator[str]:
    """Serve while the block runs; gives the address."""
    with bind(listen) as bound:
        serving = server(application)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [bound]}, name="ingress", daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not serving.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise IngressError("ingress: it did not start; see its log")
            time.sleep(0.01)
        host, port = bound.getsockname()[:2]
        try:
            yield f"http://{host}:{port}"
        finally:
            serving.should_exit = True
            thread.join(STOP_S + 5)
