"""The process that measures: it loads the model, times the arms, and tells each trial as it ends, as a line of JSON.

A process of its own, so that nothing of the platform's (writes to the database, heartbeats, a watching person) is
ever on the clock, and so that a model that breaks takes down nothing but itself. It is started with `python -m`,
reads a `Job` from the first line of its standard input, and ends when that is closed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from vivace.tracks.efficiency.prompts import PlannedPrompt, PlannedTasks

Tell = Callable[[dict[str, Any]], None]

FITTING_TOLD_EVERY_S = 10.0
PREDICTED = 32
"""Prompts along whose answers predictions are compared."""


@dataclass(frozen=True)
class Job:
    """What is to be measured, as JSON has it.

    Attributes:
        folder: with the model's weights; None for a random model.
        random: whose shapes a random model takes: a public model, or an architecture for a tiny one.
        layers: of a random model; None for all.
        family: of the methods, which is the track's name.
        arms: as they are written, under the names that trials bear.
        baseline: the name of the arm that the others are compared with; None for the fastest that is found.
        tasks: as they are written.
        limit: samples of each.
        repeats: times that every arm answers every prompt.
        most_tokens: the longest answer; None is each task's own.
        device: `cpu` or `cuda`.
        dtype: of the weights.
        threads: of the processor.
        seed: of samples and random weights.
        zoo: where models of the zoo lie that were built on this machine.
        name: of the model, as recipes say it.
        calibration: what arms are fitted on that name no recipe; None is the run's own generated tasks.
        recipes: where recipes are kept.
        done: arm, prompt and repetition of trials that are recorded.
        prompts: their names, in the order of the planned tasks.
    """

    folder: str | None
    random: str | None
    layers: int | None
    family: str
    arms: dict[str, str]
    baseline: str | None
    tasks: list[str]
    limit: int
    repeats: int
    most_tokens: int | None
    device: str
    dtype: str
    threads: int
    seed: int
    zoo: str
    name: str
    calibration: str | None
    recipes: str
    done: list[tuple[str, str, int]]
    prompts: list[str]


def main() -> int:
    """Measure what standard input asks for; the exit code is 0 whenever the reason was told."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not lie between the lines that are read
    lock = threading.Lock()

    def tell(message: dict[str, Any]) -> None:
        with lock:
            out.write(json.dumps(message) + "\n")
            out.flush()

    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        _measure(job, tell)
    except Exception as error:
        from vivace.errors import VivaceError
        from vivace_methods.protocol import MethodError
        from vivace_methods.timing.stopwatch import failure_reason

        expected = isinstance(error, MethodError | VivaceError)
        tell({"kind": "fault", "expected": expected, "message": str(error) if expected else failure_reason(error)})
        if not expected:
            raise
    return 0


