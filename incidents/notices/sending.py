"""Sending through Apprise: one address, one message, a bounded time, and not a word of the address anywhere.

An Apprise URL holds passwords and tokens, in any of its parts. So the logs of Apprise and of the HTTP library under it
are dropped while we send, and what remains of an error's text has every part of the URL masked.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from incidents.errors import NotSent
from ledger.mask import MASK, Guard

if TYPE_CHECKING:
    from incidents.notices.compose import Message

SEND_S: Final = 20.0
"""How long one sending may take; what takes longer counts as failed, although it may still arrive."""

SHORTEST: Final = 3
"""Shorter parts of an address are no secrets, and would mask ordinary words."""
LONGEST: Final = 300

_LOUD: Final = ("apprise", "urllib3", "requests", "charset_normalizer")
_LOADING = threading.Lock()
_WORDS = re.compile(r"[^:/?&=@,;#]+")
_ORDINARY = frozenset(
    {"http", "https", "json", "jsons", "mailto", "mailtos", "localhost", "format", "html", "text", "from", "smtp"}
)


class _Hush(logging.Filter):
    """Keeps what a sending thread logs to itself."""

    def __init__(self) -> None:
        super().__init__()
        self._heard = threading.local()

    def listen(self) -> list[str]:
        self._heard.lines = []
        return self._heard.lines  # type: ignore[no-any-return]

    def filter(self, record: logging.LogRecord) -> bool:
        lines: list[str] | None = getattr(self._heard, "lines", None)
        if lines is None:
            return True
        if record.levelno >= logging.WARNING:
            lines.append(record.getMessage())
        return False


_HUSH = _Hush()


def apprise_send(url: str, message: Message, *, timeout_s: float = SEND_S) -> None:
    """Send ``message`` to the Apprise ``url``. Raises ``NotSent`` with the cause, free of secrets; after
    ``timeout_s`` seconds at the latest."""
    _load()
    box: list[str] = []

    def work() -> None:
        lines = _HUSH.listen()
        try:
            why = "" if _notify(url, message) else "; ".join(dict.fromkeys(lines)) or "it was refused without a reason"
        except NotSent as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is a failure to send
            why = f"{type(error).__name__}: {error}"
        box.append(why)

    thread = threading.Thread(target=work, name="notice", daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(timeout_s)
    if not box:
        raise NotSent(f"no answer within {time.monotonic() - began:.0f} s; look at the receiver, it is tried again")
    if box[0]:
        raise NotSent(scrub(box[0], url))


def scrub(text: str, url: str) -> str:
    """``text`` without any part of ``url``, in one line."""
    parts = {url, *(part for word in _WORDS.findall(url) for part in (word, unquote(word)))}
    for part in sorted(parts, key=lambda p: (-len(p), p)):
        if len(part) >= SHORTEST and part.lower() not in _ORDINARY:
            text = text.replace(part, MASK)
    return " ".join(Guard().text(text).split())[:LONGEST]


def _notify(url: str, message: Message) -> bool:
    import apprise

    asset = apprise.AppriseAsset(
        app_id="Reinstate",
        app_desc="Reinstate",
        app_url="",
        async_mode=False,
        secure_logging=True,
        pgp_autogen=False,
        pem_autogen=False,
    )
    channel: Any = apprise.Apprise(asset=asset)
    if not channel.add(url) or len(channel) != 1:
        raise NotSent("its secret is not one address that Apprise knows; correct it, see docs/notices.md")
    html = channel[0].notify_format == apprise.NotifyFormat.HTML
    return bool(
        channel.notify(
            title=message.subject,
            body=message.html if html else message.text,
            body_format=apprise.NotifyFormat.HTML if html else apprise.NotifyFormat.TEXT,
            notify_type=message.tone,
        )
    )


@cache
def _plugins() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import apprise
        import apprise.plugins

        apprise.plugins.url_to_dict("json://localhost")


def _load() -> None:
    """Import Apprise with all its plugins and have its loggers filtered, those of libraries that came since too."""
    with _LOADING:
        _plugins()
        for name in [*_LOUD, *logging.root.manager.loggerDict]:
            if name.partition(".")[0] in _LOUD:
                logging.getLogger(name).addFilter(_HUSH)
