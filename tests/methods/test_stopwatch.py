"""The stopwatch is fair to equal arms, finds small differences under load, and catches cheats by name."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import Emit, Generator, Request, Trace
from vivace_methods.registry import parse_arms
from vivace_methods.timing.audits import Least, audit, total_ratio
from vivace_methods.timing.measurement import applied
from vivace_methods.timing.process.watch import ProcessWatch
from vivace_methods.timing.ratios import median_interval, paired_ratio, signed_rank_interval
from vivace_methods.timing.stopwatch import AUDITED, DeviceClock, Stopwatch
from vivace_methods.timing.trials import Recording, TimedPrompt

STEPS = 6


class SimulatedClock:
    """A clock that only work moves on; the machine's speed wanders, and now and then something else gets in."""

    def __init__(self, seed: int, wander: float = 0.02, memory: float = 0.98, interruptions: float = 0.05) -> None:
        self._source = np.random.default_rng(seed)
        self._wander, self._memory, self._interruptions = wander, memory, interruptions
        self._speed = 0.0
        self.time = 0.0

    def work(self, seconds: float) -> None:
        self._speed = self._memory * self._speed + self._source.normal(0.0, self._wander)
        self.time += seconds * np.exp(self._speed + self._source.normal(0.0, 0.03))
        if self._source.random() < self._interruptions:
            self.time += self._source.exponential(0.3 * seconds)

    def now(self) -> float:
        return self.time

    def read(self) -> float:
        return self.time


class Simulated(Generator):
    """An arm on a simulated clock: a prefill as long as the prompt, then equal steps."""

    def __init__(self, clock: SimulatedClock, factor: float = 1.0) -> None:
        self._clock, self._factor = clock, factor

    def generate(self, request: Request, emit: Emit) -> Trace:
        self._clock.work(self._factor * request.prompt.shape[1] / 100)
        for step in range(request.most_tokens):
            if step:
                self._clock.work(self._factor * 0.1)
            emit([step])
        return Trace()


def prompts(count: int, start: int = 0) -> list[TimedPrompt]:
    return [
        TimedPrompt(f"p{number}", Request(torch.full((1, 20 + 15 * (number % 7)), number), STEPS))
        for number in range(start, start + count)
    ]


def simulated(seed: int, factor: float = 1.0, **noise: float) -> Recording:
    clock = SimulatedClock(seed, **noise)
    arms = {"baseline": Simulated(clock), "arm": Simulated(clock, factor)}
    return Stopwatch(arms, "baseline", clock).run(prompts(8), 3, prompts(1, 100))


def test_an_arm_against_itself_is_one_on_two_hundred_noisy_clocks() -> None:
    ratios = [total_ratio(simulated(seed), "arm") for seed in range(200)]
    assert sum(ratio is not None and ratio.contains_one for ratio in ratios) >= 182


def test_a_slowdown_of_five_percent_is_found_where_unpaired_medians_do_not_show_it() -> None:
    """The load grows and shrinks over the run, far more than the arms differ."""
    found = hidden = 0
    for seed in range(10):
        clock = SimulatedClock(seed, memory=0.9995)
        arms = {"baseline": Simulated(clock), "arm": Simulated(clock, 1.05)}
        recording = Stopwatch(arms, "baseline", clock).run(prompts(12), 10, prompts(1, 100))
        ratio = total_ratio(recording, "arm")
        assert ratio is not None and ratio.low is not None
        found += ratio.low > 1.0
        mine, other = (median_interval([trial.total_s for trial in recording.of(arm)]) for arm in arms)
        assert mine.low and mine.high and other.low and other.high
        hidden += mine.low <= other.high and other.low <= mine.high
    assert found >= 9 and hidden >= 9


