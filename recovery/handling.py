"""What the watcher does about findings: open or join the incident, contain, diagnose; and what a process that died in
between left undone. Every call may be repeated: what is on record is not done, and not said, twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from checks import confirm, detectors, diagnosis
from checks.errors import Undiagnosed
from checks.model import Diagnosis, Finding
from incidents import record
from incidents.record import Incident, Status
from ledger.lease import held
from recovery import alerts, earlier, relapses
from recovery.containment import Contained, Say, contain, is_proven, quiet, recorded
from recovery.context import AppContext
from recovery.errors import Refused
from snapshots.model import Position
from snapshots.points import points

PAUSES = ("contain.started", "contain.proven", "contain.failed", "resume.begun")
LEFT = "not contained: the catalogue leaves that to a person; run `reinstate contain {}`"


@dataclass(frozen=True, kw_only=True, slots=True)
class Caught:
    """What came of findings. ``contained`` is ``None`` when the catalogue forbids it, when everything concerned was
    paused already, or when the pause could not be proven (``unproven`` says why). ``opened``: a new incident."""

    incident: str
    findings: tuple[Finding, ...]
    contained: Contained | None
    diagnosis: Diagnosis | None
    undiagnosed: str | None = None
    opened: bool = False
    unproven: str | None = None

    @property
    def workflows(self) -> tuple[str, ...]:
        """What this very call paused."""
        return self.contained.workflows if self.contained is not None else ()


def handle(ctx: AppContext, findings: Sequence[Finding], *, since: Position, say: Say = quiet) -> Caught:
    """Open (or join) the incident, contain the culprits and their dependents unless they are, then diagnose.

    Raises what containment raises when the pause is not proven; that is on record then, and owed
    (:func:`finish_begun`)."""
    detected_at = datetime.now(UTC)
    for finding in findings:
        say(f"detected: {finding.message}")
    culprits = blamed(ctx, findings, since=since)
    if not culprits:
        culprits = frozenset(w.key for w in ctx.app.workflows)
        say("no single workflow wrote the damage: all of them are concerned")
    before = record.find_open(ctx.ledger, ctx.app.key)
    alert = alerts.alert(ctx.app, findings)
    incident = record.open_incident(
        ctx.ledger,
        app=ctx.app.key,
        severity=alert.severity,
        title=alert.title,
        impact=alert.impact,
        workflows=sorted(culprits),
        findings=alert.findings,
        detected_at=detected_at,
        playbook=alert.playbook,
    )
    opened = before is None or before.id != incident.id
    say(f"incident {incident.id} ({incident.severity}): {alert.impact or alert.title}")
    if opened and alert.playbook:
        say(f"playbook {alert.playbook['key']}, owner {alert.playbook['owner']}: {alert.playbook['title']}")
    contained = None
    if not ctx.app.autonomy.contain:
        if opened:
            say(LEFT.format(" ".join(culprits)))
    elif not paused(ctx, incident.id, culprits):
        contained = contain(ctx, culprits, incident=incident.id, say=say)
    found, why = None, None
    if contained is not None or not looked_at(ctx, incident.id):
        # The first sign is seldom all of the damage: the diagnosis rests on everything that is wrong by now.
        with ctx.connect("capturer", "look again") as connection:
            everything = confirm.confirmed(detectors.run(connection, ctx.app, since=since))
        found, why = diagnose(ctx, incident.id, everything or findings, say=say)
    return Caught(
        incident=incident.id,
        findings=tuple(findings),
        contained=contained,
        diagnosis=found,
        undiagnosed=why,
        opened=opened,
    )


def blamed(ctx: AppContext, findings: Sequence[Finding], *, since: Position) -> frozenset[str]:
    """Workflows that wrote what was found; none when nobody can be singled out."""
    # A drop in volume names no row: then nobody is singled out.
    with ctx.connect("capturer", "culprits") as connection, suppress(Undiagnosed):
        return diagnosis.culprits(connection, ctx.app, findings, since=since)
    return frozenset()


def paused(ctx: AppContext, incident: str, keys: frozenset[str]) -> bool:
    """Whether these workflows and their dependents are in the incident's proven pause."""
    covered = set((recorded(ctx, incident) or {}).get("workflows", ()))
    return is_proven(ctx, incident) and ctx.app.dependents(keys) <= covered


