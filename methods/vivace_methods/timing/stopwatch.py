"""The stopwatch: arms on the same prompts in one process, interleaved, every trial kept.

A machine is never quiet: clocks change, caches warm, others work on it. So no arm is timed by itself. All arms answer
the same prompt one right after the other, in an order that alternates, and what counts is the ratio of neighbours.
"""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, get_args

import torch

from vivace_methods.protocol import Generator, Request
from vivace_methods.timing.trials import AuditTrial, Kind, Observed, Recording, TimedPrompt, Trial, TrialKey

_perf_counter = time.perf_counter  # bound here, so that nobody can set this clock later


class Clock(Protocol):
    """Time on a device that works on its own."""

    def now(self) -> float:
        """Seconds, after everything queued on the device has ended."""
        ...

    def read(self) -> float:
        """Seconds, whatever the device still does."""
        ...


class DeviceClock:
    """The clock of a real device."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._device = device

    def now(self) -> float:
        """Seconds on a monotonic clock, with all streams of the device at rest."""
        if self._cuda:
            torch.cuda.synchronize(self._device)
        return _perf_counter()

    def read(self) -> float:
        """Seconds on the same clock, without waiting."""
        return _perf_counter()


class Watch(Protocol):
    """Looks at what an arm does outside its time, and at what it costs besides time."""

    def begin(self, arm: str) -> None:
        """Called before an arm's clock starts."""
        ...

    def end(self, arm: str) -> Observed:
        """Called after it has stopped."""
        ...


AUDITED = 12
"""How often the audits go through a prompt and its twin: enough to see that a fifth of the time was saved."""
AUDITED_TOKENS = 32
"""The longest answers of audit trials: what is kept of a prompt shows in its first tokens, and four dozen long
answers of each arm would take longer than what they audit."""


