"""The watcher: detectors over what changed, and containment in this very process when one is confirmed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from checks import confirm, detectors, diagnosis
from checks.errors import Undiagnosed
from checks.model import Diagnosis, Finding
from incidents import record
from incidents.severity import worst
from recovery.containment import Contained, Say, contain, quiet
from recovery.context import AppContext
from recovery.errors import Refused
from snapshots import journal, points
from snapshots.model import Position

INTERVAL_S = 0.5
WINDOW_S = 60.0
TICK_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Caught:
    incident: str
    findings: tuple[Finding, ...]
    contained: Contained
    diagnosis: Diagnosis | None
    undiagnosed: str | None = None


def watch(ctx: AppContext, *, say: Say = quiet, stop: Callable[[], bool] = lambda: False) -> Iterator[Caught]:
    """Yield each incident once it is contained and diagnosed; runs until ``stop`` says so.

    Detectors look at the last minute of the journal, so that a rule with a grace time gets its second look."""
    recent: deque[tuple[float, Position]] = deque()
    warned: set[str] = set()
    with ctx.connect("recoverer", "watch") as connection:
        ticked = 0.0
        memory = confirm.Memory()
        while not stop():
            now = time.monotonic()
            if not recent or now - ticked >= TICK_S:
                recent.append((now, journal.tick(connection)))
                ticked = now
            while len(recent) > 1 and now - recent[1][0] > WINDOW_S:
                recent.popleft()
            findings = detectors.run(connection, ctx.app, since=recent[0][1])
            connection.rollback()
            for finding in findings:
                if finding.message not in warned and not finding.contain:
                    warned.add(finding.message)
                    say(f"warning: {finding.message}")
            if memory.acted and record.find_open(ctx.ledger, ctx.app.key) is None:
                memory = confirm.Memory()  # that incident is closed: a relapse is a new one
            memory, decision = confirm.decide(
                memory, findings, now=datetime.now(UTC), cooldown_s=ctx.app.autonomy.cooldown_s
            )
            for finding in decision.joined:
                if finding.message not in warned:
                    warned.add(finding.message)
                    say(f"belongs to the open incident: {finding.message}")
            if decision.contain:
                yield handle(ctx, decision.contain, since=recent[0][1], say=say)
            time.sleep(INTERVAL_S)


def handle(ctx: AppContext, findings: Sequence[Finding], *, since: Position, say: Say = quiet) -> Caught:
    """Open (or join) the incident, contain the culprits and their dependents, then diagnose."""
    detected_at = datetime.now(UTC)
    for finding in findings:
        say(f"detected: {finding.message}")
    culprits: frozenset[str] = frozenset()
    # A drop in volume names no row: then nobody is singled out.
    with ctx.connect("capturer", "culprits") as connection, suppress(Undiagnosed):
        culprits = diagnosis.culprits(connection, ctx.app, findings, since=since)
    if not culprits:
        culprits = frozenset(w.key for w in ctx.app.workflows)
        say("no single workflow wrote the damage: containing all of them")
    incident = record.open_incident(
        ctx.ledger,
        app=ctx.app.key,
        severity=worst(ctx.app.tier, [f.severity for f in findings]),
        title="; ".join(sorted({f.message for f in findings}))[:200],
        impact=impact(ctx, findings),
        workflows=sorted(culprits),
        findings=[summary(f) for f in findings],
        detected_at=detected_at,
    ).id
    contained = contain(ctx, culprits, incident=incident, say=say)
    # The first sign is seldom all of the damage: the diagnosis rests on everything that is wrong by now.
    with ctx.connect("capturer", "look again") as connection:
        everything = confirm.confirmed(detectors.run(connection, ctx.app, since=since))
    found, why = diagnose(ctx, incident, everything or findings, say=say)
    return Caught(incident=incident, findings=tuple(findings), contained=contained, diagnosis=found, undiagnosed=why)


def diagnose(
    ctx: AppContext, incident: str, findings: Sequence[Finding], *, say: Say = quiet
) -> tuple[Diagnosis | None, str | None]:
    """Diagnose and record it; an undecided diagnosis is recorded with its reason, and a person must decide."""
    with ctx.connect("capturer", "diagnose") as connection:
        try:
            found = diagnosis.diagnose(
                connection, ctx.app, ctx.platform, findings, points=points.listing(ctx.store, ctx.app.key).points
            )
        except Undiagnosed as error:
            ctx.ledger.append("incident.undiagnosed", app=ctx.app.key, incident=incident, body={"why": str(error)})
            say(str(error))
            return None, str(error)
    ctx.ledger.append("incident.diagnosed", app=ctx.app.key, incident=incident, body=plain(asdict(found)))
    for line in found.evidence:
        say(f"evidence: {line}")
    return found, None


def look_again(ctx: AppContext) -> list[Finding]:
    """What the detectors find since the newest verified point: for a diagnosis by hand."""
    point = points.latest_verified(ctx.store, ctx.app.key)
    if point is None:
        raise Refused(f"app {ctx.app.key}: no verified recovery point to look back to; run `reinstate protect`")
    with ctx.connect("capturer", "look again") as connection:
        return list(detectors.run(connection, ctx.app, since=point.position))


def impact(ctx: AppContext, findings: Sequence[Finding]) -> str:
    """The detectors' own words, each once."""
    words = {d.key: d.impact for d in ctx.app.detectors}
    return " ".join(sorted({words.get(f.detector, "") for f in findings} - {""}))


def summary(finding: Finding) -> dict[str, Any]:
    """A finding without row keys, which may be personal."""
    return {
        "detector": finding.detector,
        "table": finding.table,
        "rows": finding.rows,
        "message": finding.message,
        "severity": finding.severity,
    }


def plain(value: Any) -> Any:
    """JSON-ready: times become ISO 8601 text, tuples lists."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