def test_every_arm_goes_first_equally_often_and_every_trial_is_kept() -> None:
    clock = SimulatedClock(0)
    arms = {name: Simulated(clock) for name in "abc"}
    told: list[Any] = []
    recording = Stopwatch(arms, "a", clock).run(prompts(6), 2, [], told.append)
    assert list(recording.trials) == told and len(told) == 36
    assert [trial.place for trial in told] == list(range(36))
    firsts = [trial.arm for trial in told[::3]]
    assert {name: firsts.count(name) for name in "abc"} == {"a": 4, "b": 4, "c": 4}
    for start in range(0, 36, 3):
        assert len({(trial.prompt, trial.repetition) for trial in told[start : start + 3]}) == 1, "not side by side"


def test_times_of_a_trial_are_what_the_clock_saw() -> None:
    class Exact(SimulatedClock):
        def work(self, seconds: float) -> None:
            self.time += seconds

    clock = Exact(0)
    prompt = TimedPrompt("p", Request(torch.zeros(1, 50), 4))
    (trial,) = Stopwatch({"a": Simulated(clock)}, "a", clock).run([prompt], 1, []).trials
    assert trial.ttft_s == pytest.approx(0.5) and trial.total_s == pytest.approx(0.8)
    assert trial.tpot_s == pytest.approx(0.1) and trial.itl_s == pytest.approx((0.1, 0.1, 0.1))
    assert trial.tokens_per_s == pytest.approx(5.0) and trial.tokens == (0, 1, 2, 3)


class Stepping(Generator):
    """Steps of several tokens each, which are handed over at once, one by one, or only when all are known."""

    def __init__(self, clock: SimulatedClock, tokens: int, how: str = "at once") -> None:
        self._clock, self._tokens, self._how = clock, tokens, how

    def generate(self, request: Request, emit: Emit) -> Trace:
        self._clock.work(request.prompt.shape[1] / 100)
        held: list[int] = []
        for start in range(0, request.most_tokens, self._tokens):
            self._clock.work(0.1)
            step = list(range(start, min(start + self._tokens, request.most_tokens)))
            if self._how == "at once":
                emit(step)
            else:
                held += step
            if self._how == "one by one" or start + self._tokens >= request.most_tokens:
                for token in held:
                    emit([token])
                held = []
        return Trace()


@pytest.mark.parametrize(
    ("tokens", "how", "accused"),
    [(1, "at once", False), (8, "at once", False), (1, "in the end", True), (2, "one by one", True)],
)
@pytest.mark.parametrize("length", [10, 5000])
def test_tokens_that_are_held_back_are_seen_and_large_steps_and_long_prompts_are_not(
    tokens: int, how: str, accused: bool, length: int
) -> None:
    clock = SimulatedClock(0)
    arms = {"baseline": Stepping(clock, 1), "arm": Stepping(clock, tokens, how)}
    asked = [TimedPrompt(f"p{number}", Request(torch.full((1, length), number), 24)) for number in range(5)]
    recording = Stopwatch(arms, "baseline", clock).run(asked, 2, asked[:1], audited=0)
    found = [finding.arm for finding in audit(recording) if finding.fault == "hands tokens over in bunches"]
    assert found == (["arm"] if accused else [])


class Caching(Simulated):
    """Keeps something of a prompt that it has met, which spares it a share of reading."""

    def __init__(self, clock: SimulatedClock, spared: float, guessed: float = 0.0) -> None:
        super().__init__(clock)
        self._spared, self._guessed = spared, guessed
        self._met: set[tuple[int, ...]] = set()

    def generate(self, request: Request, emit: Emit) -> Trace:
        words = tuple(request.prompt[0].tolist())
        known = words in self._met
        self._met.add(words)
        self._clock.work((1 - known * self._spared) * len(words) / 100)
        # Honest: the words of a text that was not shuffled are easier to guess, and fewer steps answer it.
        easier = self._guessed if list(words) == sorted(words) else 0.0
        for step in range(request.most_tokens):
            self._clock.work(0.1 * (1 - easier))
            emit([step])
        return Trace()


