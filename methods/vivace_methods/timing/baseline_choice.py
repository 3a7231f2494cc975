"""Which of a family's baselines is the fastest on this model and machine: what a method has to beat is never slow."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from vivace_methods.arms import Arm
from vivace_methods.decoding.joined import applied
from vivace_methods.families import FAMILIES
from vivace_methods.models import implementations
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import Generator, Method, MethodError, Request
from vivace_methods.registry import parse_method
from vivace_methods.timing.capacity import require_fitting
from vivace_methods.timing.stopwatch import Clock, DeviceClock, failure_reason
from vivace_methods.timing.trials import TimedPrompt

ROUNDS = 5
"""How often each candidate is timed, in turns."""
FASTER = 0.97
"""Of the usual one's time; who takes more is not faster beyond what a machine's unrest can be."""
MOST_TOKENS = 16
"""Of the answers that are timed: enough for a step's cost to show."""


@dataclass(frozen=True)
class Choice:
    """The baseline that was taken.

    Attributes:
        method: with its settings.
        sentence: which it is, and how much faster than the others.
    """

    method: Method
    sentence: str


def candidates(family: str, model: Any) -> list[Method]:
    """The baselines of a family that this model and device may run, the usual one first."""
    experts, family_record = implementations.has_experts(model), FAMILIES[family]
    tried = [
        each.method
        for each in family_record.candidates
        if each.device in (None, model.device.type) and (experts or not each.needs_experts)
    ]
    return [parse_method(written) for written in (family_record.baseline, *tried)]


def fastest_baseline(family: str, model: Any, request: Request, *, clock: Clock | None = None) -> Choice:
    """Time a family's baselines against each other for a moment, and take the fastest.

    The usual one stays unless another is faster for certain. One that cannot run here, for whatever reason (its
    package is missing, a compiler fails, memory is short), is left out, and the sentence says why.

    Args:
        family: of the methods, by name.
        model: a causal language model of transformers, in evaluation mode, with nothing applied.
        request: a prompt that is typical of what is to come.
        clock: the device's own if None.

    Raises:
        MethodError: not even the usual one runs.
    """
    usual, *others = candidates(family, model)
    short = Request(request.prompt, min(request.most_tokens, MOST_TOKENS), request.end_tokens)
    timer = clock or DeviceClock(model.device)
    with ExitStack() as contexts:
        left_out: list[str] = []
        running: list[tuple[Method, Generator]] = [
            (usual, contexts.enter_context(applied(usual, shared_copy(model))))
        ]
        _timed(running[0][1], short, timer)
        for method in others:
            try:
                require_fitting(model, {method.label: Arm.of(method)}, [TimedPrompt("typical", short)])
                generator = contexts.enter_context(applied(method, shared_copy(model)))
                _timed(generator, short, timer)
            except Exception as error:
                reason = str(error) if isinstance(error, MethodError) else failure_reason(error)
                left_out.append(f"{method.label} is left out ({reason.rstrip('.')})")
            else:
                running.append((method, generator))
        rounds = [[_timed(generator, short, timer) for _, generator in running] for _ in range(ROUNDS)]
    shares = [statistics.median(times[place] / times[0] for times in rounds) for place in range(len(running))]
    best = min(range(len(running)), key=lambda place: shares[place])
    if shares[best] > FASTER:
        best = 0
    products = running[best][1].generate(short, _ignore).figures.get("products", {})
    sentence = _sentence([method for method, _ in running], shares, best, left_out)
    return Choice(running[best][0], " ".join(filter(None, (sentence, products_sentence(products)))))


def products_sentence(products: Mapping[str, str]) -> str:
    """Which dense products single tokens go through; empty where none was chosen."""
    alike: dict[str, list[str]] = {}
    for shape, product in products.items():
        alike.setdefault(product, []).append(shape)
    told = "; ".join(f"{product} for {', '.join(shapes)}" for product, shapes in alike.items())
    return f"Single tokens are multiplied by {told}." if told else ""


def _timed(generator: Generator, request: Request, clock: Clock) -> float:
    start = clock.now()
    generator.generate(request, _ignore)
    return clock.now() - start


def _ignore(tokens: Sequence[int]) -> None:
    """What was said does not matter."""


def _sentence(methods: Sequence[Method], shares: Sequence[float], best: int, left_out: Sequence[str]) -> str:
    others = [
        f"{method.label} takes {share / shares[best]:.2f} of its time"
        for place, (method, share) in enumerate(zip(methods, shares, strict=True))
        if place != best
    ]
    return "; ".join([f"The baseline is {methods[best].label}", *filter(None, [", ".join(others)]), *left_out]) + "."
