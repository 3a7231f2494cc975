"""What speculation is expected to bring: acceptance as recorded, passes by the experts that they read, and floors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from vivace_methods.speculation.prospects.answers import Answer
from vivace_methods.timing.ratios import LEVEL, RESAMPLES, Estimate


class PassTimes:
    """How long a pass takes by how many tokens it verifies and how many experts it reads.

    A pass takes the median time of all that verified as many tokens and read as many experts, whichever arm made
    them; between what was seen it is interpolated. More experts never take less time.

    Args:
        answers: of all arms that verify.

    Raises:
        ValueError: none of them verified anything.
    """

    def __init__(self, answers: Iterable[Answer]) -> None:
        seen: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for each in answers:
            for tokens, experts, seconds in zip(each.verified, each.experts, each.pass_s, strict=True):
                seen[tokens][round(experts)].append(seconds)
        if not seen:
            raise ValueError("No pass was seen, so nothing is known of what passes take.")
        self.seen: Mapping[int, Mapping[int, float]] = {
            tokens: dict(sorted((experts, median(seconds)) for experts, seconds in by_experts.items()))
            for tokens, by_experts in sorted(seen.items())
        }

    def seconds(self, tokens: int, experts: float) -> float:
        """Of one pass; where none of as many tokens was seen, of one of the next more that was.

        Args:
            tokens: that it verifies.
            experts: that it reads in a layer.
        """
        known = self.seen[min((each for each in self.seen if each >= tokens), default=max(self.seen))]
        rising = np.maximum.accumulate(list(known.values()))
        return float(np.interp(experts, list(known), rising))


@dataclass(frozen=True)
class Outlook:
    """What an arm is expected to bring beside plain decoding.

    Attributes:
        speed: tokens a second over those of plain decoding, here.
        at_floor: the same where nothing but the hardware's floor counts.
        tau: tokens that a pass gives.
        experts: that a pass reads in a layer, on average.
        draft_s: seconds of a step beside the model's pass.
        steps: of plain decoding that a step takes: with fewer tokens a pass, plain decoding wins.
    """

    speed: Estimate
    at_floor: Estimate
    tau: Estimate
    experts: float
    draft_s: float
    steps: float


def outlook(arm: Mapping[str, Answer], plain: Mapping[str, Answer], times: PassTimes) -> Outlook:
    """What is expected of an arm, from its recorded acceptance and the passes' times.

    Args:
        arm: prompt → the arm's answer.
        plain: prompt → plain decoding's, of the same prompts.
        times: of passes.

    Raises:
        ValueError: no prompt has an answer of more than one token from both.
    """
    names = [name for name in arm if name in plain and arm[name].given and plain[name].given]
    if not names:
        raise ValueError("No prompt has an answer of more than one token, so there is nothing to expect of others.")
    draft = median(step - own for name in names for step, own in zip(arm[name].step_s, arm[name].pass_s, strict=True))
    numbers = []
    for name in names:
        its, usual = arm[name], plain[name]
        tokens = sum(its.given)
        taken = sum(
            draft + times.seconds(count, experts) for count, experts in zip(its.verified, its.experts, strict=True)
        )
        slow = sum(usual.step_s) / sum(usual.given)
        least = usual.least_s / sum(usual.given)
        numbers.append((tokens, len(its.given), slow * tokens, taken, least * tokens, its.least_s))
    tokens, passes, slow, taken, slow_least, least = np.array(numbers, dtype=np.float64).T
    read = [count for name in names for count in arm[name].experts]
    return Outlook(
        speed=ratio_of_sums(slow, taken),
        at_floor=ratio_of_sums(slow_least, least),
        tau=ratio_of_sums(tokens, passes),
        experts=float(np.mean(read)),
        draft_s=draft,
        steps=float(taken.sum() / passes.sum() / (slow.sum() / tokens.sum())),
    )


def measured_speed(arm: Mapping[str, Answer], plain: Mapping[str, Answer]) -> Estimate:
    """Tokens a second over those of plain decoding, as they were measured: nothing is expected here.

    Raises:
        ValueError: as `outlook` says.
    """
    names = [name for name in arm if name in plain and arm[name].given and plain[name].given]
    if not names:
        raise ValueError("No prompt has an answer of more than one token, so no speed was measured.")
    slow = [sum(plain[name].step_s) / sum(plain[name].given) * sum(arm[name].given) for name in names]
    return ratio_of_sums(slow, [sum(arm[name].step_s) for name in names])


def ratio_of_sums(above: Sequence[float], below: Sequence[float], *, seed: int = 0) -> Estimate:
    """A sum over another of the same prompts, with a bootstrap interval over prompts; none below five of them."""
    one, other = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    value, count = float(one.sum() / other.sum()), len(one)
    if count < 5:
        return Estimate(value, None, None, count)
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    low, high = np.quantile(one[drawn].sum(1) / other[drawn].sum(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), count)


@dataclass(frozen=True)
class Prospect:
    """One way to speculate, with what is expected of it and what it costs.

    Attributes:
        name: as arms are written.
        outlook: see there.
        lost: of quality beside plain decoding, the mean over prompts; negative where something is gained.
    """

    name: str
    outlook: Outlook
    lost: Estimate


def proposed(prospects: Sequence[Prospect], tolerance: float, *, at_floor: bool = False) -> Prospect | None:
    """The fastest that loses no more quality than is tolerated; None where plain decoding is expected to win.

    Plain decoding wins where the interval of the fastest reaches down to its speed: a gain has to be shown.

    Args:
        prospects: to choose from.
        tolerance: of quality lost.
        at_floor: whether the speed at the hardware's floor decides, in place of the one here.
    """

    def speed(prospect: Prospect) -> Estimate:
        return prospect.outlook.at_floor if at_floor else prospect.outlook.speed

    fastest = max((each for each in prospects if each.lost.value <= tolerance), key=lambda each: speed(each).value,
                  default=None)  # fmt: skip
    if fastest is None or (speed(fastest).low or speed(fastest).value) <= 1:
        return None
    return fastest
