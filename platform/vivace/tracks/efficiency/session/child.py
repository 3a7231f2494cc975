"""The process that measures: it loads the model, times the arms, and tells each trial as it ends, as a line of JSON.

A process of its own, so that nothing of the platform's (writes to the database, heartbeats, a watching person) is
ever on the clock, and so that a model that breaks takes down nothing but itself. It is started with `python -m`,
reads a `MeasuringJob` from the first line of its standard input, and ends when that is closed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from vivace.tracks.efficiency.session.messages import (
    Audited,
    ChosenBaseline,
    FittedRecipe,
    LongestPrompt,
    MeasuringJob,
    ProbedFloor,
    ProcessFault,
    Remark,
    StepsDone,
    Told,
    as_line,
    read_job,
)
from vivace.tracks.efficiency.session.trial_messages import Tell, TrialTeller

TOLD_EVERY_S = 10.0


def main() -> int:
    """Measure what standard input asks for; the exit code is 0 whenever the reason was told."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not lie between the lines that are read
    lock = threading.Lock()

    def tell(message: Told) -> None:
        with lock:
            out.write(as_line(message))
            out.flush()

    job = read_job(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        _measure(job, tell)
    except Exception as error:
        from vivace.errors import VivaceError
        from vivace_methods.protocol import MethodError
        from vivace_methods.timing.stopwatch import failure_reason

        is_expected = isinstance(error, MethodError | VivaceError)
        tell(ProcessFault(str(error) if is_expected else failure_reason(error), is_expected))
        if not is_expected:
            raise
    return 0


def _end_with_the_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _measure(job: MeasuringJob, tell: Tell) -> None:
    import torch

    torch.set_num_threads(job.threads)
    from transformers.utils import logging

    from vivace.tracks.efficiency.session.token_prompts import fitted_prompts
    from vivace_methods.registry import parse_arm
    from vivace_methods.timing.audits import audit
    from vivace_methods.timing.floor import FloorProbe
    from vivace_methods.timing.measurement import measure_arms
    from vivace_methods.timing.same_tokens import other_tokens

    logging.disable_progress_bar()
    model, tokenizer = _loaded(job)
    asked = {name: parse_arm(written) for name, written in job.arms.items()}
    for method in (method for arm in asked.values() for method in arm.methods):
        method.check_model(model.config)
    job = replace(job, prompts=fitted_prompts(job.prompts, tokenizer))
    prompts = _timed_prompts(job, tell, model, tokenizer)
    arms = _fitted(job, tell, model, tokenizer, asked)
    baseline, arms = _with_baseline(job, tell, model, arms, prompts)
    # A type that the processor has no instructions for takes many seconds to probe, and no arm multiplies it here.
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    probe = FloorProbe(model.device, dtypes=[model.dtype], working_set=weights)
    _tell_floor(tell, model, probe.again())
    longest = max(prompts, key=lambda prompt: prompt.request.prompt.shape[1] + prompt.request.most_tokens).request
    ends = tuple(sorted(longest.end_tokens))
    tell(LongestPrompt(tuple(longest.prompt[0].tolist()), longest.most_tokens, ends))
    teller = TrialTeller(tell, model, tokenizer, arms, job.prompts, prompts, _folder_of(job))
    recording = measure_arms(
        model,
        arms,
        prompts,
        baseline=baseline,
        repetitions=job.repeats,
        done=frozenset(job.done),
        on_trial=teller.trial,
        folder_of=_folder_of(job),
        between=probe.between,
        on_audit=partial(_now_and_then(tell), "audits, which time each arm on new and on known prompts"),
    )
    _tell_floor(tell, model, probe.again())
    teller.predictions(recording)
    # The baseline's own method under another name must give its tokens and its time.
    twins = [name for name, arm in arms.items() if name != baseline and arm == arms[baseline]]
    findings = audit(recording, identical=twins, equal_lengths=twins, least=teller.least(probe.floor))
    findings += other_tokens(recording, model, arms, prompts, _folder_of(job))
    session = recording.trials[0].session if recording.trials else ""
    tell(Audited(session, [asdict(finding) for finding in findings]))


def _timed_prompts(job: MeasuringJob, tell: Tell, model: Any, tokenizer: Any) -> list[Any]:
    """The prompts as token ids; it is told where some had to be cut."""
    from vivace.tracks.efficiency.session.token_prompts import timed_prompt

    timed = [timed_prompt(prompt, model, tokenizer) for prompt in job.prompts]
    if cut := [tokens for _, tokens in timed if tokens]:
        sentence = (
            f"{len(cut)} of {len(timed)} prompts are longer than the model holds; up to {max(cut):,} tokens were "
            "left out of their middle."
        )
        tell(Remark(sentence))
    return [prompt for prompt, _ in timed]


def _with_baseline(
    job: MeasuringJob, tell: Tell, model: Any, arms: dict[str, Any], prompts: list[Any]
) -> tuple[str, dict[str, Any]]:
    """The baseline's name, and the arms with it: the one that was named, or the fastest on a typical prompt."""
    from vivace_methods.arms import Arm
    from vivace_methods.timing.baseline_choice import fastest_baseline

    if job.baseline is not None:
        return job.baseline, arms
    typical = sorted(prompts, key=lambda prompt: prompt.request.prompt.shape[1])[len(prompts) // 2]
    choice = fastest_baseline(job.family, model, typical.request)
    baseline = choice.method.label
    tell(ChosenBaseline(baseline, choice.sentence))
    return baseline, {baseline: Arm.of(choice.method), **arms}


def _fitted(job: MeasuringJob, tell: Tell, model: Any, tokenizer: Any, arms: dict[str, Any]) -> dict[str, Any]:
    """The arms with their recipes, fitted where there is none; each recipe is told."""
    from vivace.tracks.efficiency.fitting_texts import TOKENS, find_calibration
    from vivace.tracks.efficiency.recipes import fit_missing, recipe_details
    from vivace_methods.protocol import Need

    def calibration() -> tuple[str, list[Any]]:
        found = find_calibration(job.calibration, job.tasks)
        return found.name, found.texts(model, tokenizer, TOKENS)

    told = _now_and_then(tell)
    fitted = fit_missing(
        arms, model, job.name, calibration, Path(job.recipes), lambda arm, *steps: told(f"fitting {arm}", *steps)
    )
    for name, arm in fitted.items():
        for member in arm.members:
            if Need.RECIPE in member.method.needs:
                folder = _folder_of(job)(member.fitted)
                tell(FittedRecipe(name, str(folder), *recipe_details(folder)))
    return fitted


def _now_and_then(tell: Tell) -> Callable[[str, int, int], None]:
    """Tells how many of the steps of something are done: the last one, and else one in some seconds."""
    last = time.monotonic()

    def told(what: str, done: int, steps: int) -> None:
        nonlocal last
        if done == steps or time.monotonic() - last > TOLD_EVERY_S:
            last = time.monotonic()
            tell(StepsDone(what, done, steps))

    return told


def _tell_floor(tell: Tell, model: Any, floor: Any) -> None:
    written = {**asdict(floor), "flops_per_s": dict(floor.flops_per_s)}
    tell(ProbedFloor(written, _kernels(model)))


def _kernels(model: Any) -> dict[str, str]:
    """Which kernels of transformers the model has before any arm chooses others."""
    kernels = {
        "attention": model.config._attn_implementation,
        "experts": getattr(model.config, "_experts_implementation", None),
    }
    return {name: kernel for name, kernel in kernels.items() if kernel is not None}


def _folder_of(job: MeasuringJob) -> Any:
    from vivace.tracks.efficiency.measured_models import folder_of_fitted

    return folder_of_fitted(Path(job.zoo))


def _loaded(job: MeasuringJob) -> tuple[Any, Any]:
    """The model in evaluation mode, and its tokenizer; None where there is none."""
    from vivace.tracks.efficiency.measured_models import loaded

    folder = None if job.folder is None else Path(job.folder)
    return loaded(folder, job.random, job.layers, dtype=job.dtype, device=job.device, seed=job.seed)


if __name__ == "__main__":
    sys.exit(main())
