"""Free TCP ports on the loopback address."""

import random
import socket
import time

LOOPBACK = "127.0.0.1"
RANGE = range(20_000, 32_000)
"""Below the ports the kernel gives to outgoing connections: one of those could sit on ours when we come back."""
ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(remembered: int = 0, *, patience_s: float = 1.0) -> int:
    """The remembered port if it gets free within ``patience_s`` seconds, else another one.

    The threads of a killed process may hold its port for a moment after the process itself has ended.
    """
    deadline = time.monotonic() + patience_s
    while remembered:
        if is_free(remembered):
            return remembered
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    for port in random.sample(RANGE, ATTEMPTS):
        if is_free(port):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        named: int = probe.getsockname()[1]
    return named