def at_work(ctx: AppContext) -> bool:
    """Whether a recovery or a resume is going on, which looks after the pause itself."""
    holder = held(ctx.ledger, ctx.app.key)
    return holder is not None and holder.living


def finish_begun(ctx: AppContext, *, say: Say = quiet) -> Caught | None:
    """Do what an earlier process began and did not finish: prove the pause of the open incident, also after a relapse,
    and diagnose it. ``None`` when nothing is left to do. Raises what containment raises when the pause is again not
    proven."""
    incident = record.find_open(ctx.ledger, ctx.app.key)
    if incident is None or at_work(ctx):
        return None
    relapses.end_last(ctx, incident.id)
    relapse = relapses.unproven(ctx, incident.id)
    if relapse is None and incident.status in (Status.RECOVERING, Status.RECOVERED):
        return None
    contained = None
    if ctx.app.autonomy.contain and owed(ctx, incident):
        say(f"incident {incident.id}: its pause is not proven yet; containing again")
        contained = contain(ctx, incident.workflows, incident=incident.id, say=say)
    elif relapse is not None:
        say(LEFT.format(" ".join(incident.workflows)))
    # A relapse without new damage says nothing against the diagnosis.
    if not incident.findings or ((contained is None or relapse is not None) and looked_at(ctx, incident.id)):
        if contained is None:
            return None
        return Caught(incident=incident.id, findings=(), contained=contained, diagnosis=None)
    try:
        findings = look_again(ctx)
    except Refused as error:
        say(str(error))
        findings = []
    found, why = diagnose(ctx, incident.id, findings, say=say)
    return Caught(incident=incident.id, findings=tuple(findings), contained=contained, diagnosis=found, undiagnosed=why)


def owed(ctx: AppContext, incident: Incident) -> bool:
    """Whether a pause was begun, or should have been, and is not proven. A relapse undoes what was proven before it."""
    steps = ctx.ledger.entries(incident=incident.id, kinds=PAUSES)
    if not steps:
        return bool(incident.findings) and incident.status is Status.OPEN
    return relapses.unproven(ctx, incident.id) is not None or steps[-1].kind in ("contain.started", "contain.failed")


def waiting(ctx: AppContext) -> bool:
    """Whether somebody contains a relapse, so that one must look whether that ends."""
    incident = record.find_open(ctx.ledger, ctx.app.key)
    if incident is None or relapses.unproven(ctx, incident.id) is None:
        return False
    return ctx.app.autonomy.contain or at_work(ctx)


def looked_at(ctx: AppContext, incident: str) -> bool:
    """Whether there is a diagnosis, or the record that there can be none, since the last relapse."""
    kinds = ["incident.diagnosed", "incident.undiagnosed", "relapse"]
    entries = [e for e in ctx.ledger.entries(incident=incident, kinds=kinds) if e.body.get("damage", True)]
    return bool(entries) and entries[-1].kind != "relapse"


def diagnose(
    ctx: AppContext, incident: str, findings: Sequence[Finding], *, say: Say = quiet
) -> tuple[Diagnosis | None, str | None]:
    """Diagnose and record it; an undecided diagnosis is recorded with its reason, and a person must decide."""
    with ctx.connect("recoverer", "diagnose") as connection:
        undone = earlier.undone(ctx, connection, but=incident)
    with ctx.connect("capturer", "diagnose") as connection:
        try:
            found = diagnosis.diagnose(
                connection,
                ctx.app,
                ctx.platform,
                findings,
                points=points.listing(ctx.store, ctx.app.key).points,
                undone=undone,
                ids=ctx.ids(),
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
    """What the detectors find since the newest verified point: for a diagnosis without a window of its own."""
    point = points.latest_verified(ctx.store, ctx.app.key)
    if point is None:
        raise Refused(f"app {ctx.app.key}: no verified recovery point to look back to; run `reinstate protect`")
    with ctx.connect("capturer", "look again") as connection:
        return list(detectors.run(connection, ctx.app, since=point.position))


def looking_back(ctx: AppContext) -> datetime | None:
    """The moment before which nothing counts any more: the end of the app's last closed incident."""
    return max((i.closed_at for i in record.all_of(ctx.ledger, ctx.app.key) if i.closed_at is not None), default=None)


def plain(value: Any) -> Any:
    """JSON-ready: times become ISO 8601 text, tuples lists."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
