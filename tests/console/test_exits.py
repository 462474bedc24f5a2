"""Every error of every room has a documented exit code."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

import catalog.errors
import checks.errors
import console.errors
import incidents.errors
import ledger.errors
import platforms.base
import recovery.errors
import snapshots.errors
import snapshots.points.errors
from console import exits
from console.main import fail

ROOMS = (
    "estate", "ledger", "catalog", "platforms", "ingress", "snapshots", "checks", "discovery", "incidents", "recovery",
    "drills", "console",
)  # fmt: skip
NOT_SHOWN = {
    "platforms.fake_model.EntryClosed",  # what n8n says by an answer 404
    "platforms.fake_model.Suspend",  # what n8n does by going on later
    "catalog.placeholders.Malformed",  # half a sentence, which the rule that asked ends
}


def subclasses(base: type[BaseException]) -> Iterator[type[BaseException]]:
    for found in base.__subclasses__():
        yield found
        yield from subclasses(found)


def our_errors() -> list[type[BaseException]]:
    """Every exception class that a room defines, wherever it stands."""
    for room in ROOMS:
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    ours = {
        e
        for e in subclasses(Exception)
        if e.__module__.partition(".")[0] in ROOMS
        and not e.__name__.startswith("_")  # caught where it is raised
        and f"{e.__module__}.{e.__qualname__}" not in NOT_SHOWN
    }
    return sorted(ours, key=lambda e: (e.__module__, e.__qualname__))


def code(kind: type[BaseException]) -> int:
    return exits.code(kind.__new__(kind))


def test_every_error_of_every_room_has_a_documented_code() -> None:
    found = our_errors()
    assert len(found) > 40
    without = [f"{e.__module__}.{e.__qualname__}" for e in found if code(e) not in set(exits.MEANING) - {0, 1}]
    assert without == []


def test_every_mapped_name_exists() -> None:
    for name in exits.BY_ERROR:
        module, _, attribute = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), attribute), Exception), name


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (catalog.errors.Invalid, exits.CATALOGUE),
        (catalog.errors.SecretMissing, exits.CATALOGUE),
        (checks.errors.SuiteBroken, exits.CATALOGUE),
        (checks.errors.Undiagnosed, exits.REFUSED),
        (platforms.base.Permanent, exits.UNREACHABLE),
        (platforms.base.Retryable, exits.UNREACHABLE),
        (snapshots.errors.Unreachable, exits.UNREACHABLE),
        (snapshots.errors.Incomplete, exits.REFUSED),
        (snapshots.points.errors.CapPassed, exits.REFUSED),
        (snapshots.points.errors.PointMissing, exits.NOTHING),
        (snapshots.points.errors.StoreUnreachable, exits.UNREACHABLE),
        (recovery.errors.Refused, exits.REFUSED),
        (recovery.errors.PauseNotProven, exits.NOT_PROVEN),
        (recovery.errors.VerificationFailed, exits.NOT_PROVEN),
        (recovery.errors.Relapse, exits.NOT_PROVEN),
        (recovery.errors.NothingToRecover, exits.NOTHING),
        (ledger.errors.LeaseHeld, exits.HELD),
        (ledger.errors.Unreachable, exits.UNREACHABLE),
        (ledger.errors.Damaged, exits.REFUSED),
        (incidents.errors.UnknownIncident, exits.NOTHING),
        (console.errors.BadUse, exits.USAGE),
        (psycopg.errors.ConnectionFailure, exits.UNREACHABLE),
        (psycopg.errors.InsufficientPrivilege, exits.UNREACHABLE),
        (ConnectionRefusedError, exits.UNREACHABLE),
        (ValueError, exits.UNEXPECTED),
    ],
)
def test_the_code_says_what_a_script_must_know(kind: type[BaseException], expected: int) -> None:
    assert code(kind) == expected


def test_a_held_lease_names_its_holder(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    held = ledger.errors.LeaseHeld(app="desk", holder="recovery by process 7", since=at, until=at, where="here")
    assert fail(held) == exits.HELD
    assert "recovery by process 7" in capsys.readouterr().err


def test_an_unforeseen_error_is_named_by_its_type_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(ValueError("two\nlines")) == exits.UNEXPECTED
    assert capsys.readouterr().err == "reinstate: ValueError: two lines\n"