class Stopwatch:
    """Times arms against each other.

    Args:
        arms: name → the model with that arm's method applied, all at once: each on a copy of its own.
        baseline: the arm that the others are compared with.
        clock: the device's.
        watch: looks at what arms do outside their time; nothing is looked at if None.
        failed: arms that could not be applied, and why; their trials are recorded as failures.
    """

    def __init__(
        self,
        arms: Mapping[str, Generator],
        baseline: str,
        clock: Clock,
        watch: Watch | None = None,
        failed: Mapping[str, str] | None = None,
    ) -> None:
        self._names = [*arms, *(name for name in failed or {} if name not in arms)]
        if baseline not in self._names:
            raise ValueError(f"the baseline '{baseline}' is none of the arms {', '.join(self._names)}")
        self._arms = dict(arms)
        self._baseline = baseline
        self._clock = clock
        self._watch = watch
        self._failed = dict(failed or {})
        self._session = uuid.uuid4().hex
        self._place = 0

    def run(
        self,
        prompts: Sequence[TimedPrompt],
        repetitions: int,
        warm_up: Sequence[TimedPrompt],
        on_trial: Callable[[Trial], None] = lambda trial: None,
        *,
        done: Collection[TrialKey] = (),
        audited: int = AUDITED,
        between: Callable[[], object] = lambda: None,
        on_audit: Callable[[int, int], object] = lambda done, steps: None,
    ) -> Recording:
        """Warm up, then time every arm on every prompt, `repetitions` times, interleaved; then the audit trials.

        A prompt's repetitions lie a whole round apart. The order of the arms is turned by one place from prompt to
        prompt and reversed from round to round, so that each arm goes first, and follows each other arm, about
        equally often.

        Args:
            prompts: what is timed; some of them may also be in `warm_up`, to find out whether that helps an arm.
            repetitions: rounds.
            warm_up: answered by every arm before the first trial; the times are thrown away.
            on_trial: told of each timed trial as it ends.
            done: what an earlier session has timed, and is left out. Pairs are never formed over sessions: a round
                that was cut in the middle has none for the arms that are timed now.
            audited: how many times the audits go through a prompt with every arm; 0 for no audit trials.
            between: called before each round of a prompt, while no clock runs.
            on_audit: told after each audit trial how many there were, and how many there will be.

        Returns:
            The trials of this session alone.
        """
        warmed = frozenset(prompt.name for prompt in warm_up)
        left = [
            (repetition, number, prompt, arms)
            for repetition in range(repetitions)
            for number, prompt in enumerate(prompts)
            if (arms := [a for a in self._order(repetition, number) if (a, prompt.name, repetition) not in done])
        ]
        if not left:
            return Recording(self._baseline, ())
        for prompt in warm_up:
            for arm in self._names:
                self._trial(arm, prompt, -1, True)
        self._place = 0
        trials = []
        for repetition, _, prompt, arms in left:
            between()
            for arm in arms:
                trials.append(self._trial(arm, prompt, repetition, prompt.name in warmed))
                on_trial(trials[-1])
        audits: list[AuditTrial] = []
        for audit in self._audits(prompts, warmed, audited):
            audits.append(audit)
            on_audit(len(audits), audited * len(self._names) * len(get_args(Kind)))
        return Recording(self._baseline, tuple(trials), tuple(audits))

    def _order(self, repetition: int, number: int) -> Iterator[str]:
        turned = self._names[number % len(self._names) :] + self._names[: number % len(self._names)]
        return reversed(turned) if repetition % 2 else iter(turned)

    def _audits(self, prompts: Sequence[TimedPrompt], warmed: Collection[str], count: int) -> Iterator[AuditTrial]:
        """A prompt and a twin that nobody has met, each twice in a row, in an order that alternates."""
        met = [prompt for prompt in prompts if prompt.name in warmed] or prompts
        for number in range(count):
            prompt = _shortened(met[number % len(met)])
            for arm in self._order(number // len(self._names), number):
                new = twin(prompt, number)
                steps: list[tuple[Kind, TimedPrompt]] = [
                    ("first", prompt),
                    ("again", prompt),
                    ("twin", new),
                    ("twin again", new),
                ]
                for kind, asked in steps if number % 2 else [*steps[2:], *steps[:2]]:
                    yield AuditTrial(self._trial(arm, asked, number, prompt.name in warmed), kind)

    def _trial(self, arm: str, prompt: TimedPrompt, repetition: int, warmed: bool) -> Trial:
        place, self._place = self._place, self._place + 1
        known = Trial(arm, prompt.name, repetition, place, self._session, warmed, prompt.request.most_tokens)
        if arm in self._failed:
            return replace(known, failure=self._failed[arm])
        collecting = gc.isenabled()
        gc.disable()  # a collection in the middle of a trial would be counted to whoever was on
        try:
            if self._watch is not None:
                self._watch.begin(arm)
            return self._timed(known, self._arms[arm], prompt.request)
        except Exception as error:
            reason = failure_reason(error)
            if out_of_memory(error):
                self._failed[arm] = reason  # it would fail again, and what it left would trouble the others
            return replace(known, failure=reason)
        finally:
            if collecting:
                gc.enable()
                gc.collect(0)
            if arm in self._failed and torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _timed(self, known: Trial, generator: Generator, request: Request) -> Trial:
        tokens: list[int] = []
        emitted: list[float] = []
        sizes: list[int] = []
        clock = self._clock

        def emit(step: Sequence[int]) -> None:
            # Numbers in the host's memory are proof that the device has computed them: there is nothing to wait for,
            # and the next step may already be under way.
            emitted.append(clock.read())
            sizes.append(len(step))
            tokens.extend(int(token) for token in step)

        start = clock.now()
        trace = generator.generate(request, emit)
        total = clock.now() - start
        observed = self._watch.end(known.arm) if self._watch is not None else Observed()
        return replace(
            known,
            ended=bool(tokens) and tokens[-1] in request.end_tokens,
            tokens=tuple(tokens),
            emitted_s=tuple(moment - start for moment in emitted),
            step_tokens=tuple(sizes),
            total_s=total,
            figures=trace.figures,
            passes=trace.passes,
            observed=observed,
        )


def _shortened(prompt: TimedPrompt) -> TimedPrompt:
    """The same prompt, to be answered no further than audits need it."""
    most_tokens = min(prompt.request.most_tokens, AUDITED_TOKENS)
    return replace(prompt, request=replace(prompt.request, most_tokens=most_tokens))


def twin(prompt: TimedPrompt, number: int) -> TimedPrompt:
    """A prompt of the same length that shares no beginning with it, and hardly any stretch of 16 tokens.

    Its first token is another one of its own, and in every 16 tokens a pair of neighbours has changed places, so that
    what is kept by beginning, by block or by hash is of no use, while the text stays nearly as easy to guess.

    Args:
        number: a different twin for each.
    """
    ids = prompt.request.prompt.clone()
    length = ids.shape[1]
    for start in range(0, length, 16):
        place = start + number % 8
        if place + 1 < length:
            ids[0, place], ids[0, place + 1] = prompt.request.prompt[0, place + 1], prompt.request.prompt[0, place]
    different = (ids[0] != prompt.request.prompt[0, 0]).nonzero().flatten()
    if len(different):
        ids[0, 0] = ids[0, different[number % len(different)]]
    return TimedPrompt(f"{prompt.name} (twin {number})", replace(prompt.request, prompt=ids))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not enough, of the GPU or of the machine."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in said for sign in ("out of memory", "can't allocate memory", "alloc_failed"))
    )


def failure_reason(error: BaseException) -> str:
    """Why there is no result, on one line."""
    first = str(error).strip().partition("\n")[0][:300]
    return f"out of memory ({first})" if out_of_memory(error) else f"{type(error).__name__}: {first}"
