"""The kinds of entries and the fields of their bodies.

Bodies are free: readers must cope with a missing field, writers may add more. What stands here is what the read models
(timeline, metrics, incident, report) look for. ``at``, ``app``, ``incident``, ``recovery`` and ``step`` are fields of
the entry itself and do not belong into a body. Times in bodies are ISO 8601 text, durations seconds.
"""

from __future__ import annotations

from typing import Final

INCIDENT_DETECTED: Final = "incident.detected"
INCIDENT_OPENED: Final = "incident.opened"
INCIDENT_JOINED: Final = "incident.joined"
INCIDENT_CONTAINED: Final = "incident.contained"
INCIDENT_DIAGNOSED: Final = "incident.diagnosed"
INCIDENT_UNDIAGNOSED: Final = "incident.undiagnosed"
INCIDENT_CLOSED: Final = "incident.closed"
INCIDENT_ANNOUNCED: Final = "incident.announced"
CONTAIN_STARTED: Final = "contain.started"
CONTAIN_LIVE_BEFORE: Final = "contain.live-before"
CONTAIN_PROVEN: Final = "contain.proven"
CONTAIN_FAILED: Final = "contain.failed"
POINT_TAKEN: Final = "point.taken"
POINT_PROVEN: Final = "point.proven"
MAINTAINED: Final = "maintained"
PLAN_MADE: Final = "plan.made"
PLAN_APPROVED: Final = "plan.approved"
PLAN_REJECTED: Final = "plan.rejected"
PLAN_SHOWN: Final = "plan.shown"
PLAN_EXPIRED: Final = "plan.expired"
PLAN_REFUSED: Final = "plan.refused"
RECOVERY_REQUESTED: Final = "recovery.requested"
RECOVERY_CONTINUED: Final = "recovery.continued"
RECOVERY_STARTED: Final = "recovery.started"
RECOVERY_STOPPED: Final = "recovery.stopped"
RECOVERY_ABANDONED: Final = "recovery.abandoned"
RECOVERY_FINISHED: Final = "recovery.finished"
STEP_INTENT: Final = "step.intent"
STEP_OUTCOME: Final = "step.outcome"
VERIFY_PASSED: Final = "verify.passed"
VERIFY_FAILED: Final = "verify.failed"
CANARY_STARTED: Final = "canary.started"
FENCE_LOWERED: Final = "fence.lowered"
FENCE_RAISED: Final = "fence.raised"
RESUME_BEGUN: Final = "resume.begun"
RESUME_STAGE: Final = "resume.stage"
RELAPSE: Final = "relapse"
OVERRIDE: Final = "override"
LEASE_TAKEN_OVER: Final = "lease.taken_over"
HEAD_RESET: Final = "ledger.head_reset"
NOTICE_BEGUN: Final = "notice.begun"
NOTICE_SENT: Final = "notice.sent"
NOTICE_FAILED: Final = "notice.failed"
DRILL_SCORED: Final = "drill.scored"
DATA_PLANNED: Final = "data.planned"
DATA_APPLIED: Final = "data.applied"
WORKFLOW_SEEN: Final = "workflow.seen"
WORKFLOW_GONE: Final = "workflow.gone"
WORKFLOW_PUBLISHED: Final = "workflow.published"
WORKFLOW_RECREATED: Final = "workflow.recreated"
EVENTS_HELD: Final = "events.held"
EVENTS_RELEASED: Final = "events.released"
EVENT_BEGUN: Final = "event.begun"
EVENT_ENDED: Final = "event.ended"
EVENT_UNKNOWN: Final = "event.unknown"
EVENT_SETTLED: Final = "event.settled"
EVENT_DISCARDED: Final = "event.discarded"
COMPENSATION_BEGUN: Final = "compensation.begun"
COMPENSATION_ENDED: Final = "compensation.ended"

