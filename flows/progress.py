"""What a flow run logs, told to the person who started it in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import prefect
from prefect.logging.configuration import setup_logging

LOGGERS: Final = ("prefect.flow_runs", "prefect.task_runs")
PREFECT: Final = Path(prefect.__file__).parent


class Told(logging.Handler):
    """Hands on what our flows log, not Prefect's own lines about states."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(level=logging.INFO)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        if not Path(record.pathname).is_relative_to(PREFECT):
            self.say(record.getMessage())


@contextmanager
def told_to(say: Callable[[str], None]) -> Iterator[None]:
    """While it lasts, ``say`` hears every line that the flows of this process log."""
    setup_logging()
    handler = Told(say)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
