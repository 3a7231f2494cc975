"""Figures of a recording are what its trials say, with nothing of failed or audited ones in them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from vivace_methods.timing.ratios import median_interval
from vivace_methods.timing.summary import Agreement, Percentiles, divergence, summarise
from vivace_methods.timing.trials import AuditTrial, Observed, Recording, Trial


def trial(arm: str, prompt: str, repetition: int, slower: float = 1.0, **changes: Any) -> Trial:
    """A prefill of 1 s, then three steps of 0.5 s that give two tokens each, and 0.5 s until the device rests."""
    made = Trial(
        arm=arm,
        prompt=prompt,
        repetition=repetition,
        place=0,
        tokens=(1, 2, 3, 4, 5, 6, 7),
        emitted_s=tuple(slower * moment for moment in (1.0, 1.5, 2.0, 2.5)),
        step_tokens=(1, 2, 2, 2),
        total_s=slower * 3.0,
        observed=Observed(peak_bytes={"torch": 100 + repetition, "driver": 200}, energy_j=14.0),
    )
    return replace(made, **changes)


def recording(*changed: Trial, slower: float = 1.0) -> Recording:
    """Two prompts three times, each by the baseline and by an arm, some of whose trials may be replaced."""
    trials = {
        each.key: each
        for repetition in range(3)
        for prompt, longer in (("short", 1.0), ("long", 4.0))
        for each in (
            trial("baseline", prompt, repetition, longer),
            trial("arm", prompt, repetition, longer * slower),
        )
    }
    return Recording("baseline", tuple({**trials, **{each.key: each for each in changed}}.values()))


def test_figures_of_an_arm() -> None:
    figures = summarise(Recording("a", tuple(trial("a", "p", number) for number in range(5))))["a"]
    assert (figures.trials, figures.failed, figures.comparison) == (5, 0, None)
    for value, expected in (
        (figures.ttft_s, 1.0),
        (figures.tpot_s, 0.25),
        (figures.total_s, 3.0),
        (figures.tokens_per_s, 7 / 3),
        (figures.decode_tokens_per_s, 4.0),
    ):
        assert value is not None and (value.value, value.low, value.high) == pytest.approx((expected,) * 3)
        assert value.n == 5
    assert figures.itl_s == Percentiles(0.5, 0.5, 0.5)
    assert figures.peak_bytes == {"torch": 104, "driver": 200}
    assert figures.energy_j_per_token == 2.0
    assert figures.output_tokens == {"p": 7.0}


def test_latencies_are_those_of_all_steps() -> None:
    """A percentile of each trial's own would never show the one long wait."""
    stalled = trial("a", "p", 0, emitted_s=(*map(float, range(100)), 109.0))
    latencies = summarise(Recording("a", (stalled,)))["a"].itl_s
    assert latencies is not None and latencies.p90 == 1.0 and latencies.p99 == pytest.approx(1.09)


def test_an_arm_beside_the_baseline() -> None:
    """Prompts of very different lengths: unpaired times would have wide intervals."""
    compared = summarise(recording(slower=1.1))["arm"].comparison
    assert compared is not None
    for ratio, expected in (
        (compared.ttft_s, 1.1),
        (compared.tpot_s, 1.1),
        (compared.total_s, 1.1),
        (compared.tokens_per_s, 1 / 1.1),
    ):
        assert ratio is not None and (ratio.value, ratio.low, ratio.high) == pytest.approx((expected,) * 3)
        assert ratio.n == 6
    assert compared.agreement == Agreement(6, 1.0, None, 1.0)


def test_agreement_is_counted_to_the_first_token_that_differs() -> None:
    others = (
        trial("arm", "short", 0, tokens=(1, 2, 9, 4, 5, 6, 7)),  # differs at 2, and later is the same again
        trial("arm", "long", 0, tokens=(1, 2, 3, 4, 5)),  # ends sooner
        trial("arm", "short", 1, tokens=(9, 2, 3, 4, 5, 6, 7)),
    )
    compared = summarise(recording(*others))["arm"].comparison
    assert compared is not None
    agreement = compared.agreement
    assert agreement is not None and agreement.n == 6 and agreement.same == 0.5
    assert agreement.first_divergence == 2.0
    assert agreement.before_divergence == pytest.approx((2 / 7 + 5 / 7 + 0 + 3) / 6)


@pytest.mark.parametrize(
    ("one", "other", "place"), [([1], [1], None), ([], [], None), ([1], [1, 2], 1), ([1, 2], [1], 1), ([3], [4], 0)]
)
def test_where_answers_differ(one: list[int], other: list[int], place: int | None) -> None:
    assert divergence(one, other) == place


def test_failed_and_audited_trials_are_in_no_figure() -> None:
    broken = trial("arm", "short", 0, tokens=(), emitted_s=(), step_tokens=(), failure="out of memory (…)")
    made = recording(broken)
    slow = AuditTrial(trial("arm", "short", 0, 50.0), "again")
    figures = summarise(Recording(made.baseline, made.trials, (slow,) * 20))["arm"]
    assert (figures.trials, figures.failed, figures.failures) == (5, 1, ("out of memory (…)",))
    assert figures.total_s is not None and figures.total_s.n == 5 and figures.total_s.value == 12.0
    assert figures.comparison is not None and figures.comparison.total_s is not None
    assert figures.comparison.total_s.n == 5


def test_an_arm_that_always_fails_has_no_figures_and_no_ratios() -> None:
    nothing = {"tokens": (), "emitted_s": (), "step_tokens": (), "observed": Observed(), "failure": "ValueError: no"}
    broken = [trial("arm", prompt, number, **nothing) for prompt in ("short", "long") for number in range(3)]
    figures = summarise(recording(*broken))
    assert figures["arm"].trials == 0 and figures["arm"].failed == 6
    assert figures["arm"].ttft_s is None and figures["arm"].itl_s is None
    assert figures["arm"].energy_j_per_token is None and figures["arm"].output_tokens == {}
    compared = figures["arm"].comparison
    assert compared is not None and compared.total_s is None and compared.agreement is None


def test_an_answer_of_one_step_has_no_time_per_further_token() -> None:
    one_step = [
        trial(arm, prompt, number, tokens=(1,), emitted_s=(1.0,), step_tokens=(1,))
        for arm in ("arm", "baseline")
        for prompt in ("short", "long")
        for number in range(3)
    ]
    figures = summarise(recording(*one_step))["arm"]
    assert figures.tpot_s is None and figures.decode_tokens_per_s is None and figures.itl_s is None
    assert figures.comparison is not None and figures.comparison.tpot_s is None
    assert figures.comparison.ttft_s is not None and figures.comparison.ttft_s.value == 1.0


def test_repetitions_of_a_prompt_are_no_independent_witnesses() -> None:
    """Prompts drawn whole: five prompts a hundred times say no more of prompts at large than five do."""
    values = [float(prompt) for prompt in range(5) for _ in range(100)]
    prompts = [prompt for prompt in range(5) for _ in range(100)]
    drawn, alone = median_interval(values, prompts), median_interval(values)
    assert drawn.low is not None and drawn.high is not None and drawn.high - drawn.low >= 2.0
    assert alone.low == alone.high == 2.0
    with pytest.raises(ValueError, match="group"):
        median_interval(values, prompts[1:])


def test_figures_are_json() -> None:
    for figures in summarise(recording(slower=2.0)).values():
        assert json.loads(json.dumps(figures.as_json())) == figures.as_json() | {"failures": []}