def _end_with_the_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _measure(job: Job, tell: Tell) -> None:
    import torch

    torch.set_num_threads(job.threads)
    from transformers.utils import logging

    from vivace.tracks.efficiency.asking import timed_prompt
    from vivace.tracks.efficiency.prompts import plan_tasks
    from vivace_methods.arms import Arm
    from vivace_methods.protocol import Family
    from vivace_methods.registry import parse_arm
    from vivace_methods.timing.audits import audit
    from vivace_methods.timing.choosing import fastest_baseline
    from vivace_methods.timing.floor import FloorProbe
    from vivace_methods.timing.measuring import measure_arms

    logging.disable_progress_bar()
    model, tokenizer = _loaded(job)
    planned = plan_tasks(job.tasks, job.limit, job.seed, job.most_tokens).named(job.prompts)
    timed = [timed_prompt(prompt, model, tokenizer) for prompt in planned.prompts]
    prompts = [prompt for prompt, _ in timed]
    if cut := [tokens for _, tokens in timed if tokens]:
        sentence = (
            f"{len(cut)} of {len(timed)} prompts are longer than the model holds; up to {max(cut):,} tokens were "
            "left out of their middle."
        )
        tell({"kind": "said", "sentence": sentence})
    arms = _fitted(job, tell, model, tokenizer, {name: parse_arm(written) for name, written in job.arms.items()})
    baseline = job.baseline
    if baseline is None:
        typical = sorted(prompts, key=lambda prompt: prompt.request.prompt.shape[1])[len(prompts) // 2]
        choice = fastest_baseline(cast(Family, job.family), model, typical.request)
        baseline = choice.method.label
        arms = {baseline: Arm(choice.method), **arms}
        tell({"kind": "baseline", "arm": baseline, "sentence": choice.sentence})
    # A type that the processor has no instructions for takes many seconds to probe, and no arm multiplies it here.
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    probe = FloorProbe(model.device, dtypes=[model.dtype], working_set=weights)
    _tell_floor(tell, model, probe.again())
    longest = max(prompts, key=lambda prompt: prompt.request.prompt.shape[1] + prompt.request.most_tokens).request
    asked = {"prompt": longest.prompt[0].tolist(), "most_tokens": longest.most_tokens}
    tell({"kind": "longest", **asked, "end_tokens": sorted(longest.end_tokens)})
    teller = _Teller(tell, model, tokenizer, arms, planned, prompts)
    recording = measure_arms(
        model,
        arms,
        prompts,
        baseline=baseline,
        repetitions=job.repeats,
        done=frozenset((arm, prompt, repetition) for arm, prompt, repetition in job.done),
        on_trial=teller.trial,
        folder_of=_folder_of(job),
        between=probe.between,
    )
    _tell_floor(tell, model, probe.again())
    _tell_predictions(job, tell, model, tokenizer, arms, planned, prompts, recording)
    # The baseline's own method under another name must give its tokens and its time.
    twins = [name for name, arm in arms.items() if name != baseline and arm == arms[baseline]]
    findings = audit(recording, identical=twins, equal_lengths=twins, least=teller.least(probe.floor))
    session = recording.trials[0].session if recording.trials else ""
    tell({"kind": "audited", "session": session, "findings": [asdict(finding) for finding in findings]})


def _tell_predictions(
    job: Job, tell: Tell, model: Any, tokenizer: Any, arms: Any, planned: PlannedTasks, prompts: Any, recording: Any
) -> None:
    """How far each arm's predictions lie from the baseline's along its answers, and how well they fit the references.

    On no clock, after all trials, and for the first prompts alone: each costs as much as two generations.
    """
    from vivace_methods.timing.measuring import applied

    answers = {trial.prompt: trial.tokens for trial in recording.of(recording.baseline)}
    with applied(model, arms, _folder_of(job)) as (generators, _):
        for prompt, timed in list(zip(planned.prompts, prompts, strict=True))[:PREDICTED]:
            told = _Predictions(timed.request, generators, recording.baseline, answers.get(prompt.name, ()))
            reference = _reference_ids(prompt, tokenizer)
            for name in generators:
                found = {**told.divergence(name), **told.nats(name, reference)}
                if found:
                    tell({"kind": "predictions", "arm": name, "prompt": prompt.name, **found})


class _Predictions:
    """What arms think along the baseline's answer to one prompt, and along the reference.

    A prediction depends on nothing after it: where the reference is how the answer begins, as a right one does, an
    arm goes through the answer alone. Logits are kept of one arm and of the baseline, for they may be large.
    """

    def __init__(self, request: Any, generators: Any, baseline: str, answer: Sequence[int]) -> None:
        self._generators, self._baseline = generators, baseline
        self._request, self._answer = request, list(answer)
        self._of_baseline: Any = None
        self._latest: tuple[str, Any] | None = None

    def divergence(self, arm: str) -> dict[str, Any]:
        """The sum of the divergences from the baseline, in nats, along the answer."""
        from vivace.tasks.scores.perplexity import divergence

        if not self._answer or arm == self._baseline:
            return {}
        expected, found = self._along_answer(self._baseline), self._along_answer(arm)
        if found is None or expected is None:
            return {}
        return {"kl": float(divergence(expected, found).sum()), "kl_tokens": len(self._answer)}

    def nats(self, arm: str, reference: Sequence[int]) -> dict[str, Any]:
        """The sum of the negative logarithms of the probabilities of a reference's tokens."""
        if not reference:
            return {}
        if self._answer[: len(reference)] == list(reference):
            found = self._along_answer(arm)
        else:
            found = self._generators[arm].logits(self._request, reference)
        if found is None:
            return {}
        places = range(len(reference))
        chosen = found[: len(reference)].double().log_softmax(-1)[places, list(reference)]
        return {"nats": -float(chosen.sum()), "nats_tokens": len(reference)}

    def _along_answer(self, arm: str) -> Any:
        if arm == self._baseline:
            if self._of_baseline is None:
                self._of_baseline = self._generators[arm].logits(self._request, self._answer)
            return self._of_baseline
        if self._latest is None or self._latest[0] != arm:
            self._latest = arm, self._generators[arm].logits(self._request, self._answer)
        return self._latest[1]


def _reference_ids(prompt: PlannedPrompt, tokenizer: Any) -> list[int]:
    """The first reference as tokens that follow the prompt's; empty where there is none, or they do not."""
    if tokenizer is None or not prompt.sample.references:
        return []
    from vivace.tracks.efficiency.asking import token_ids

    plain = prompt.sample.plain
    asked = token_ids(prompt.sample.prompt, tokenizer, plain=plain)
    whole = token_ids(prompt.sample.prompt, tokenizer, prompt.sample.references[0], plain=plain)
    return whole[len(asked) :] if whole[: len(asked)] == asked else []


def _fitted(job: Job, tell: Tell, model: Any, tokenizer: Any, arms: dict[str, Any]) -> dict[str, Any]:
    """The arms with their recipes, fitted where there is none; each recipe is told."""
    from vivace.tracks.efficiency.fitting_texts import TOKENS, find_calibration
    from vivace.tracks.efficiency.recipes import fit_missing, recipe_details

    def calibration() -> tuple[str, list[Any]]:
        found = find_calibration(job.calibration, job.tasks)
        return found.name, found.texts(model, tokenizer, TOKENS)

    told = time.monotonic()

    def on_step(arm: str, done: int, steps: int) -> None:
        nonlocal told
        if done == steps or time.monotonic() - told > FITTING_TOLD_EVERY_S:
            told = time.monotonic()
            tell({"kind": "fitting", "arm": arm, "done": done, "steps": steps})

    fitted = fit_missing(arms, model, job.name, calibration, Path(job.recipes), on_step)
    for name, arm in fitted.items():
        if "recipe" in arm.method.needs:
            folder = _folder_of(job)(arm.fitted)
            tell({"kind": "recipe", "arm": name, "folder": str(folder), "recipe": recipe_details(folder)})
    return fitted


def _tell_floor(tell: Tell, model: Any, floor: Any) -> None:
    written = {**asdict(floor), "flops_per_s": dict(floor.flops_per_s)}
    tell({"kind": "floor", "floor": written, "kernels": _kernels(model)})


def _kernels(model: Any) -> dict[str, Any]:
    """Which kernels of transformers the model has before any arm chooses others."""
    kernels = {
        "attention": model.config._attn_implementation,
        "experts": getattr(model.config, "_experts_implementation", None),
    }
    return {name: kernel for name, kernel in kernels.items() if kernel is not None}


def _folder_of(job: Job) -> Any:
    from vivace.tracks.efficiency.targets import folder_of_fitted

    return folder_of_fitted(Path(job.zoo))


def _loaded(job: Job) -> tuple[Any, Any]:
    """The model in evaluation mode, and its tokenizer; None where there is none."""
    from vivace.tracks.efficiency.targets import loaded

    folder = None if job.folder is None else Path(job.folder)
    return loaded(folder, job.random, job.layers, dtype=job.dtype, device=job.device, seed=job.seed)


class _Teller:
    """Tells trials, each with its answer, how good that is, and what it had to move at the least."""

    def __init__(
        self, tell: Tell, model: Any, tokenizer: Any, arms: Any, planned: PlannedTasks, prompts: Any
    ) -> None:
        self._tell, self._model, self._tokenizer = tell, model, tokenizer
        self._arms = arms
        self._costs: dict[Any, tuple[Any, Any]] = {}
        self._planned = {prompt.name: prompt for prompt in planned.prompts}
        self._lengths = {prompt.name: prompt.request.prompt.shape[1] for prompt in prompts}

    def trial(self, trial: Any) -> None:
        """Tell one, outside of every clock."""
        message: dict[str, Any] = {"kind": "trial", "trial": trial.as_json()}
        if trial.failure is None:
            message |= self._quality(trial) | self._cost(trial)
        self._tell(message)

    def least(self, floor: Any) -> dict[Any, Any]:
        """The least times of the trials that were told, by what the device did at its best.

        Args:
            floor: of the device, after all of its tries.
        """
        from vivace_methods.timing.audits import Least

        def seconds(cost: Any) -> float:
            return float(floor.floor_seconds(cost.bytes, cost.flops, self._model.dtype))

        return {key: Least(seconds(first), seconds(whole)) for key, (first, whole) in self._costs.items()}

    def _quality(self, trial: Any) -> dict[str, Any]:
        from vivace.tasks.scores.metrics import score

        if self._tokenizer is None:
            return {}
        prompt = self._planned[trial.prompt]
        answer = self._tokenizer.decode(trial.tokens, skip_special_tokens=True)
        return {"answer": answer, "quality": score(answer, prompt.metric, prompt.sample)}

    def _cost(self, trial: Any) -> dict[str, Any]:
        from vivace_methods.models.cost import prefill_cost
        from vivace_methods.protocol import MethodError

        length, dtype = self._lengths[trial.prompt], self._model.dtype
        try:
            method = self._arms[trial.arm].method
            cost = method.cost(self._model.config, dtype, length, trial.step_tokens, trial.figures)
        except MethodError:
            return {}  # an architecture whose costs are not known: there is no floor to show
        first = method.cost(self._model.config, dtype, length, trial.step_tokens[:1], trial.figures)
        self._costs[trial.key] = first, cost
        whole = prefill_cost(self._model.config, length, dtype)
        return {
            "prompt_tokens": length,
            "bytes": cost.bytes,
            "flops": cost.flops,
            "full_prefill_bytes": whole.bytes,
            "full_prefill_flops": whole.flops,
        }


if __name__ == "__main__":
    sys.exit(main())
