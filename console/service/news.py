"""What `reinstate up` says: sentences for people, one JSON document per line for scripts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from console import output

News = Callable[..., None]
"""``news(event, text, **facts)``."""


def teller(*, as_json: bool) -> News:
    """Tells people on standard error as it goes, or scripts on standard output."""

    def tell(event: str, text: str, **facts: Any) -> None:
        if as_json:
            output.line({"event": event, "at": datetime.now(UTC).isoformat(), "text": text, **facts})
        else:
            output.progress(text)

    return tell
