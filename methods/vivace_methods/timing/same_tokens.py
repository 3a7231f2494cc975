"""Arms that must write the same tokens: where they don't, near ties are told apart from faults.

A pass of several tokens adds up in another order than one of a single token, so that scores differ by roundings:
where two tokens are nearly as likely, either may be chosen, and what follows is another text. A fault, as a wrong
mask or a wrong place in the cache, moves the scores by as much as they differ among each other. Measured on the zoo
with 40 tokens after each of 6 prompts: roundings move a score by 1e-4 of the scores' standard deviation at most in
float32, by 0.2 in bfloat16, where they flip experts of a mixture, too; a place that is wrong by one moves it by 0.5
to 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from vivace_methods.arms import Arm, ArmMember, FolderOf
from vivace_methods.protocol import Generator
from vivace_methods.requests import Request
from vivace_methods.timing.audits import Finding
from vivace_methods.timing.measurement import applied
from vivace_methods.timing.summary import divergence
from vivace_methods.timing.trials import Recording, TimedPrompt

MOST_MOVED = 0.25
"""Of the scores' standard deviation, by which roundings may move one."""
LOOKED_AT = 8
"""Answers of each arm whose scores are asked for, which takes as long as to write them."""


def same_as(arms: Mapping[str, Arm], baseline: str) -> dict[str, str]:
    """Name of each arm that must write another's tokens → that arm's name.

    Those are arms which have the same methods, but for methods that are exact.

    Args:
        arms: name → arm.
        baseline: the name of the one that comes first wherever it can.
    """
    first: dict[tuple[ArmMember, ...], str] = {}
    names = sorted(arms, key=lambda name: (name != baseline, len(arms[name].members)))
    found = {}
    for name in names:
        other = first.setdefault(arms[name].inexact, name)
        if other != name:
            found[name] = other
    return found


def other_tokens(
    recording: Recording, model: Any, arms: Mapping[str, Arm], prompts: Sequence[TimedPrompt], folder_of: FolderOf
) -> list[Finding]:
    """Arms that write other tokens than those that they must write, and not at near ties alone.

    Args:
        recording: of these arms.
        model: with nothing applied.
        arms: name → arm.
        prompts: that were timed.
        folder_of: finds what was fitted.
    """
    requests = {prompt.name: prompt.request for prompt in prompts}
    differing = {
        (name, other): answers
        for name, other in same_as(arms, recording.baseline).items()
        if (answers := list(_differing(recording, name, other)))
    }
    findings = []
    for (name, other), answers in differing.items():
        with applied(model, {each: arms[each] for each in (name, other)}, folder_of) as (generators, _):
            if len(generators) < 2:  # memory was short, which their trials say
                continue
            looked_at = answers[:LOOKED_AT]
            faults = [
                prompt
                for prompt, mine, expected in looked_at
                if not is_near_tie(generators[name], generators[other], requests[prompt], mine, expected)
            ]
        if faults:
            sentence = (
                f"It must write the tokens of {other}, and writes others in {len(answers)} answers; in {len(faults)} "
                f"of the {len(looked_at)} that were looked at no rounding explains it."
            )
            findings.append(Finding(name, "writes other tokens", sentence))
    return findings


def is_near_tie(
    arm: Generator, reference: Generator, request: Request, found: Sequence[int], expected: Sequence[int]
) -> bool:
    """Whether two answers part at tokens that are as good as equally likely.

    Args:
        arm: wrote `found`.
        reference: wrote `expected`.
        request: what both were asked.
        found: token ids.
        expected: token ids, which differ from those.
    """
    place = divergence(found, expected)
    if place is None:
        return True
    if place >= min(len(found), len(expected)):
        return False  # one of them ended where the other went on, with all tokens alike
    along = expected[: place + 1]
    theirs, mine = reference.logits(request, along), arm.logits(request, along)
    if theirs is None or mine is None:
        return False
    scores, others = theirs[place].double(), mine[place].double()
    moved = float((scores - others).abs().max())
    gap = float((scores[expected[place]] - scores[found[place]]).abs())
    return moved <= MOST_MOVED * float(scores.std()) and gap <= 2 * moved + torch.finfo(theirs.dtype).eps


def _differing(recording: Recording, name: str, other: str) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Prompt, answer and expected answer, of the first trials of each prompt, where they differ."""
    expected = {trial.prompt: trial.tokens for trial in reversed(recording.of(other))}
    mine = {trial.prompt: trial.tokens for trial in reversed(recording.of(name))}
    for prompt, tokens in mine.items():
        if prompt in expected and tokens != expected[prompt]:
            yield prompt, tokens, expected[prompt]
