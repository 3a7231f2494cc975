"""Arms that must write the same tokens are seen when they don't, and not accused of roundings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from vivace_methods.arms import Arm, ArmMember
from vivace_methods.models.passes import Passes
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import Attached, Emit, Generator, Method, Request, Trace
from vivace_methods.registry import parse_arm
from vivace_methods.timing.same_tokens import is_near_tie, other_tokens, same_as
from vivace_methods.timing.trials import Recording, TimedPrompt, Trial


class Thinking(Generator):
    """Writes what it is said to think, whatever it is asked."""

    def __init__(self, scores: Sequence[Sequence[float]]) -> None:
        self._scores = torch.tensor(scores)

    def generate(self, request: Request, emit: Emit) -> Trace:
        emit(self._scores.argmax(-1).tolist())
        return Trace()

    def logits(self, request: Request, answer: Sequence[int]) -> torch.Tensor:
        return self._scores[: len(answer)]


CLEAR, TIED = [5.0, 1.0, 0.0, -1.0], [2.0, 1.9999, 0.0, -1.0]
REQUEST = Request(torch.tensor([[1]]), 3)


@pytest.mark.parametrize(
    ("mine", "found", "is_tie"),
    [
        ([CLEAR, [1.9999, 2.0, 0.0, -1.0], CLEAR], [0, 1, 3], True),
        ([CLEAR, [1.0, 2.0, 0.0, -1.0], CLEAR], [0, 1, 0], False),  # moved by as much as scores differ
        ([CLEAR, [2.0, 1.9999, 0.0001, -1.0], CLEAR], [0, 2, 0], False),  # the tie is between others
        ([[4.9999, 1.0, 0.0, -1.0], TIED, CLEAR], [1, 0, 0], False),  # no tie where they part
        ([CLEAR, TIED, CLEAR], [0, 0], False),  # it ended by itself
        ([CLEAR, TIED, CLEAR], [0, 0, 0], True),
    ],
)
def test_roundings_explain_a_token_that_is_as_likely(mine: list[list[float]], found: list[int], is_tie: bool) -> None:
    reference = Thinking([CLEAR, TIED, CLEAR])
    assert is_near_tie(Thinking(mine), reference, REQUEST, found, [0, 0, 0]) is is_tie


@dataclass(frozen=True)
class Claiming(Method):
    """Says that it changes no token."""

    name: ClassVar[str] = "claiming"
    family: ClassVar[str] = "speculation"
    paper: ClassVar[str] = "None"
    exact: ClassVar[bool] = True

    scores: tuple[tuple[float, ...], ...] = ()

    @contextmanager
    def attach(self, model: Any, fitted: Any = None) -> Iterator[Attached]:
        yield Attached(Passes(), generator=Thinking(self.scores))


@pytest.mark.parametrize(("moved", "accused"), [(0.0001, False), (3.0, True)])
def test_an_arm_that_writes_what_no_rounding_explains_is_named(moved: float, accused: bool) -> None:
    plain = ((2.0, 2.0 - 0.00005, 0.0, -1.0),) * 3
    other = ((2.0, 2.0 - 0.00005 + moved, 0.0, -1.0),) * 3
    arms = {"plain": Arm.of(Claiming(plain)), "other": Arm.of(Claiming(other))}
    trials = [
        Trial(name, "p", 0, place, tokens=(token,) * 3)
        for place, (name, token) in enumerate([("plain", 0), ("other", 1)])
    ]
    model = random_model(tiny_configuration("llama"))
    prompts = [TimedPrompt("p", REQUEST)]
    findings = other_tokens(Recording("plain", tuple(trials)), model, arms, prompts, Path)
    assert [(each.arm, each.fault) for each in findings] == [("other", "writes other tokens")] * accused
    if accused:
        assert "the tokens of plain, and writes others in 1 answers; in 1 of the 1" in findings[0].sentence


def test_which_arms_must_write_what_others_write(tmp_path: Path) -> None:
    sparse, drafter = parse_arm(f"teal:{tmp_path}").members, parse_arm(f"eagle-3:{tmp_path}").members
    arms = {
        "both": Arm((*sparse, *drafter)),
        "eagle-3": Arm(drafter),
        "teal": Arm(sparse),
        "teal else": parse_arm(f"teal(sparsity=0.4):{tmp_path}"),
        "dense": parse_arm("dense"),
        "baseline": parse_arm("autoregressive"),
    }
    assert same_as(arms, "baseline") == {"eagle-3": "baseline", "dense": "baseline", "both": "teal"}
    assert ArmMember(arms["dense"].methods[0]).method.exact
