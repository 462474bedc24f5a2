"""Made-up cases: who is blamed, and when nobody may be."""

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.blame import Author, Verdict, Violation, Write, score, single_out
from checks.errors import Undiagnosed

GOOD = Author(workflow="intake", version="good")
BAD = Author(workflow="intake", version="bad")
PAYMENT = Author(workflow="payment", version="p1")
NEW_PAYMENT = Author(workflow="payment", version="p2")
KNOWN = {"intake": "good", "payment": "p1"}


def write(author: Author | None, run: str | None = None, *, created: bool = False, actor: str = "role") -> Write:
    return Write(xid=hash((author, run)) & 0xFFFF, actor=actor, created=created, author=author, run=run)


def row(n: int, *writes: Write, kind: str = "rule") -> Violation:
    return Violation(table="shop.orders", key=(str(n),), kind=kind, writes=writes)


def runs(**counts: int) -> dict[Author, set[str]]:
    authors = {"good": GOOD, "bad": BAD, "payment": PAYMENT, "new_payment": NEW_PAYMENT}
    return {authors[name]: {f"{name}-{i}" for i in range(n)} for name, n in counts.items()}


def blame(rows: Sequence[Violation], writing: dict[Author, set[str]], good: dict[str, str] | None = None) -> Verdict:
    order = [GOOD, PAYMENT, BAD, NEW_PAYMENT]
    return single_out(rows, writing, good=KNOWN if good is None else good, order=order)


def test_the_new_version_that_wrote_the_rows_is_blamed() -> None:
    verdict = blame([row(i, write(BAD, f"bad-{i}")) for i in range(10)], runs(good=50, bad=12, payment=40))
    assert verdict.bad.author == BAD
    assert verdict.confidence == 1.0
    assert (verdict.bad.guilty, verdict.bad.runs) == (10, 12)


def test_runs_whose_damage_nobody_sees_do_not_clear_the_version() -> None:
    verdict = blame([row(i, write(BAD, f"bad-{i}")) for i in range(10)], runs(good=5, bad=100))
    assert verdict.bad.author == BAD


def test_a_workflow_that_works_on_damaged_rows_afterwards_is_not_blamed() -> None:
    """Payments for orders taken badly write the same rows; most other payments do not."""
    rows = [row(i, write(BAD, f"bad-{i}"), write(PAYMENT, f"payment-{i}")) for i in range(10)]
    assert blame(rows, runs(good=50, bad=12, payment=15)).bad.author == BAD


def test_a_new_but_harmless_version_of_a_later_workflow_is_not_blamed() -> None:
    rows = [row(i, write(BAD, f"bad-{i}"), *([write(NEW_PAYMENT, f"new_payment-{i}")] if i % 3 == 0 else []))
            for i in range(30)]  # fmt: skip
    verdict = blame(rows, runs(bad=30, new_payment=40))
    assert verdict.bad.author == BAD
    assert [s.author for s in verdict.others] == [NEW_PAYMENT]


def test_a_new_but_harmless_version_that_made_the_rows_is_not_blamed() -> None:
    """The other way round: intake made the orders rightly, the new payment broke some of them."""
    rows = [row(i, write(BAD, f"bad-{i}"), write(NEW_PAYMENT, f"new_payment-{i}")) for i in range(10)]
    assert blame(rows, runs(bad=40, new_payment=11)).bad.author == NEW_PAYMENT


def test_good_runs_still_in_flight_at_the_publish_are_not_blamed() -> None:
    rows = [row(i, write(BAD, f"bad-{i}")) for i in range(20)] + [row(99, write(GOOD, "good-1"), write(BAD, "bad-1"))]
    verdict = blame(rows, runs(good=30, bad=25))
    assert verdict.bad.author == BAD
    assert verdict.versions == {"bad"}


def test_a_row_everybody_writes_says_little() -> None:
    """One stock counter is wrong, and every run of every version wrote it."""
    hot = row(
        0, *[write(GOOD, f"good-{i}") for i in range(5)], write(BAD, "bad-0"), write(NEW_PAYMENT, "new_payment-0")
    )
    rows = [hot, *(row(i, write(BAD, f"bad-{i}")) for i in range(1, 4))]
    assert blame(rows, runs(good=5, bad=4, new_payment=20)).bad.author == BAD


def test_who_created_a_duplicate_is_asked_not_who_touched_it() -> None:
    rows = [
        row(i, write(BAD, f"bad-{i}", created=True), write(NEW_PAYMENT, f"new_payment-{i}"), kind="duplicates")
        for i in range(5)
    ]
    verdict = blame(rows, runs(bad=9, new_payment=5))
    assert verdict.bad.author == BAD
    assert verdict.others == ()