BODY_FIELDS: Final[dict[str, str]] = {
    WORKFLOW_SEEN: "workflow, platform_id, name, version, settings (hash), active, live? (version), seen_at, "
    "object (name in the store), not_before? (last look at which it was another), changed_at?, author?, by?, reason?, "
    "since? (in use, says the platform), references? [{id, name, kind, changed_at?}], passed? (it had come and gone), "
    "platform_version?, updated_at?, mark? (by which the next look sees that nothing changed)",
    WORKFLOW_GONE: "workflow, platform_id, seen_at, not_before?",
    WORKFLOW_PUBLISHED: "workflow, platform_id, version, previous?, by, reason, outcome",
    WORKFLOW_RECREATED: "workflow, platform_id, previous_id, version, references [workflow whose calls now follow]",
    EVENTS_HELD: "workflows [key], policy {workflow: replay | discard | reject}, error?",
    EVENTS_RELEASED: "workflows [key], sent n, repeated n, failed [event id], unknown [event id], "
    "by_workflow {key: n}, recorded_only {discarded | rejected: n}, seconds",
    EVENT_BEGUN: "workflow, event (key), attempt n: written before it is sent",
    EVENT_ENDED: "workflow, event (key), outcome (done | failed | not-sent | running), run?, why?: "
    "how what began ended, or that it arrived and its run goes on",
    EVENT_UNKNOWN: "workflow, event (key), run?, why: it may or may not have run; a person must look",
    EVENT_SETTLED: "workflow, event (key), by, reason, done (bool): a person looked",
    EVENT_DISCARDED: "workflow, event (key), by, reason: a held event that a person does not want sent",
    COMPENSATION_BEGUN: "workflow, run, step_name, key, attempt n",
    COMPENSATION_ENDED: "workflow, run, step_name, key, status (done | not-needed | failed | unknown | manual), "
    "seconds, error?, manual? (what a person must do)",
    DATA_PLANNED: "operation (undo|restore|erase|prune|rotate|...), plan_hash, summary [sentence], by, reason?",
    DATA_APPLIED: "operation, plan_hash, summary [sentence], by, reason?, counts? {table: {...}}",
    INCIDENT_DETECTED: "findings [{detector, table, rows, message, ...}], detected_at?, by?",
    INCIDENT_OPENED: "severity, title, impact, workflows [key], findings [...], detected_at?, first_bad_at?, by?, "
    "objectives? {rto_s, rpo_s}, playbook? {key, title, owner, steps [sentence]}",
    INCIDENT_JOINED: "severity, title, impact, workflows [key], findings [...], detected_at?, by?, playbook? {...}",
    INCIDENT_CONTAINED: "workflows [key], seconds?, proof? [sentence]",
    INCIDENT_DIAGNOSED: "a diagnosis: workflow, bad_version, good_version, published_at, first_bad_at, bad_runs [...], "
    "point_id, confidence 0..1, evidence [sentence], unattributed [...]",
    INCIDENT_UNDIAGNOSED: "why",
    INCIDENT_CLOSED: "resolution (resolved | false-alarm | handed-over), by, reason",
    CONTAIN_STARTED: "workflows [key], active_before [key]",
    CONTAIN_LIVE_BEFORE: "versions {workflow: hash}, sources? {workflow: history | override} (not read when paused)",
    CONTAIN_PROVEN: "workflows [key], seconds, stopped_runs [run id], roles? [role], proof? [sentence], "
    "because? {workflow: why it is paused too}, cut_runs? [run id] (canceled when we looked), "
    "dropped_runs? [run id] (by the pause itself), limits? [sentence] (what the platform cannot do)",
    CONTAIN_FAILED: "workflows [key], reason, went_on? [run id] (stopped earlier, and ended all the same)",
    POINT_TAKEN: "point, verified, rows, workflows {key: version}, in_flight n, seconds?",
    POINT_PROVEN: "point, passed, rows, ran n, failed [sentence], problems [sentence], seconds",
    MAINTAINED: "forgotten {table: images of the journal}, audited? (point), missed n (rows), read? (point), bytes n, "
    "waits [sentence], problems [sentence], by",
    PLAN_MADE: "the plan as plain JSON and its hash; mode, policy, effects [{table, delete, update, insert, merged}], "
    "conflicts {kind: n}, suspects n, events [...], steps [{id, kind, title}], notes [sentence], objectives?",
    PLAN_APPROVED: "plan_hash, by, reason, identity_proven",
    PLAN_REJECTED: "plan_hash, by, reason",
    PLAN_SHOWN: "plan_hash, flow_run, expires_at",
    PLAN_EXPIRED: "plan_hash, expires_at",
    PLAN_REFUSED: "mode, reason",
    RECOVERY_REQUESTED: "flow_run, trigger (operator | event | steward | command), number n, mode, "
    "handled_by? (who had the incident in hand)",
    RECOVERY_CONTINUED: "flow_run, previous, why, attempt n",
    RECOVERY_STARTED: "mode, plan_hash, by?, flow_run?, versions? {name: version}, objectives? {rto_s, rpo_s}",
    RECOVERY_STOPPED: "state (where it stopped safely), reason, next?, heals? (the machinery failed, not the recovery)",
    RECOVERY_ABANDONED: "by, reason",
    RECOVERY_FINISHED: "plan_hash, mode, state (resumed | logic-restored | data-restored), data_loss_s?",
    STEP_INTENT: "plan_hash?, title?, kind?",
    STEP_OUTCOME: "status (done | failed | skipped), seconds, detail {...}, error?",
    VERIFY_PASSED: "suites {ran, failed [...]}, agreement [{name, holds, detail}], seconds?",
    VERIFY_FAILED: "suites {ran, failed [...]}, agreement [{name, holds, detail}], seconds?",
    CANARY_STARTED: "workflow, position",
    FENCE_LOWERED: "workflows [key], position",
    FENCE_RAISED: "workflows [key], position",
    RESUME_BEGUN: "workflows [key], position",
    RESUME_STAGE: "stage n, workflows [key], ok",
    RELAPSE: "findings [sentence], workflows [key]",
    OVERRIDE: "what, by, reason",
    LEASE_TAKEN_OVER: "holder, previous, reason, fencing n, previous_since",
    HEAD_RESET: "by, reason, seq n",
    INCIDENT_ANNOUNCED: "event (id of the Prefect event)",
    NOTICE_BEGUN: "incident_id, state, audience, channel, about seq n, update n, attempt n, process {...}, until",
    NOTICE_SENT: "state, audience, channel, about seq n, update n, begun seq n, subject, seconds, next_by?",
    NOTICE_FAILED: "state, audience, channel, about seq n, update n, begun seq n, why, attempt n, gave_up",
    DRILL_SCORED: "a scorecard: drill, scenario, passed, reasons, ...",
}

RESUMED: Final = "resumed"
"""The state of a finished recovery after which the app is at work again."""

CONTAINED: Final = frozenset({CONTAIN_PROVEN, INCIDENT_CONTAINED})
"""Either says that the pause was proven."""
