"""A payment service on loopback: it charges, refunds once per idempotency key, and fails as it is told to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

FAULTS = ("drop-before", "drop-after", "500-before", "500-after", "503", "429", "409", "slow")


@dataclass
class PaymentService:
    """``faults`` are used up one per refund, first to last; any other text is a status to answer without doing it.
    ``refunds`` holds (charge, key) of each refund done, in order; ``calls`` the keys of every request for one."""

    url: str = ""
    faults: list[str] = field(default_factory=list)
    charges: list[tuple[str, str]] = field(default_factory=list)
    refunds: list[tuple[str, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    slow_s: float = 0.6
    lock: threading.Lock = field(default_factory=threading.Lock)

    def charge(self, event: str, charge: str | None = None) -> str:
        """A workflow charges for an event, under its own id of the charge or the service's; returns the id."""
        answer = httpx.post(f"{self.url}/charges", json={"event": event, "charge": charge}, trust_env=False)
        return str(answer.json()["id"])

    def net(self) -> dict[str, int]:
        """Charges less refunds, by event."""
        event_of = dict(self.charges)
        counted: dict[str, int] = {}
        for _, event in self.charges:
            counted[event] = counted.get(event, 0) + 1
        for charge, _ in self.refunds:
            counted[event_of[charge]] -= 1
        return counted


class Handler(BaseHTTPRequestHandler):
    service: PaymentService

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        service = self.service
        if self.path == "/charges":
            with service.lock:
                charge = body["charge"] or f"ch-{len(service.charges) + 1}"
                service.charges.append((charge, body["event"]))
            self.answer(200, {"id": charge})
            return
        charge, key = self.path.removeprefix("/charges/").removesuffix("/refund"), self.headers["Idempotency-Key"]
        with service.lock:
            service.calls.append(key)
            service.paths.append(self.path)
            service.bodies.append(body)
            service.headers.append(dict(self.headers))
            fault = service.faults.pop(0) if service.faults else "ok"
        if fault in ("ok", "slow") and charge not in dict(service.charges):
            fault = "410"
        if fault in ("ok", "drop-after", "500-after", "slow"):
            with service.lock:
                if key not in {k for _, k in service.refunds}:
                    service.refunds.append((charge, key))
        if fault == "slow":
            time.sleep(service.slow_s)
        if fault.startswith("drop"):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        status = 200 if fault in ("ok", "slow") else int(fault.partition("-")[0])
        self.answer(status, {"refunded": charge, "card": "4242 secret"})

    def answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error."""


@contextmanager
def running() -> Iterator[PaymentService]:
    service = PaymentService()
    handler = type("Bound", (Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
