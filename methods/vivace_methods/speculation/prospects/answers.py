"""Answers of an arm in which every pass of the model is timed and its experts are counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from vivace_methods.arms import Arm, FolderOf
from vivace_methods.models.cost import cost
from vivace_methods.models.ledger import Pass
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.requests import Request
from vivace_methods.timing.limits import Floor


@dataclass(frozen=True)
class Answer:
    """One answer after its first token, which came with the prompt: a step each time that tokens were emitted.

    Attributes:
        tokens: all ids, the first one among them.
        given: tokens of each step.
        step_s: seconds of each, drafting and all.
        pass_s: seconds of the model's own pass in each.
        verified: tokens in each pass: a draft and its root, or 1 in plain decoding.
        experts: different experts that each pass read, the mean over layers that have some; 0 where none has.
        moved: bytes that the steps moved at least, as counted; those of the drafter among them.
        least_s: seconds that the hardware needs at least for them.
    """

    tokens: tuple[int, ...]
    given: tuple[int, ...]
    step_s: tuple[float, ...]
    pass_s: tuple[float, ...]
    verified: tuple[int, ...]
    experts: tuple[float, ...]
    moved: float
    least_s: float

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Answer:
        """An answer from its record."""
        known: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in written.items()}
        return cls(**known)


Answering = Callable[[Request], Answer]


@contextmanager
def answering(model: Any, arm: Arm, floor: Floor, folder_of: FolderOf = Path) -> Iterator[Answering]:
    """An arm that answers while the context lasts.

    Args:
        model: a causal language model of transformers, in evaluation mode; what is put on it goes to a copy that
            shares its weights.
        arm: as `parse_arm` gives it.
        floor: of the device.
        folder_of: where a fitted thing lies.

    Raises:
        MethodError: the arm does not fit the model, or lacks something.
    """
    copy = shared_copy(model)
    passes: list[float] = []
    begun = [0.0]

    def begins(module: Any, given: Any) -> None:
        begun[0] = _now(model)

    def ends(module: Any, given: Any, found: Any) -> None:
        passes.append(_now(model) - begun[0])

    with arm.apply(copy, folder_of) as generator:
        # After the method's own hooks, whose work is part of a pass.
        handles = [copy.register_forward_pre_hook(begins, prepend=True), copy.register_forward_hook(ends)]

        def answer(request: Request) -> Answer:
            passes.clear()
            moments: list[float] = []
            emitted: list[Sequence[int]] = []

            def emit(tokens: Sequence[int]) -> None:
                moments.append(_now(model))
                emitted.append(list(tokens))

            trace = generator.generate(request, emit)
            steps = [later - earlier for earlier, later in pairwise(moments)]
            return _answer(model, floor, emitted, steps, passes[-len(steps) :] if steps else [], trace.passes)

        try:
            yield answer
        finally:
            for handle in handles:
                handle.remove()


def _answer(
    model: Any,
    floor: Floor,
    emitted: Sequence[Sequence[int]],
    steps: Sequence[float],
    passes: Sequence[float],
    told: Sequence[Pass],
) -> Answer:
    own = [each for each in told if each.kind in ("decode", "verify")][: len(steps)]
    after = [each for each in told if each.kind != "read"]
    dtype = next(model.parameters()).dtype
    costs = [cost(model.config, [each], dtype) for each in after]
    return Answer(
        tokens=tuple(token for tokens in emitted for token in tokens),
        given=tuple(len(tokens) for tokens in emitted[1:]),
        step_s=tuple(steps),
        pass_s=tuple(passes) if len(passes) == len(steps) else tuple(steps),
        verified=tuple(each.tokens for each in own),
        experts=tuple(_experts(each) for each in own),
        moved=sum(each.bytes for each in costs),
        least_s=sum(floor.floor_seconds(each.bytes, each.flops, dtype) for each in costs),
    )


def _experts(one: Pass) -> float:
    counted = [count for count in one.experts or () if count is not None]
    return sum(counted) / len(counted) if counted else 0.0


def _now(model: Any) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
