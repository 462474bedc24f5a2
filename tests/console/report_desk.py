"""For tests of the report: a ledger that tells an incident, and a parser that is strict about the page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from incidents import record
from ledger import Ledger, kinds, steps

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
VOID = {"meta", "br", "link", "img", "hr", "input"}
HASH = "c" * 64


class Page(HTMLParser):
    """Parses strictly: every element that opens closes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


class Teller:
    """Writes the ledger of an incident, a second per entry."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.ledger = Ledger(folder / "ledger", clock=self._tick)
        self.incident = ""

    def _tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def say(self, kind: str, /, recovery: str | None = None, step: str | None = None, **body: Any) -> None:
        self.ledger.append(kind, app="desk", incident=self.incident, recovery=recovery, step=step, body=body)

    def opened(self, **fields: Any) -> None:
        given = {"severity": "sev1", "title": "Orders with wrong totals", "workflows": ["intake"], **fields}
        self.incident = record.open_incident(self.ledger, "desk", **given).id

    def diagnosed(self, **fields: Any) -> None:
        run = {"workflow": "intake", "run_id": "7", "why": "bad-version", "xids": [1]}
        self.say(
            kinds.INCIDENT_DIAGNOSED,
            **{
                "workflow": "intake",
                "bad_version": "b" * 64,
                "good_version": "a" * 64,
                "published_at": START.isoformat(),
                "first_bad_at": START.isoformat(),
                "bad_runs": [run, run, {**run, "why": "entangled"}],
                "point_id": "P7",
                "confidence": 0.97,
                "evidence": ["312 of 320 bad rows were written by version bbbb"],
                "unattributed": [],
                **fields,
            },
        )

    def step(self, name: str, kind: str, status: steps.Status, **detail: Any) -> None:
        steps.intent(self.ledger, "R1", name, app="desk", incident=self.incident, body={"kind": kind, "title": name})
        body = {"seconds": 2.5, "detail": detail}
        steps.outcome(self.ledger, "R1", name, app="desk", incident=self.incident, status=status, body=body)

    def planned(self) -> None:
        self.say(
            kinds.PLAN_MADE,
            "R1",
            hash=HASH,
            mode="both",
            policy="non-conflicting-only",
            effects=[{"table": "sales.orders", "delete": 2, "update": 600, "insert": 0, "merged": 50}],
            conflicts={"later-same-column": 4},
            suspects=3,
            events=[{}] * 12,
            carried_xids=[9],
            notes=["run 8 has no event key"],
            steps=[
                {"id": "undo", "kind": "undo", "title": "Undo the damage"},
                {"id": "replay", "kind": "replay", "title": "Replay the events"},
                {"id": "resume", "kind": "resume", "title": "Resume"},
            ],
        )

    def happy(self) -> None:
        self.opened(impact="Customers were billed twice", findings=[{"message": "12 twice", "table": "t", "rows": 12}])
        self.say(kinds.CONTAIN_PROVEN, workflows=["intake", "stock"], seconds=1.1, stopped_runs=["5"])
        self.diagnosed()
        self.planned()
        self.say(kinds.PLAN_APPROVED, "R1", plan_hash=HASH, by="ann", reason="checked", identity_proven=False)
        goals = {"rto_s": 900, "rpo_s": 0}
        self.say(
            kinds.RECOVERY_STARTED, "R1", mode="both", flow_run="f-1", objectives=goals, versions={"n8n": "2.40.7"}
        )
        table = {"delete": 2, "update": 601, "insert": 0, "merged": 51}
        left = [{"table": "sales.orders", "key": ["jane.doe@h.test"], "kind": "referenced"}]
        self.step("undo", "undo", "done", tables={"sales.orders": table}, conflicts={"later-same-column": 4}, left=left)
        self.step("replay", "replay", "done", events=12, replayed=11, already_there=1)
        clause = {"name": "live version", "holds": True, "detail": "intake runs aaaa"}
        self.say(kinds.VERIFY_PASSED, "R1", suites={"ran": 42, "failed": []}, agreement=[clause])
        self.step("resume", "resume", "done")
        self.say(kinds.RESUME_STAGE, "R1", stage=1, workflows=["intake", "stock"], ok=True)
        self.say(kinds.RECOVERY_FINISHED, "R1", state="resumed", data_loss_s=0)
        record.close(self.ledger, self.incident, reason="suites passed")