def audited(seed: int, spared: float, guessed: float = 0.0, **noise: float) -> set[str]:
    """What is said of such an arm on a simulated machine."""
    clock = SimulatedClock(seed, **noise)
    arms = {"baseline": Simulated(clock), "arm": Caching(clock, spared, guessed)}
    asked = [TimedPrompt(f"p{n}", Request(torch.arange(60 + 15 * (n % 7))[None] + 200 * n, STEPS)) for n in range(6)]
    recording = Stopwatch(arms, "baseline", clock).run(asked, 1, asked[:3])
    return {finding.fault for finding in audit(recording) if finding.arm == "arm"}


def test_a_fifth_of_the_time_that_a_kept_prompt_saves_is_named() -> None:
    """Of 200 such machines, 199 named it."""
    assert sum(bool(audited(seed, 0.2) & {"caches prompts", "prefetches during warm-up"}) for seed in range(8)) >= 7


@pytest.mark.parametrize(("guessed", "noise"), [(0.0, {}), (0.3, {}), (0.0, {"wander": 0.05, "interruptions": 0.2})])
def test_who_keeps_nothing_is_not_accused_however_easy_the_words_or_busy_the_machine(
    guessed: float, noise: dict[str, float]
) -> None:
    assert not any(audited(seed, 0.0, guessed, **noise) - {"noisy machine"} for seed in range(5))


class Early(Simulated):
    """Reads the prompt when it has guessed a first token."""

    def __init__(self, clock: SimulatedClock, how: str) -> None:
        super().__init__(clock)
        self._how = how

    def generate(self, request: Request, emit: Emit) -> Trace:
        reading = request.prompt.shape[1] / 100
        if self._how == "guesses":
            self._clock.work(0.01)
        if self._how == "skips":
            self._clock.work(reading / 4)
        if self._how in ("honest", "drafts"):
            self._clock.work(reading)
        emit([0])
        if self._how == "guesses":
            self._clock.work(reading)
        if self._how == "drafts":
            self._clock.work(reading / 4)  # a drafter reads the prompt, too, before its first draft
        for step in range(1, request.most_tokens):
            self._clock.work(0.1)
            emit([step])
        return Trace()


@pytest.mark.parametrize(
    ("how", "accused"), [("guesses", True), ("skips", True), ("honest", False), ("drafts", False)]
)
def test_a_first_token_before_the_prompt_was_read_is_named(how: str, accused: bool) -> None:
    for seed in range(3):
        clock = SimulatedClock(seed, interruptions=0.2)
        arms = {"baseline": Simulated(clock), "arm": Early(clock, how)}
        asked = [TimedPrompt(f"p{n}", Request(torch.full((1, 80 + n), n), STEPS)) for n in range(6)]
        recording = Stopwatch(arms, "baseline", clock).run(asked, 2, asked[:1], audited=0)
        # The quietest that this machine ever was; with a smaller floor, only those that show it themselves are seen.
        least = {t.key: Least(0.6 * (0.8 + t.place / 1200), 0.7) for t in recording.trials}
        found = {(each.arm, each.fault) for each in audit(recording, least=least)}
        assert (("arm", "answers before the prompt is read") in found) is accused
        assert not any(arm == "baseline" for arm, fault in found if fault.startswith("answers"))


def test_a_time_below_the_floor_is_named_whoever_takes_it() -> None:
    recording = simulated(1, interruptions=0.2)
    floors = {trial.key: Least(0.01, 0.6 * trial.total_s) for trial in recording.trials}
    assert audit(recording, least=floors) == audit(recording)
    for arm in ("arm", "baseline"):
        wrong = {trial.key: Least(0.01, 1.6 * trial.total_s) for trial in recording.of(arm)[:4]}
        (found,) = audit(recording, least={**floors, **wrong})
        assert (found.arm, found.fault) == (arm, "takes less than its floor")
        assert found.sentence.startswith("4 of 24 answers") and "0.62 of their floor" in found.sentence
    single = {recording.of("arm")[0].key: Least(0.01, 100.0)}
    assert audit(recording, least={**floors, **single}) == [], "once may be the clock's jump"