def test_a_second_bad_version_of_the_workflow_counts_too_and_the_first_names_it() -> None:
    again = Author(workflow="intake", version="worse")
    rows = [row(i, write(BAD, f"bad-{i}")) for i in range(4)] + [row(i, write(again, f"w-{i}")) for i in range(10, 20)]
    verdict = single_out(rows, runs(good=9, bad=4), good=KNOWN, order=[GOOD, BAD, again])
    assert verdict.bad.author == BAD
    assert verdict.versions == {"bad", "worse"}
    assert verdict.confidence == 1.0


def test_a_later_version_that_does_no_harm_is_left_alone() -> None:
    fixed = Author(workflow="intake", version="fixed")
    rows = [row(i, write(BAD, f"bad-{i}"), *([write(fixed, "f-1")] if i == 1 else [])) for i in range(10)]
    verdict = single_out(rows, {**runs(bad=10), fixed: {"f-1", "f-2"}}, good=KNOWN, order=[GOOD, BAD, fixed])
    assert verdict.versions == {"bad"}


def test_rows_by_a_person_lower_the_confidence() -> None:
    rows = [row(i, write(BAD, f"bad-{i}")) for i in range(8)] + [
        row(i, write(None, actor="ada")) for i in range(20, 22)
    ]
    verdict = blame(rows, runs(bad=8))
    assert verdict.confidence == pytest.approx(0.8)
    assert verdict.outside == {"ada": 2}


def test_damage_by_a_person_is_blamed_on_no_version() -> None:
    """A new version runs meanwhile and does nothing wrong."""
    rows = [row(i, write(None, actor="ada")) for i in range(20)]
    with pytest.raises(Undiagnosed, match=r"ada: 20.*outside the workflows"):
        blame(rows, runs(good=10, bad=30))


def test_damage_mostly_by_a_person_is_not_blamed_on_the_version_that_did_a_little() -> None:
    rows = [row(i, write(None, actor="ada")) for i in range(20)] + [row(50, write(BAD, "bad-1"))]
    with pytest.raises(Undiagnosed, match="ada: 20"):
        blame(rows, runs(bad=30))


def test_damage_by_the_version_that_was_proven_good_is_not_blamed_on_it() -> None:
    with pytest.raises(Undiagnosed, match="no new version explains the 10 violating rows"):
        blame([row(i, write(GOOD, f"good-{i}")) for i in range(10)], runs(good=10, bad=5))


def test_a_new_version_that_does_what_the_good_one_did_is_not_blamed() -> None:
    """Bad events, or a new rule: both versions break it as often."""
    rows = [row(i, write(GOOD, f"good-{i}")) for i in range(10)] + [
        row(i, write(BAD, f"bad-{i}")) for i in range(20, 35)
    ]
    with pytest.raises(Undiagnosed, match="known to be good, does it too"):
        blame(rows, runs(good=10, bad=15))


def test_two_new_versions_that_fit_alike_leave_it_open() -> None:
    rows = [row(i, write(BAD, f"bad-{i}"), write(NEW_PAYMENT, f"new_payment-{i}")) for i in range(10)]
    with pytest.raises(Undiagnosed, match="both are new"):
        blame(rows, runs(bad=10, new_payment=10))


def test_rows_nobody_wrote_are_blamed_on_nobody() -> None:
    with pytest.raises(Undiagnosed, match="nobody in the journal: 3"):
        blame([row(i) for i in range(3)], runs(bad=3))


def test_a_version_is_found_even_where_its_runs_cannot_be_told_apart() -> None:
    assert blame([row(i, write(BAD, None)) for i in range(5)], {}).bad.author == BAD


@given(
    st.lists(st.lists(st.sampled_from([GOOD, BAD, PAYMENT, NEW_PAYMENT, None]), max_size=4), min_size=1, max_size=20)
)
def test_a_verdict_is_a_new_version_with_half_of_the_rows(writers: list[list[Author | None]]) -> None:
    rows = [row(i, *(write(a, f"{a}-{i}" if a else None) for a in set(who))) for i, who in enumerate(writers)]
    writing: dict[Author, set[str]] = {a: {f"{a}-{i}" for i in range(20)} for a in (GOOD, BAD, PAYMENT, NEW_PAYMENT)}
    votes = sum(s.votes for s in score(rows, writing))
    assert votes <= len(rows) + 1e-9
    with contextlib.suppress(Undiagnosed):
        verdict = blame(rows, writing)
        assert verdict.bad.author in {BAD, NEW_PAYMENT}
        assert 0.5 <= verdict.confidence <= 1.0
