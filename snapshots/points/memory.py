"""Memory that is freed goes back to the system, for work that reads many chunks one after the other."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
"""Of ``mallopt(3)``."""
_LARGE: Final = 1 << 20


@cache
def give_back() -> None:
    """Let blocks of a megabyte and more be mapped on their own from now on, in the whole process.

    Arrow's own allocator and a C library that learns from each freed block keep what they once had: reading a store of
    1 GB held 300 MB that nobody used (measured). It costs some page faults, so only work that lives long asks for it.
    Where the C library has no such setting, only Arrow's allocator changes."""
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