# Real time, real threads


def test_a_method_against_itself_is_one_in_twenty_real_runs() -> None:
    """Real arms; what their passes take is counted, so that it makes no difference what else this machine does."""
    ratios = []
    model = random_model(tiny_configuration("llama"))
    clock = SimulatedClock(0)
    model.register_forward_pre_hook(lambda module, inputs: clock.work(inputs[0].shape[1] / 10 + 1))
    asked = [TimedPrompt(f"p{number}", Request(torch.arange(10 + 5 * number)[None], 2)) for number in range(6)]
    with applied(model, parse_arms(["autoregressive", "autoregressive"])) as (generators, _):
        for _ in range(20):
            stopwatch = Stopwatch(generators, "autoregressive", clock)
            ratios.append(total_ratio(stopwatch.run(asked, 4, asked[:1], audited=0), "autoregressive #2"))
    assert clock.time > 0
    assert sum(ratio is not None and ratio.contains_one for ratio in ratios) >= 17


def test_steps_of_a_machine_that_others_use_are_not_taken_for_bunches() -> None:
    """Interrupted for a hundred times what a step takes, the mean of a step is no measure of one."""

    class Interrupted(SimulatedClock):
        def work(self, seconds: float) -> None:
            self.time += seconds + (100 * seconds if self._source.random() < 0.3 else 0.0)

    clock = Interrupted(1)
    arms = {"baseline": Stepping(clock, 1), "arm": Stepping(clock, 1), "held": Stepping(clock, 1, "in the end")}
    asked = [TimedPrompt(f"p{number}", Request(torch.full((1, 100), number), 8)) for number in range(10)]
    recording = Stopwatch(arms, "baseline", clock).run(asked, 3, [], audited=0)
    assert [each.arm for each in audit(recording) if each.fault == "hands tokens over in bunches"] == ["held"]


class Busy(Generator):
    """A real arm: matrix products, more of them for a longer prompt."""

    def __init__(self, on_request: Callable[[Request], None] = lambda request: None) -> None:
        self._on_request = on_request
        self._matrix = torch.randn(160, 160, generator=torch.Generator().manual_seed(0))

    def _prefill(self, request: Request) -> None:
        for _ in range(request.prompt.shape[1] // 4):
            self._matrix @ self._matrix

    def generate(self, request: Request, emit: Emit) -> Trace:
        self._on_request(request)
        self._prefill(request)
        for step in range(request.most_tokens):
            emit([step + int(request.prompt[0, 0])])
            self._matrix @ self._matrix
        return Trace()


class CachesPrompts(Busy):
    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[int, ...]] = set()

    def _prefill(self, request: Request) -> None:
        key = tuple(request.prompt[0].tolist())
        if key not in self._seen:
            super()._prefill(request)
        self._seen.add(key)


class PrefetchesDuringWarmUp(Busy):
    """Keeps what it met before it noticed that the timing had begun."""

    def __init__(self, warm_up: int) -> None:
        super().__init__()
        self._left = warm_up
        self._kept: set[tuple[int, ...]] = set()

    def _prefill(self, request: Request) -> None:
        key = tuple(request.prompt[0].tolist())
        if key in self._kept:
            return
        super()._prefill(request)
        if self._left > 0:
            self._left -= 1
            self._kept.add(key)


class ReturnsFewer(Busy):
    def generate(self, request: Request, emit: Emit) -> Trace:
        shorter = Request(request.prompt, request.most_tokens - 1)
        return super().generate(shorter, emit)


class WorksOn(Busy):
    def generate(self, request: Request, emit: Emit) -> Trace:
        trace = super().generate(request, emit)
        threading.Thread(target=self._work_on).start()
        return trace

    def _work_on(self) -> None:
        while time.thread_time() < 0.05:  # of a processor: on a busy machine it takes as long as it takes
            sum(range(2000))


