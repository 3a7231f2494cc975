"""A model, its drafter and some prompts found, loaded and tried: what `vivace plan speculation` is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.analysis.speculation.planning import FEWEST_PROMPTS, SpeculationPlan, plan_speculation
from vivace.analysis.speculation.sweep import experts_of, forms_of, swept, usual_budgets
from vivace.errors import UsageError
from vivace.tracks.efficiency.measured_models import find_target, folder_of_fitted, loaded
from vivace.tracks.efficiency.prompts import plan_tasks

if TYPE_CHECKING:
    from vivace_methods.speculation.prospects.answers import Answer

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class AskedPlan:
    """What is to be planned.

    Attributes:
        model: as `--model` takes it.
        drafter: a folder or `zoo:NAME`.
        tasks: as `--tasks` takes them.
        limit: prompts of each.
        chains: drafts of each chain.
        trees: tokens of each tree.
        budgets: None for the usual.
        most_tokens: of an answer; None for each task's own.
        seed: chooses the prompts.
        device: `cpu` or `cuda`.
        dtype: of the weights.
        threads: of the processor; None for the usual.
        home: the home folder.
    """

    model: str
    drafter: str
    tasks: Sequence[str]
    limit: int
    chains: Sequence[int]
    trees: Sequence[int]
    budgets: Sequence[int] | None
    most_tokens: int | None
    seed: int
    device: str
    dtype: str
    threads: int | None
    home: Path


def tried(asked: AskedPlan, tolerance: float, on_step: Callable[[int, int], None]) -> SpeculationPlan:
    """Try everything, and plan.

    Args:
        asked: what.
        tolerance: of quality that may be lost.
        on_step: told of each answer: its number, and how many there are in all.

    Raises:
        UsageError: what is asked for is not there, does not go together, or is too little.
        MethodError: the model cannot be loaded, or the drafter does not fit it.
    """
    import torch
    from transformers.utils import logging

    from vivace.tracks.efficiency.session.token_prompts import fitted_prompts, timed_prompt
    from vivace_methods.arms import Arm
    from vivace_methods.timing.baseline_choice import fastest_baseline
    from vivace_methods.timing.floor import FloorProbe

    if asked.dtype not in DTYPES:
        raise UsageError(f"--dtype takes {', '.join(DTYPES)}, and not '{asked.dtype}'.")
    if not asked.tasks:
        raise UsageError("--tasks names no task.")
    target = find_target(asked.model, None, asked.home)
    folder_of = folder_of_fitted(asked.home / "zoo")
    folder_of(asked.drafter)  # before the model is loaded
    planned = plan_tasks(asked.tasks, asked.limit, asked.seed, asked.most_tokens)
    if len(planned.prompts) < FEWEST_PROMPTS:
        raise UsageError(
            f"A plan needs at least {FEWEST_PROMPTS} prompts, and these are {len(planned.prompts)}: raise --limit."
        )
    logging.disable_progress_bar()
    threads = asked.threads or (None if target.origin.are_times_real else 1)
    if threads is not None:
        torch.set_num_threads(threads)
    folder = None if target.checkpoint is None else target.checkpoint.fetched()
    model, tokenizer = loaded(
        folder, target.name, target.layers, dtype=asked.dtype, device=asked.device, seed=asked.seed
    )
    experts, chosen = experts_of(model)
    budgets = usual_budgets(experts, chosen) if asked.budgets is None else asked.budgets
    forms = forms_of(asked.chains, asked.trees, budgets, experts, chosen)
    prompts = fitted_prompts(planned.prompts, tokenizer)
    timed = [timed_prompt(prompt, model, tokenizer)[0] for prompt in prompts]
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    probe = FloorProbe(model.device, dtypes=[model.dtype], working_set=weights)
    probe.again()
    done = 0

    def on_answer(arm: str, prompt: str, answer: Answer) -> None:
        nonlocal done
        done += 1
        on_step(done, (len(forms) + 1) * len(timed))

    choice = fastest_baseline("speculation", model, timed[0].request)
    answers = swept(
        model, forms, timed, asked.drafter, probe=probe, folder_of=folder_of, plain=Arm.of(choice.method),
        on_answer=on_answer,
    )  # fmt: skip
    plan = plan_speculation(answers, forms, prompts, tokenizer, tolerance)
    return replace(plan, sentences=[choice.sentence, *plan.sentences])
