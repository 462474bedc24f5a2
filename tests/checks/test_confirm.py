"""Findings become actions once, not every time two detectors look at the same damage."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from checks.confirm import ROUNDS, Memory, confirmed, decide
from checks.model import Finding

START = datetime(2026, 1, 1, tzinfo=UTC)


def finding(
    detector: str, kind: str = "rule", *, table: str = "shop.orders", large: bool = True, contain: bool = True
) -> Finding:
    return Finding(
        detector=detector, kind=kind, table=table, rows=3, keys=(("1",),), message=detector, confirmed=large,
        contain=contain, severity="sev2", at=START,
    )  # fmt: skip


def play(rounds: Sequence[Sequence[Finding]], *, cooldown_s: float = 10, step_s: float = 1) -> list[str]:
    """What was decided in each round: ``contain``, ``joined``, ``warn`` or nothing."""
    memory, said = Memory(), []
    for i, findings in enumerate(rounds):
        memory, decision = decide(memory, findings, now=START + timedelta(seconds=i * step_s), cooldown_s=cooldown_s)
        said.append("contain" if decision.contain else "joined" if decision.joined else "warn" if decision.warn else "")
    return said


def test_facts_about_rows_are_confirmed_at_once() -> None:
    fact = finding("twice", "duplicates")
    assert confirmed([fact, finding("small", large=False), finding("mild", contain=False)]) == (fact,)


def test_a_drift_is_confirmed_beside_a_fact_about_its_table_only() -> None:
    near, alone = finding("value", "value-drift"), finding("other", "value-drift", table="shop.items")
    fact = finding("twice", "duplicates")
    assert confirmed([near, alone]) == ()
    assert confirmed([near, alone, fact]) == (near, fact)


def test_a_drift_alone_must_last() -> None:
    drift = finding("value", "value-drift")
    assert play([[drift]] * (ROUNDS - 1) + [[]] + [[drift]] * ROUNDS) == ["warn", "warn", "", "warn", "warn", "contain"]


def test_a_harmless_burst_only_warns() -> None:
    assert set(play([[finding("volume", "volume-drift", contain=False)]] * 20)) == {"warn"}


def test_two_detectors_in_turn_join_one_incident() -> None:
    a, b = finding("a"), finding("b", "orphans", table="shop.items")
    assert play([[a], [b], [a], [b], [], [a], [], [b]]) == ["contain", *["joined"] * 3, "", "joined", "", "joined"]


def test_new_damage_after_a_quiet_time_is_a_new_incident() -> None:
    a = finding("a")
    assert play([[a], *[[]] * 12, [a]])[-1] == "contain"
    assert play([[a], *[[]] * 3, [a]])[-1] == "joined"  # quiet, but the time is not up
    assert play([[a], *[[a]] * 12, [a]])[-1] == "joined"  # the time is up, but never quiet


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=3, unique=True), max_size=60), st.integers(0, 20))
def test_two_containments_are_never_closer_than_cooldown_and_quiet(rounds: list[list[str]], cooldown: int) -> None:
    said = play([[finding(d) for d in names] for names in rounds], cooldown_s=cooldown)
    acts = [i for i, what in enumerate(said) if what == "contain"]
    for one, other in itertools.pairwise(acts):
        assert other - one >= max(cooldown, ROUNDS + 1)
    for i, what in enumerate(said):
        assert (what in ("contain", "joined")) == bool(rounds[i])
