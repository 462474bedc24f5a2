"""Every capability has its sentence, and only what is missing is told."""

from dataclasses import fields, replace

from platforms.base import Capabilities
from platforms.fake import EVERYTHING, FLOW_ENGINE
from platforms.limits import EXTRA, MISSING, PRESENT, limits

BEST = replace(EVERYTHING, keeps_ids=True)


def test_every_capability_has_one_sentence() -> None:
    assert {*MISSING, *PRESENT, *EXTRA} == {field.name for field in fields(Capabilities)}
    assert not {*MISSING} & {*PRESENT}
    for sentence in (*MISSING.values(), *PRESENT.values()):
        assert sentence.endswith(".")
        assert sentence[0].isupper()
        assert "\n" not in sentence


def test_only_what_is_missing_is_told() -> None:
    assert limits(BEST) == ()
    assert limits(EVERYTHING) == (MISSING["keeps_ids"],)
    for name, sentence in {**MISSING, **PRESENT}.items():
        assert limits(replace(BEST, **{name: name in PRESENT})) == (sentence,)


def test_a_platform_without_runs_is_told_in_full() -> None:
    told = limits(FLOW_ENGINE)
    assert MISSING["executions"] in told
    assert PRESENT["drops_in_flight"] in told
    assert MISSING["replays_privately"] not in told
