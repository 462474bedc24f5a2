"""The words of a notice: templates per audience, as plain text and as HTML. Pure, but for reading the templates.

The words of an audience stand in one template and are rendered twice: escaped for HTML, as they are for text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from catalog.models import App, Channel
from incidents.notices.facts import FIRST_STEPS, Facts, duration, latest, moment
from incidents.notices.states import State

if TYPE_CHECKING:  # starts must not load it
    from jinja2 import Environment

TONES: Final = {
    State.NOTICED: "failure",
    State.CONTAINED: "warning",
    State.NOT_CONTAINED: "failure",
    State.WAITING: "warning",
    State.RECOVERING: "info",
    State.HELD: "warning",
    State.HALF_RESTORED: "warning",
    State.RELAPSE: "failure",
    State.RECOVERED: "success",
    State.FALSE_ALARM: "success",
    State.HANDED_OVER: "info",
}
COLOURS: Final = {"failure": "#b3261e", "warning": "#b26a00", "info": "#1f5fa8", "success": "#1b7f3b"}

CUSTOMERS: Final = {
    State.NOTICED: "disruption",
    State.CONTAINED: "partly paused",
    State.NOT_CONTAINED: "disruption",
    State.WAITING: "repair prepared",
    State.RECOVERING: "repair under way",
    State.HELD: "repair not finished",
    State.HALF_RESTORED: "partly repaired",
    State.RELAPSE: "disruption again",
    State.RECOVERED: "works again",
    State.FALSE_ALARM: "no disruption",
    State.HANDED_OVER: "repair by hand",
}
"""Customers read no word of ours in a subject."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What goes out. ``tone``: ``failure``, ``warning``, ``info`` or ``success``."""

    subject: str
    text: str
    html: str
    tone: str


def compose(audience: str, facts: Facts) -> Message:
    """The message about ``facts`` for ``responders``, ``business`` or ``customers``."""
    said = subject(audience, facts)
    tone = TONES[facts.state]
    given = {
        "audience": audience,
        "f": facts,
        "subject": said,
        "colour": COLOURS[tone],
        "commands": commands(facts),
        "first_steps": FIRST_STEPS,
    }
    text = _environment(html=False).get_template("notice.txt.j2").render(given)
    html = _environment(html=True).get_template("notice.html.j2").render(given)
    return Message(subject=said, text=text.strip() + "\n", html=html, tone=tone)


def subject(audience: str, facts: Facts) -> str:
    """One short line, of the same form for every notice of an incident, so that mail programs keep them together."""
    title = " ".join(facts.app.title.split())
    if audience == "customers":
        return f"{title}: {CUSTOMERS[facts.state]} - {facts.incident}"
    return f"[{facts.severity}] {title}: {facts.state.value} - {facts.incident}"


def test_message(app: App, channel: Channel, now: datetime) -> Message:
    """A message that cannot be taken for a real one."""
    said = f"TEST, nothing happened - {app.title}: channel {channel.key}"
    given = {"app": app, "channel": channel, "now": now, "subject": said}
    return Message(
        subject=said,
        text=_environment(html=False).get_template("test.txt.j2").render(given).strip() + "\n",
        html=_environment(html=True).get_template("test.html.j2").render(given),
        tone="info",
    )


def commands(facts: Facts) -> tuple[str, ...]:
    """What a responder would type next."""
    app, incident = f"--app {facts.app.key}", f"--incident {facts.incident}"
    match facts.state:
        case State.NOTICED:
            found = [f"reinstate status {app}"]
        case State.NOT_CONTAINED:
            found = [f"reinstate contain {' '.join(facts.paused_keys)} {app}" if facts.paused_keys else ""]
        case State.CONTAINED:
            found = [f"reinstate plan {app}", f"reinstate recover {app}"]
        case State.WAITING:
            found = [f"reinstate plan {app}"]
        case State.RECOVERING:
            found = [f"reinstate timeline {app} {incident}"]
        case State.HELD if facts.next_step.startswith("reinstate "):
            found = [facts.next_step]
        case State.HELD:
            found = [f"reinstate {'diagnose' if facts.why == 'undiagnosed' else 'recover'} {app}"]
        case State.HALF_RESTORED:
            done = facts.recovery.mode if facts.recovery else ""
            found = [f"reinstate recover --mode {'data' if done == 'logic' else 'logic'} {app}"]
        case State.RELAPSE:
            found = [f"reinstate diagnose {app}", f"reinstate recover {app}"]
        case _:
            found = [f"reinstate report {app} {incident}"]
    return tuple(c for c in found if c)


@cache
def _environment(*, html: bool) -> Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=html,  # noqa: S701 - the other one makes plain text, where an escape would be wrong
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=duration, moment=moment, latest=latest, number="{:,}".format)
    environment.filters.update(lines=_lines, line=lambda text: _joined(_lines(text)))
    return environment


def _lines(text: str) -> list[str]:
    """The lines that say something. Markup stays markup."""
    return [line for line in (part.strip() for part in text.splitlines()) if line]


def _joined(lines: list[str]) -> str:
    return type(lines[0])(" ").join(lines) if lines else ""
