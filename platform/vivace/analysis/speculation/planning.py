"""`vivace plan speculation`: which chain or tree, under which budget, will pay, seen on half of the prompts.

What is proposed from one half is judged on the other, whose answers it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vivace.analysis.speculation.sweep import PLAIN, Answers, DraftForm, lost, scores_of
from vivace.errors import UsageError
from vivace.tracks.efficiency.prompts import PlannedPrompt

if TYPE_CHECKING:
    from vivace_methods.speculation.prospects.answers import Answer
    from vivace_methods.speculation.prospects.outlook import Prospect
    from vivace_methods.timing.ratios import Estimate

FEWEST_PROMPTS = 10
"""Of which each half has five, and so an interval."""
_UNGRADED = (
    "Plain decoding got no task right, so that the score tells nothing: quality lost is agreement with its answers."
)


@dataclass(frozen=True)
class JudgedProposal:
    """What a proposal is worth on prompts that it was not made from.

    Attributes:
        speed: as it was measured there; at the floor, as its passes were counted there.
        lost: of quality there.
    """

    speed: Estimate
    lost: Estimate


@dataclass(frozen=True)
class SpeculationPlan:
    """What is expected of each form, what is proposed, and how that did on the other half.

    Attributes:
        rows: of each form, in the order of its expected speed.
        pass_rows: tokens verified, experts read → seconds of a pass.
        here: the form that is proposed for this machine; None where plain decoding wins.
        at_floor: the one for the floor of bytes and operations.
        judged: of `here`, on the other half; None where nothing is proposed.
        judged_at_floor: of `at_floor`, likewise.
        sentences: all of that, for people.
    """

    rows: list[dict[str, Any]]
    pass_rows: list[dict[str, Any]]
    here: str | None
    at_floor: str | None
    judged: JudgedProposal | None
    judged_at_floor: JudgedProposal | None
    sentences: list[str]


def plan_speculation(
    answers: Answers, forms: Sequence[DraftForm], prompts: Sequence[PlannedPrompt], tokenizer: Any, tolerance: float
) -> SpeculationPlan:
    """Propose from half of the prompts, and judge on the other.

    Args:
        answers: of every form and of plain decoding, to all prompts.
        forms: that were tried.
        prompts: with their references.
        tokenizer: of the model; None where it has none.
        tolerance: of quality that may be lost, of a score from 0 to 1.

    Raises:
        UsageError: too few prompts, or answers of a single token.
    """
    from vivace_methods.speculation.prospects.outlook import PassTimes, measured_speed, outlook, proposed

    if len(prompts) < FEWEST_PROMPTS:
        raise UsageError(
            f"A plan needs at least {FEWEST_PROMPTS} prompts, for each half gives an interval; raise --limit."
        )
    halves = _halves(prompts)
    usual = scores_of(answers[PLAIN], prompts, tokenizer)
    said: list[str] = []
    if usual and not any(usual.values()):  # nothing could be lost of it
        tokenizer, said = None, [_UNGRADED]
    try:
        half, other = (_Half(answers, forms, each, tokenizer) for each in halves)
        times = PassTimes(answer for form in forms for answer in half.of(form.name).values())
        prospects = [half.prospect(form, times) for form in forms]
        here, at_floor = proposed(prospects, tolerance), proposed(prospects, tolerance, at_floor=True)
        judged = judged_at_floor = None
        if here is not None:
            judged = JudgedProposal(measured_speed(other.of(here.name), other.of(PLAIN)), other.lost(here.name))
        if at_floor is not None:
            again = outlook(other.of(at_floor.name), other.of(PLAIN), times)
            judged_at_floor = JudgedProposal(again.at_floor, other.lost(at_floor.name))
    except ValueError as error:
        raise UsageError(f"{error} Take tasks with longer answers, or raise --limit.") from error
    prospects.sort(key=lambda each: -each.outlook.speed.value)
    passes = [
        {"tokens": tokens, "experts": experts, "pass_s": seconds}
        for tokens, by_experts in times.seen.items()
        for experts, seconds in by_experts.items()
    ]
    return SpeculationPlan(
        rows=[_row(each, here, at_floor) for each in prospects],
        pass_rows=passes,
        here=None if here is None else here.name,
        at_floor=None if at_floor is None else at_floor.name,
        judged=judged,
        judged_at_floor=judged_at_floor,
        sentences=[
            *said,
            *_here(prospects, here, judged, tolerance),
            *_at_floor(at_floor, judged_at_floor, tolerance),
        ],
    )


def _halves(prompts: Sequence[PlannedPrompt]) -> tuple[list[PlannedPrompt], list[PlannedPrompt]]:
    """Every other prompt of each task."""
    halves: tuple[list[PlannedPrompt], list[PlannedPrompt]] = ([], [])
    met: dict[str, int] = {}
    for prompt in prompts:
        met[prompt.task] = met.get(prompt.task, 0) + 1
        halves[met[prompt.task] % 2 == 0].append(prompt)
    return halves


class _Half:
    """The answers to half of the prompts."""

    def __init__(
        self, answers: Answers, forms: Sequence[DraftForm], prompts: Sequence[PlannedPrompt], tokenizer: Any
    ) -> None:
        names = {prompt.name for prompt in prompts}
        self._answers = {
            arm: {name: answer for name, answer in its.items() if name in names} for arm, its in answers.items()
        }
        self._scores = {arm: scores_of(its, prompts, tokenizer) for arm, its in self._answers.items()}

    def of(self, arm: str) -> Mapping[str, Answer]:
        """An arm's answers, by prompt."""
        return self._answers[arm]

    def lost(self, arm: str) -> Estimate:
        """Of quality, beside plain decoding."""
        return lost(self.of(arm), self.of(PLAIN), self._scores[arm], self._scores[PLAIN])

    def prospect(self, form: DraftForm, times: Any) -> Prospect:
        """What is expected of a form."""
        from vivace_methods.speculation.prospects.outlook import Prospect, outlook

        return Prospect(form.name, outlook(self.of(form.name), self.of(PLAIN), times), self.lost(form.name))


