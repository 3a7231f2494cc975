"""The stopwatch: arms on the same prompts in one process, interleaved, every trial kept.

A machine is never quiet: clocks change, caches warm, others work on it. So no arm is timed by itself. All arms answer
the same prompt one right after the other, in an order that alternates, and what counts is the ratio of neighbours.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from vivace_methods.base import Generator, Request

_perf_counter = time.perf_counter  # bound here, so that nobody can set this clock later


class Clock(Protocol):
    """Time, with all work that was handed to the device done."""

    def now(self) -> float:
        """Seconds, after everything queued on the device has ended."""
        ...

    def busy(self, watch_s: float) -> float:
        """The share of one processor that this process uses during the next `watch_s` seconds of waiting."""
        ...


class DeviceClock:
    """The clock of a real device: synchronised before each reading."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._device = device

    def now(self) -> float:
        """Seconds on a monotonic clock, with all streams of the device at rest."""
        if self._cuda:
            torch.cuda.synchronize(self._device)
        return _perf_counter()

    def busy(self, watch_s: float) -> float:
        """Processor time per second while this thread only waits."""
        before, start = time.process_time(), _perf_counter()
        time.sleep(watch_s)
        return (time.process_time() - before) / (_perf_counter() - start)


@dataclass(frozen=True)
class TimedPrompt:
    """A prompt with a name that trials refer to."""

    name: str
    request: Request


@dataclass(frozen=True)
class Trial:
    """One timed generation of one arm; times are in seconds from handing over the prompt."""

    arm: str
    prompt: str
    repetition: int
    """How often this arm was timed on this prompt before."""
    place: int
    """The number of the trial in the whole run."""
    tokens: tuple[int, ...] = ()
    emitted_s: tuple[float, ...] = ()
    """When each step handed over its tokens."""
    step_tokens: tuple[int, ...] = ()
    """Tokens of each step."""
    total_s: float = 0.0
    """Until the device was at rest after the last token."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None
    """Why there is no result, for instance out of memory; the other arms go on."""

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token."""
        return self.emitted_s[0] if self.emitted_s else None

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first step; None for answers of a single step."""
        after = sum(self.step_tokens[1:])
        return (self.emitted_s[-1] - self.emitted_s[0]) / after if after else None

    @property
    def itl_s(self) -> tuple[float, ...]:
        """Latencies between steps: what a reader of the stream waits between two arrivals."""
        return tuple(later - earlier for earlier, later in zip(self.emitted_s, self.emitted_s[1:], strict=False))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens over the whole time, the prefill included."""
        return len(self.tokens) / self.total_s if self.tokens and self.total_s > 0 else None


@dataclass(frozen=True)
class Recording:
    """All trials of one run of the stopwatch, in their order."""

    baseline: str
    trials: tuple[Trial, ...]
    warmed: frozenset[str]
    """The prompts that every arm had already answered in the warm-up."""
    busy_after: Mapping[str, float]
    """Arm → the largest share of a processor that was in use after its clock had stopped."""

    def of(self, arm: str) -> list[Trial]:
        """An arm's trials that ended well."""
        return [trial for trial in self.trials if trial.arm == arm and trial.failure is None]

    def pairs(self, arm: str) -> list[tuple[Trial, Trial]]:
        """The arm's trials with the baseline's on the same prompt in the same round."""
        baseline = {(trial.prompt, trial.repetition): trial for trial in self.of(self.baseline)}
        return [
            (trial, baseline[trial.prompt, trial.repetition])
            for trial in self.of(arm)
            if (trial.prompt, trial.repetition) in baseline
        ]


WATCH_S = 0.02
"""How long the machine is watched after a trial: long enough to see a thread that goes on working."""


class Stopwatch:
    """Times arms against each other.

    Args:
        arms: name → the model with that arm's method applied. Arms that share one model apply their methods in turn,
            outside the clock: see `around`.
        baseline: the arm that the others are compared with.
        clock: the device's.
        around: name → a context that is entered before an arm's clock starts, and left after it has stopped.
    """

    def __init__(
        self,
        arms: Mapping[str, Generator],
        baseline: str,
        clock: Clock,
        around: Mapping[str, Callable[[], AbstractContextManager[Any]]] | None = None,
    ) -> None:
        if baseline not in arms:
            raise ValueError(f"the baseline '{baseline}' is none of the arms {', '.join(arms)}")
        self._arms = dict(arms)
        self._baseline = baseline
        self._clock = clock
        self._around = dict(around or {})
        self._place = 0

    def run(
        self,
        prompts: Sequence[TimedPrompt],
        repetitions: int,
        warm_up: Sequence[TimedPrompt],
        on_trial: Callable[[Trial], None] = lambda trial: None,
    ) -> Recording:
        """Warm up, then time every arm on every prompt, `repetitions` times, interleaved.

        A prompt's repetitions lie a whole round apart. The order of the arms is turned by one place from prompt to
        prompt and reversed from round to round, so that each arm goes first, and follows each other arm, about
        equally often.

        Args:
            prompts: what is timed; some of them may also be in `warm_up`, to find out whether that helps an arm.
            repetitions: rounds.
            warm_up: answered by every arm before the first trial; the times are thrown away.
            on_trial: told of each trial as it ends.
        """
        for prompt in warm_up:
            for arm in self._arms:
                self._trial(arm, prompt, -1)
        self._place = 0
        busy = dict.fromkeys(self._arms, 0.0)
        trials = []
        for repetition in range(repetitions):
            for number, prompt in enumerate(prompts):
                for arm in self._order(repetition, number):
                    trial = self._trial(arm, prompt, repetition)
                    busy[arm] = max(busy[arm], self._clock.busy(WATCH_S))
                    trials.append(trial)
                    on_trial(trial)
        warmed = frozenset(prompt.name for prompt in warm_up)
        return Recording(self._baseline, tuple(trials), warmed, busy)

    def _order(self, repetition: int, number: int) -> Iterator[str]:
        names = list(self._arms)
        turned = names[number % len(names) :] + names[: number % len(names)]
        return reversed(turned) if repetition % 2 else iter(turned)

    def _trial(self, arm: str, prompt: TimedPrompt, repetition: int) -> Trial:
        tokens: list[int] = []
        emitted: list[float] = []
        sizes: list[int] = []
        clock = self._clock

        def emit(step: Sequence[int]) -> None:
            emitted.append(clock.now())
            sizes.append(len(step))
            tokens.extend(int(token) for token in step)

        place, self._place = self._place, self._place + 1
        around = self._around.get(arm, nullcontext)
        collecting = gc.isenabled()
        gc.disable()  # a collection in the middle of a trial would be counted to whoever was on
        try:
            with around():
                start = clock.now()
                trace = self._arms[arm].generate(prompt.request, emit)
                total = clock.now() - start
        except torch.OutOfMemoryError as error:
            return Trial(arm, prompt.name, repetition, place, failure=f"out of memory ({_first_line(error)})")
        except Exception as error:
            return Trial(arm, prompt.name, repetition, place, failure=f"{type(error).__name__}: {_first_line(error)}")
        finally:
            if collecting:
                gc.enable()
                gc.collect(0)
        return Trial(
            arm=arm,
            prompt=prompt.name,
            repetition=repetition,
            place=place,
            tokens=tuple(tokens),
            emitted_s=tuple(moment - start for moment in emitted),
            step_tokens=tuple(sizes),
            total_s=total,
            figures=trace.figures,
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
