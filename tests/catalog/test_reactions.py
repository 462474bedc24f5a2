"""What the catalogue says about reactions: playbooks, channels, approvals and schedules point somewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.client.schemas.schedules import CronSchedule
from pydantic import ValidationError

from catalog import cron
from catalog.errors import Invalid
from catalog.load import load

BOOK = """\
    playbooks:
      - key: bad-version
        title: Bad version
        scenario: A bad version.
        trigger: Doubles.
        impact: Wrong bills.
        steps: [Look.]
        verification: []
        rollback: []
        complete_when: []
        terminate_when: []
        owner: ada
        contacts: [ada]
"""
CHANNEL = '      - {key: desk, audience: responders, to: "env:SHOP_DESK"}\n'


@pytest.mark.parametrize(
    ("more", "path", "says"),
    [
        (BOOK.replace("bad-version", "other"), "detectors[0].playbook", "no playbook 'bad-version'. Use the key of a"),
        ("", "detectors[0].playbook", "no playbook 'bad-version'. Describe it under `playbooks:`"),
        (BOOK + "    channels:\n" + CHANNEL * 2, "channels[1].key", "'desk' is already key of channels[0]"),
        (
            BOOK + "    channels:\n" + CHANNEL.replace("}", ", severities: []}"),
            "channels[0].severities",
            "no severity, so nothing is ever sent",
        ),
        (BOOK + "    approvals: {expires_s: 0}\n", "approvals.expires_s", "greater than 0"),
        (
            BOOK + "    approvals: {expires_s: 86401}\n    journal: {retention_days: 1}\n",
            "approvals.expires_s",
            "after 1 days, when its journal is pruned",
        ),
        (BOOK + '    schedules: {protect: "0 25 * * *"}\n', "schedules.protect", "'25' is no hour (0 to 23)"),
        (BOOK + "    schedules: {drill: weekly}\n", "schedules.drill", "'weekly' has 1 fields instead of 5"),
    ],
)
def test_what_leads_nowhere_is_named(write: Callable[..., Path], more: str, path: str, says: str) -> None:
    root = write("columns: [ref]}\n", "columns: [ref], playbook: bad-version}\n" + more)
    with pytest.raises(Invalid) as refused:
        load(root)
    [problem] = refused.value.problems
    assert problem.path == f"apps[0].{path}"
    assert says in str(problem)


def test_reactions_that_are_right_are_taken(write: Callable[..., Path]) -> None:
    more = BOOK + "    channels:\n" + CHANNEL + '    schedules: {protect: "", drill: "0 5 * * 0"}\n'
    app = load(write("columns: [ref]}\n", "columns: [ref], playbook: bad-version}\n" + more)).app("shop")
    assert (app.detectors[0].playbook, app.channels[0].key, app.schedules.protect) == ("bad-version", "desk", "")


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("0 * * * *", True),
        ("*/15 0-6,22 1 jan-mar mon-fri", True),
        ("0 5 * * 7", True),
        ("5/10 * * * *", True),
        ("60 * * * *", False),
        ("0 24 * * *", False),
        ("0 0 0 * *", False),
        ("0 0 * 13 *", False),
        ("0 0 * * 8", False),
        ("0 0 * * someday", False),
        ("*/0 * * * *", False),
        ("0 6-2-1 * * *", False),
        ("0,, * * * *", False),
        ("0 * * *", False),
    ],
)
def test_a_cron_line_is_right_where_prefect_takes_it(line: str, right: bool) -> None:
    assert (cron.problem(line) is None) == right
    if right:
        CronSchedule(cron=line)
    else:
        with pytest.raises(ValidationError):
            CronSchedule(cron=line)
