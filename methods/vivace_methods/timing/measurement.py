"""The one way in which arms are measured: what the tracks and every benchmark of methods call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vivace_methods.arms import Arm, FolderOf
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import Generator, MethodError
from vivace_methods.timing.capacity import require_fitting
from vivace_methods.timing.process.watch import ProcessWatch
from vivace_methods.timing.stopwatch import AUDITED, DeviceClock, Stopwatch, failure_reason, out_of_memory
from vivace_methods.timing.trials import Recording, TimedPrompt, Trial, TrialKey

WARMED = 4
"""Prompts of the usual warm-up, besides the longest."""


def measure_arms(
    model: Any,
    arms: Mapping[str, Arm],
    prompts: Sequence[TimedPrompt],
    *,
    baseline: str,
    repetitions: int,
    warm_up: Sequence[TimedPrompt] | None = None,
    done: Collection[TrialKey] = (),
    on_trial: Callable[[Trial], None] = lambda trial: None,
    on_audit: Callable[[int, int], object] = lambda done, steps: None,
    folder_of: FolderOf = Path,
    audited: int = AUDITED,
    between: Callable[[], object] = lambda: None,
    afterwards: Callable[[Mapping[str, Generator]], object] = lambda generators: None,
) -> Recording:
    """Time arms against each other on one model, on the device on which the model lies.

    Every arm is applied to a copy of the model that shares its weights, before the first trial, and stays applied.
    Trials are told one by one as they end, so that a caller can store them; after an interruption the same call with
    what is stored as `done` times the rest. Whoever puts sessions together builds a `Recording` of all their trials:
    pairs are formed inside each session alone.

    An arm that fails does so alone, and its trials say why; after it ran out of memory it is not tried again.

    Args:
        model: a causal language model of transformers, in evaluation mode, with nothing applied.
        arms: name → arm, as `parse_arms` gives them.
        prompts: what is timed; they are moved to the model's device. Names must differ.
        baseline: the name of the arm that the others are compared with.
        repetitions: how often every arm is timed on every prompt.
        warm_up: answered by every arm beforehand, untimed; the usual if None: the longest prompt, and every other
            one of the first few. Leave some prompts out of it, for only then can be seen whether it helps an arm.
        done: arm, prompt and repetition of trials that are stored. Leave the baseline's out too where an arm that
            had failed is to be paired again.
        on_trial: told of each timed trial as it ends.
        on_audit: told after each audit trial how many there were, and how many there will be.
        folder_of: where a fitted thing lies by the name that an arm gives it; the platform knows `zoo:NAME`.
        audited: as `Stopwatch.run` says.
        between: called before each round of a prompt, on no clock: where a `FloorProbe` has its further tries.
        afterwards: told of the arms that could be applied, when all was timed and they still are: for a profiler.

    Returns:
        This session's trials and audit trials. `audits.audit` finds what speaks against them, `summary.summarise`
        gives the figures.

    Raises:
        MethodError: no prompts, fewer than one repetition, names that are not known or not different, an arm that
            does not fit the model, lacks something, or would not fit into a processor's memory. Nothing has been
            timed then.
    """
    _require_sensible(arms, prompts, baseline, repetitions)
    require_fitting(model, arms, prompts, folder_of)
    timed = [_on_device(prompt, model.device) for prompt in prompts]
    warm = usual_warm_up(timed) if warm_up is None else [_on_device(prompt, model.device) for prompt in warm_up]
    watch = ProcessWatch(model.device, nobody=baseline)
    with applied(model, arms, folder_of, watch.applied) as (generators, failed):
        stopwatch = Stopwatch(generators, baseline, DeviceClock(model.device), watch, failed)
        found = stopwatch.run(
            timed, repetitions, warm, on_trial, done=done, audited=audited, between=between, on_audit=on_audit
        )
        afterwards(generators)
        return found


@contextmanager
def applied(
    model: Any,
    arms: Mapping[str, Arm],
    folder_of: FolderOf = Path,
    on_applied: Callable[[str], None] = lambda name: None,
) -> Iterator[tuple[dict[str, Generator], dict[str, str]]]:
    """All arms on copies of a model while the context lasts; `on_applied` is told of each.

    Yields:
        Name → generator of the arms that could be applied, and name → reason of those that ran out of memory.

    Raises:
        MethodError: an arm does not fit the model, or lacks something.
    """
    generators: dict[str, Generator] = {}
    failed: dict[str, str] = {}
    with ExitStack() as contexts:
        for name, arm in arms.items():
            try:
                generators[name] = contexts.enter_context(arm.apply(shared_copy(model), folder_of))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                failed[name] = failure_reason(error)
            on_applied(name)
        yield generators, failed


def usual_warm_up(prompts: Sequence[TimedPrompt]) -> list[TimedPrompt]:
    """The longest prompt, for caches that grow with it, and every other one of the first few."""
    longest = max(prompts, key=lambda prompt: prompt.request.prompt.shape[1] + prompt.request.most_tokens)
    return [longest, *(prompt for prompt in prompts[: 2 * WARMED : 2] if prompt is not longest)]


def _on_device(prompt: TimedPrompt, device: Any) -> TimedPrompt:
    return replace(prompt, request=replace(prompt.request, prompt=prompt.request.prompt.to(device)))


def _require_sensible(
    arms: Mapping[str, Arm], prompts: Sequence[TimedPrompt], baseline: str, repetitions: int
) -> None:
    if not prompts:
        raise MethodError("There is nothing to time: give at least one prompt.")
    if repetitions < 1:
        raise MethodError(f"Every arm is timed at least once on each prompt, not {repetitions} times.")
    if len({prompt.name for prompt in prompts}) < len(prompts):
        raise MethodError("Two prompts have the same name: trials are told apart by it, so give each its own.")
    if baseline not in arms:
        raise MethodError(f"The baseline '{baseline}' is none of the arms {', '.join(arms)}.")