def _row(prospect: Prospect, here: Prospect | None, at_floor: Prospect | None) -> dict[str, Any]:
    its = prospect.outlook
    return {
        "form": prospect.name,
        **_figure("speed", its.speed),
        **_figure("speed_at_floor", its.at_floor),
        **_figure("tau", its.tau),
        "experts": its.experts,
        "steps": its.steps,
        "draft_s": its.draft_s,
        **_figure("lost", prospect.lost),
        "proposed": prospect is here,
        "proposed_at_floor": prospect is at_floor,
    }


def _figure(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _here(
    prospects: Sequence[Prospect], here: Prospect | None, judged: JudgedProposal | None, tolerance: float
) -> list[str]:
    """What is proposed for this machine, and how that did."""
    within = f"losing at most {tolerance:g} of quality on half of the prompts"
    if here is None or judged is None:
        tolerated = [each for each in prospects if each.lost.value <= tolerance]
        nearest = ""
        if tolerated:
            best = max(tolerated, key=lambda each: each.outlook.speed.value)
            nearest = (
                f" The nearest is {best.name}, at {_interval(best.outlook.speed)} times its speed: a step takes "
                f"{best.outlook.steps:.2f} of its steps and gives {best.outlook.tau.value:.2f} tokens."
            )
        return [f"Plain decoding wins here: no way to speculate, {within}, is shown to be faster.{nearest}"]
    return [
        f"{here.name} is expected to be {_interval(here.outlook.speed)} times as fast as plain decoding here, "
        f"{within}.",
        _verdict(judged, "as measured", tolerance),
    ]


def _at_floor(at_floor: Prospect | None, judged: JudgedProposal | None, tolerance: float) -> list[str]:
    """What is proposed where the floor is all that counts, and how that did."""
    if at_floor is None or judged is None:
        return ["Where nothing but the floor of bytes and operations counts, plain decoding wins."]
    return [
        f"Where nothing but the floor of bytes and operations counts, {at_floor.name} is expected to be "
        f"{_interval(at_floor.outlook.at_floor)} times as fast.",
        _verdict(judged, "as counted", tolerance),
    ]


def _verdict(judged: JudgedProposal, known: str, tolerance: float) -> str:
    faster = "is faster" if (judged.speed.low or judged.speed.value) > 1 else "is not shown to be faster"
    kept = "holds there" if judged.lost.value <= tolerance else "does not hold there"
    return (
        f"On the other half of the prompts it {faster}: {_interval(judged.speed)} times as fast {known}; it loses "
        f"{_interval(judged.lost)} of quality, so that the tolerance {kept}."
    )


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
