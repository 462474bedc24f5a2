"""The report of an incident: one HTML file that needs nothing else, for people who were not there.

No script, no font, no picture from anywhere: it can be mailed, printed and kept. Everything on it is escaped.
"""

from __future__ import annotations

import os
from pathlib import Path

from incidents.report import words
from incidents.report.model import ReportData
from ledger.timeline import count

TEMPLATES = Path(__file__).with_name("templates")


def render(data: ReportData) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(seconds=words.duration, moment=words.moment, short=words.short)
    tone, headline = words.headline(data)
    return environment.get_template("report.html.j2").render(
        data=data,
        incident=data.incident,
        metrics=data.metrics,
        tone=tone,
        headline=headline,
        title=words.title(data),
        noticed=words.noticed(data),
        severity=words.SEVERITIES[data.incident.severity],
        summary=words.summary(data),
        done=words.done(data),
        remains=words.remains(data),
        phases=words.phases(data),
        milestones=words.milestones(data),
        goals=words.goals(data),
        decided=bool(data.overrides) or any(r.decisions or r.waits_until for r in data.recoveries),
        conflicts=words.CONFLICTS,
        run_reasons=words.RUN_REASONS,
        count=count,
    )


def write(data: ReportData, path: Path) -> Path:
    """Write the page to ``path``; see :func:`keep`."""
    return keep(render(data), path)


def keep(page: str, path: Path) -> Path:
    """Write a page to ``path``, readable by its owner only, whole or not at all. Raises ``OSError``."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write(page)
    draft.replace(path)
    return path
