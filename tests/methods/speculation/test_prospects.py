"""What is expected of speculation, on answers whose times are known."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from vivace_methods.arms import Arm
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.registry import parse_method
from vivace_methods.requests import Request
from vivace_methods.speculation.prospects.answers import Answer, answering
from vivace_methods.speculation.prospects.outlook import (
    Outlook,
    PassTimes,
    Prospect,
    measured_speed,
    outlook,
    proposed,
    ratio_of_sums,
)
from vivace_methods.timing.limits import Device, Floor
from vivace_methods.timing.ratios import Estimate

STEP, DRAFT = 1.0, 0.5


def plain(tokens: int = 20) -> Answer:
    """A second for each token, and a byte."""
    return Answer(
        tokens=(1,) * tokens, given=(1,) * (tokens - 1), step_s=(STEP,) * (tokens - 1), pass_s=(STEP,) * (tokens - 1),
        verified=(1,) * (tokens - 1), experts=(2.0,) * (tokens - 1), moved=tokens - 1, least_s=0.1 * (tokens - 1),
    )  # fmt: skip


def speculative(given: list[int], verified: int, experts: float, noise: float = 0.0, least: float = 1.0) -> Answer:
    """A pass takes a quarter of a second for each expert."""
    drawn = random.Random(len(given) + verified)
    passes = tuple(experts / 4 * (1 + noise * drawn.uniform(-1, 1)) for _ in given)
    return Answer(
        tokens=(1,) * (1 + sum(given)), given=tuple(given), step_s=tuple(each + DRAFT for each in passes),
        pass_s=passes, verified=(verified,) * len(given), experts=(experts,) * len(given), moved=0.0,
        least_s=least * 0.1 * len(given),
    )  # fmt: skip


def test_a_pass_takes_what_passes_of_as_many_experts_took_and_more_never_take_less() -> None:
    first = replace(speculative([1, 1, 1], 8, 4), pass_s=(1.0, 9.0, 1.2))
    times = PassTimes([first, speculative([2], 8, 8), replace(speculative([2], 8, 12), pass_s=(1.5,))])
    assert times.seen == {8: {4: 1.2, 8: 2.0, 12: 1.5}}
    assert times.seconds(8, 4) == 1.2 and times.seconds(8, 6) == pytest.approx(1.6)
    assert times.seconds(8, 12) == 2.0 and times.seconds(8, 40) == 2.0
    assert times.seconds(5, 8) == times.seconds(9, 8) == 2.0  # the nearest of as many tokens or more, else the most
    with pytest.raises(ValueError, match="No pass was seen"):
        PassTimes([])


def test_the_speed_that_is_expected_follows_from_acceptance_and_experts() -> None:
    """Three tokens a pass of four experts: three steps in one pass and a half of drafting."""
    prompts = [f"p{number}" for number in range(12)]
    its = {name: speculative([3] * 5, 8, 4.0, noise=0.3, least=1.5) for name in prompts}
    usual = {name: plain() for name in prompts}
    found = outlook(its, usual, PassTimes(its.values()))
    assert found.speed.value == pytest.approx(3 / 1.5, rel=0.1)
    assert found.speed.low is not None and found.speed.low > 1.5
    assert found.at_floor.value == pytest.approx(3 / 1.5)
    assert (found.tau.value, found.experts, found.draft_s) == (3.0, 4.0, pytest.approx(DRAFT))
    assert found.steps == pytest.approx(1.5, rel=0.1)
    assert measured_speed(its, usual).value == pytest.approx(found.speed.value, rel=0.1)
    with pytest.raises(ValueError, match="more than one token"):
        outlook({"p": plain(1)}, {"p": plain(1)}, PassTimes(its.values()))


def test_an_interval_covers_what_prompts_differ_by() -> None:
    """Nineteen in twenty intervals hold the truth, about; and too few prompts give none."""
    drawn = random.Random(0)
    held = 0
    for turn in range(60):
        above = [drawn.gauss(2.0, 0.6) for _ in range(30)]
        found = ratio_of_sums(above, [1.0] * 30, seed=turn)
        assert found.low is not None and found.high is not None
        held += found.low <= 2.0 <= found.high
    assert 52 <= held <= 60
    assert ratio_of_sums([1.0] * 4, [2.0] * 4).low is None


def prospect(name: str, speed: float, low: float, lost: float, at_floor: float = 0.5) -> Prospect:
    whole = Estimate(speed, low, speed + 1, 9)
    floor = Estimate(at_floor, at_floor, at_floor, 9)
    return Prospect(name, Outlook(whole, floor, whole, 4.0, 0.1, 1.0), Estimate(lost, lost, lost, 9))


def test_what_is_proposed_is_the_fastest_that_keeps_the_quality_and_is_shown_to_be_faster() -> None:
    exact, tight = prospect("exact", 1.4, 1.2, 0.0), prospect("tight", 1.9, 1.7, 0.1, at_floor=1.3)
    assert proposed([exact, tight], 0.02) is exact
    assert proposed([exact, tight], 0.1) is tight
    assert proposed([exact, tight], 0.1, at_floor=True) is tight
    assert proposed([exact, tight], 0.02, at_floor=True) is None
    assert proposed([prospect("perhaps", 1.3, 0.9, 0.0)], 0.02) is None
    assert proposed([tight], 0.02) is None


def test_answers_hold_every_pass_with_its_tokens_and_experts() -> None:
    model = random_model(tiny_configuration("olmoe"))
    floor = Floor(Device.of(torch.device("cpu")), 1e10, {"float32": 1e11}, 0.0)
    prompt = torch.arange(9)[None]
    with answering(model, Arm.of(parse_method("autoregressive")), floor) as answer:
        found = answer(Request(prompt, 6))
        again = answer(Request(prompt, 6))
    assert len(found.tokens) == 6 and found.given == (1,) * 5
    assert len(found.pass_s) == 5 and all(
        0 < own <= step for own, step in zip(found.pass_s, found.step_s, strict=True)
    )
    assert found.verified == (1,) * 5 and found.experts == (2.0,) * 5
    assert found.moved > 0 and found.least_s > 0
    assert again.tokens == found.tokens
    assert Answer.from_json(found.as_json()) == found
    assert not model._forward_hooks and not model._forward_pre_hooks