class WorksOnElsewhere(Busy):
    """The same in a process of its own."""

    def generate(self, request: Request, emit: Emit) -> Trace:
        trace = super().generate(request, emit)
        script = "import time\nwhile time.process_time() < 0.1: sum(range(2000))"
        subprocess.Popen([sys.executable, "-S", "-c", script])
        return trace


class Reports(Busy):
    """Tells a time of its own, under whatever name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def generate(self, request: Request, emit: Emit) -> Trace:
        start = time.perf_counter()
        super().generate(request, emit)
        seconds = time.perf_counter() - start
        return Trace(lambda passes: {"kept_tokens": 12, self._name: seconds})


def recorded(arm: Generator, repetitions: int = 5) -> Recording:
    all_prompts = [
        TimedPrompt(f"p{number}", Request(torch.arange(1200)[None] + 1200 * number, STEPS)) for number in range(8)
    ]
    arms = {"baseline": Busy(), "arm": arm}
    clock, watch = DeviceClock(torch.device("cpu")), ProcessWatch(torch.device("cpu"), "baseline")
    # Those who cheat with what they keep are told by the audit's own trials, the others by any.
    audited = AUDITED if repetitions == 5 else 1
    return Stopwatch(arms, "baseline", clock, watch).run(all_prompts, repetitions, all_prompts[:4], audited=audited)


def faults(recording: Recording, **options: Any) -> set[str]:
    # What is about the machine and not about the arm: these tests share theirs with others.
    return {finding.fault for finding in audit(recording, **options)} - {"drifts", "noisy machine"}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("cheat", "repetitions", "fault"),
    [
        (CachesPrompts, 5, "caches prompts"),
        (lambda: PrefetchesDuringWarmUp(4), 5, "prefetches during warm-up"),
        (ReturnsFewer, 2, "returns fewer tokens"),
        (WorksOn, 2, "works after the clock has stopped"),
        (WorksOnElsewhere, 2, "works after the clock has stopped"),
        (lambda: Reports("ttft_s"), 2, "reports its own times"),
        (lambda: Reports("kept"), 2, "reports its own times"),
    ],
)
def test_a_cheat_is_caught_by_name(cheat: Callable[[], Generator], repetitions: int, fault: str) -> None:
    assert faults(recorded(cheat(), repetitions)) == {fault}


@pytest.mark.parametrize(
    ("figure", "found"),
    [
        (lambda prompt, asked: 1.0 + asked * (1e-5 if prompt in (2, 5) else 1e-2), {"reports its own times"}),
        (lambda prompt, asked: 0.5 + 1e-6 * asked, set()),
        (lambda prompt, asked: 0.1 * prompt, set()),
    ],
    ids=["times, two of which are alike", "rounding", "counts"],
)
def test_a_figure_of_any_name_is_a_time_if_it_changes_for_the_same_answer(
    figure: Callable[[int, int], float], found: set[str]
) -> None:
    class Telling(Simulated):
        def __init__(self, clock: SimulatedClock) -> None:
            super().__init__(clock)
            self._asked: Counter[int] = Counter()

        def generate(self, request: Request, emit: Emit) -> Trace:
            super().generate(request, emit)
            prompt = int(request.prompt[0, 0])
            self._asked[prompt] += 1
            kept = figure(prompt, self._asked[prompt])
            return Trace(lambda passes: {"kept": kept})

    clock = SimulatedClock(0)
    arms = {"baseline": Simulated(clock), "arm": Telling(clock)}
    assert faults(Stopwatch(arms, "baseline", clock).run(prompts(8), 2, prompts(1, 100))) == found


def test_an_honest_arm_is_not_accused() -> None:
    assert faults(recorded(Busy())) == set()


def test_an_arm_that_must_be_the_baseline_is_held_to_it() -> None:
    class Other(Busy):
        def generate(self, request: Request, emit: Emit) -> Trace:
            return super().generate(request, lambda step: emit([token + 1 for token in step]))

    assert "differs from the baseline" in faults(recorded(Other(), 3), identical=["arm"])
    slow = simulated(3, 1.2)
    assert "is not the baseline's time" in {finding.fault for finding in audit(slow, identical=["arm"])}
    assert audit(simulated(3), identical=["arm"]) == []


def test_drift_and_noise_of_the_machine_are_said() -> None:
    class Drifting(SimulatedClock):
        def work(self, seconds: float) -> None:
            self.time += seconds * (1.0 + self.time / 100)

    clock = Drifting(0)
    recording = Stopwatch({"a": Simulated(clock), "b": Simulated(clock)}, "a", clock).run(prompts(8), 4, [])
    assert {finding.fault for finding in audit(recording)} == {"drifts"}
    noisy = simulated(0, wander=0.0, interruptions=0.0)
    assert audit(noisy) == []

    class Noisy(SimulatedClock):
        def work(self, seconds: float) -> None:
            self.time += seconds * np.exp(self._source.normal(0.0, 1.0))

    clock = Noisy(0)
    recording = Stopwatch({"a": Simulated(clock), "b": Simulated(clock)}, "a", clock).run(prompts(8), 6, [])
    assert "noisy machine" in {finding.fault for finding in audit(recording)}


def test_a_failing_arm_fails_alone() -> None:
    class Hungry(Busy):
        def generate(self, request: Request, emit: Emit) -> Trace:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 80 GiB")

    recording = recorded(Hungry(), 1)
    assert {trial.failure for trial in recording.trials if trial.arm == "arm"} == {
        "out of memory (CUDA out of memory.)"
    }
    assert len(recording.of("baseline")) == 8 and recording.pairs("arm") == []
    assert total_ratio(recording, "arm") is None


@pytest.mark.parametrize(
    ("arm", "baseline", "groups"),
    [([], [], []), ([1.0], [1.0, 2.0], [0]), ([0.0], [1.0], [0]), ([float("nan")], [1.0], [0]), ([1.0], [1.0], [])],
)
def test_senseless_times_are_refused(arm: Sequence[float], baseline: Sequence[float], groups: Sequence[int]) -> None:
    with pytest.raises(ValueError, match="pair"):
        paired_ratio(arm, baseline, groups)


def test_few_pairs_give_a_figure_and_no_interval() -> None:
    few = paired_ratio([2.0] * 4, [1.0] * 4, [0, 1, 2, 3])
    assert (few.value, few.low, few.high, few.n) == (2.0, None, None, 4)


def test_signed_ranks_give_the_exact_interval_of_published_tables() -> None:
    """Of twelve pairs at 99 %, the eighth mean of two from either end (Hollander and Wolfe, table A.4)."""
    logs = np.random.default_rng(0).normal(0.1, 0.2, 12)
    found = signed_rank_interval(list(np.exp(logs)), level=0.99)
    means = sorted((logs[i] + logs[j]) / 2 for i in range(12) for j in range(i, 12))
    assert found.low == pytest.approx(np.exp(means[7])) and found.high == pytest.approx(np.exp(means[-8]))
    assert found.value == pytest.approx(np.exp(np.median(means))) and found.n == 12
    assert signed_rank_interval([2.0] * 7, level=0.99).low is None
    assert signed_rank_interval([2.0] * 8, level=0.99).high == pytest.approx(2.0)


def test_audit_trials_are_answered_no_further_than_they_need() -> None:
    clock = SimulatedClock(0)
    asked = [TimedPrompt("p", Request(torch.full((1, 10), 1), 500))]
    told: list[tuple[int, int]] = []
    stopwatch = Stopwatch({"baseline": Simulated(clock)}, "baseline", clock)
    recording = stopwatch.run(asked, 1, [], audited=1, on_audit=lambda *steps: told.append(steps))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [trial.most_tokens for trial in recording.trials] == [500]
    assert [each.trial.most_tokens for each in recording.audits] == [32] * 4
    assert all(len(each.trial.tokens) == 32 for each in recording.audits)
