"""`vivace models drafter`: a model answers prompts, a drafter learns from them, and is measured on some held out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vivace.drafters.drafter_training import Text, draft_vocabulary, learn, new_drafter
from vivace.drafters.own_answers import Kept, ReadPrompt, write_answers
from vivace.errors import UsageError, VivaceError
from vivace.machine.manifest import fingerprint
from vivace.statistics.intervals import clustered_ratio
from vivace.tracks.efficiency.measured_models import find_target, loaded
from vivace.tracks.efficiency.prompts import PlannedPrompt, plan_tasks
from vivace.tracks.efficiency.session.token_prompts import fitted_prompts, sample_ids, timed_prompt
from vivace_methods.registry import parse_arm
from vivace_methods.requests import Request
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter
from vivace_methods.speculation.drafters.eagle3_checkpoint import save_drafter

HOLD_OUT = 8
"""Of so many prompts one is not learnt from, and measured."""
FEWEST = 16
"""Prompts: two that are measured, and some to learn from."""
ANSWERS, ABOUT = "answers.jsonl", "about.json"
DEPTH = 4
"""Drafts of the chain that is measured."""

OnStep = Callable[[str, int, int, str], None]
"""Called with what is done, its steps that are done, all of them, and a few words."""


@dataclass(frozen=True)
class WantedDrafter:
    """What is to be made.

    Attributes:
        model: as `--model` takes it.
        tasks: as `--tasks` takes them.
        limit: prompts of each.
        answers: of each prompt: the greedy one, and others that are drawn.
        most_tokens: of an answer.
        longest: tokens of a prompt; longer ones are left out.
        vocabulary: tokens that the drafter may draft, at most.
        epochs: times that each answer is learnt from.
        seed: chooses prompts, answers that are drawn, and their order.
        device: `cpu` or `cuda`.
        threads: of the processor; None for the usual.
    """

    model: str
    tasks: Sequence[str]
    limit: int
    answers: int
    most_tokens: int
    longest: int
    vocabulary: int
    epochs: int
    seed: int
    device: str
    threads: int | None


@dataclass(frozen=True)
class Made:
    """A drafter, with what it took and what it is worth, as `about.json` beside its weights has it.

    Attributes:
        model: its target.
        prompts: learnt from.
        left_out: prompts that were longer than `--longest`.
        tokens: of the answers that were learnt from.
        drafted: tokens that it may draft.
        covered: the share of the held-out answers' tokens that are among these.
        loss: of the last steps of training, in nats a token.
        writing_s: seconds that the answers took; those of earlier calls are not counted.
        training_s: seconds of training.
        held_out: prompts that were measured.
        depth: drafts of the chain that was measured.
        tau: tokens that a pass of the model gave, its own among them, on the held-out prompts.
        tau_low: lower end of the 95 % interval over prompts.
        tau_high: upper end.
    """

    model: str
    prompts: int
    left_out: int
    tokens: int
    drafted: int
    covered: float
    loss: float
    writing_s: float
    training_s: float
    held_out: int
    depth: int
    tau: float
    tau_low: float | None
    tau_high: float | None


def train_drafter(wanted: WantedDrafter, home: Path, output: Path | None, on_step: OnStep) -> tuple[Path, Made]:
    """Make a drafter, and give its folder; one that is there is only named.

    Args:
        wanted: what.
        home: the home folder.
        output: for the drafter; None for a folder of its own under `drafters` in the home folder. What the model
            wrote is kept there, and a call that was interrupted goes on with it.
        on_step: told how far it has come.

    Raises:
        UsageError: what is asked for is not there, or does not go together.
        MethodError: the model cannot be loaded.
        VivaceError: something cannot be written.
    """
    import torch

    target = find_target(wanted.model, None, home)
    if target.checkpoint is None:
        raise UsageError("A random model says nothing that could be learnt; take one with weights of its own.")
    planned = plan_tasks(wanted.tasks, wanted.limit, wanted.seed, wanted.most_tokens)
    # Neither threads nor the device change what is made, and where files lie is no part of what is in them.
    settings = {**asdict(wanted), "model": target.content, "tasks": planned.revision, "device": "", "threads": None}
    key = fingerprint(settings)
    folder = output or home / "drafters" / f"{target.name.replace('/', '-')}-{key[:12]}"
    if (done := _made(folder, key)) is not None:
        return folder, done
    kept = Kept(folder / ANSWERS, key)
    if wanted.threads is not None:
        torch.set_num_threads(wanted.threads)
    model, tokenizer = loaded(
        target.checkpoint.fetched(), None, None, dtype="float32", device=wanted.device, seed=wanted.seed
    )
    requests = _requests(planned.prompts, model, tokenizer, wanted.longest)
    if len(requests) < FEWEST:
        raise UsageError(
            f"There are {len(requests)} prompts of at most {wanted.longest} tokens, and a drafter needs {FEWEST}: "
            "name more tasks, or raise --limit or --longest."
        )
    begun = time.monotonic()
    texts = _texts(model, requests, kept, wanted, on_step)
    wrote = time.monotonic() - begun
    made = _learnt(wanted, model, requests, texts, folder, on_step)
    made = replace(made, left_out=len(planned.prompts) - len(requests), writing_s=wrote)
    _write(folder / ABOUT, {"made_of": key, **asdict(made)})
    return folder, made


def _learnt(
    wanted: WantedDrafter,
    model: Any,
    requests: Sequence[Request],
    texts: Mapping[int, Sequence[Text]],
    folder: Path,
    on_step: OnStep,
) -> Made:
    """The drafter of a model, learnt from its texts and written into a folder, and what it is worth on the others."""
    import torch

    held_out = range(HOLD_OUT - 1, len(requests), HOLD_OUT)
    learnt = [text for question, its in texts.items() if question not in held_out for text in its]
    said = [token for question in held_out for text in texts[question] for token in text.answer]
    tokens = model.config.get_text_config(decoder=True).vocab_size
    drafted = draft_vocabulary(learnt, min(wanted.vocabulary, tokens), tokens)
    begun = time.monotonic()
    torch.manual_seed(wanted.seed)
    drafter = new_drafter(model, drafted)
    loss = learn(
        model, drafter, learnt, epochs=wanted.epochs, seed=wanted.seed,
        on_step=lambda done, loss, of: on_step("training", done, of, f"loss {loss:.2f}"),
    )  # fmt: skip
    trained = time.monotonic() - begun
    _save(drafter, folder)
    tau, low, high = _tau(model, folder, [requests[each] for each in held_out], on_step)
    known = set(drafted)
    return Made(
        model=wanted.model,
        prompts=len(requests) - len(held_out),
        left_out=0,
        tokens=sum(len(text.answer) for text in learnt),
        drafted=len(drafted),
        covered=sum(token in known for token in said) / max(1, len(said)),
        loss=loss,
        writing_s=0.0,
        training_s=trained,
        held_out=len(held_out),
        depth=DEPTH,
        tau=tau,
        tau_low=low,
        tau_high=high,
    )


def _made(folder: Path, key: str) -> Made | None:
    """What was made of the same things in a folder; None where that did not come to its end."""
    try:
        written = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if written.pop("made_of") == key:
            return Made(**written)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VivaceError(f"{folder / ABOUT} is damaged: remove it, and the drafter is trained anew.") from error
    raise UsageError(f"'{folder}' holds another drafter; give another folder with --output.")


def _requests(prompts: Sequence[PlannedPrompt], model: Any, tokenizer: Any, longest: int) -> list[Request]:
    """The prompts as the model is asked them, without those that are too long."""
    fitted = fitted_prompts(prompts, tokenizer)
    asked = [each for each in fitted if len(sample_ids(each.sample, tokenizer)) <= longest]
    return [timed_prompt(each, model, tokenizer)[0].request for each in asked]


def _texts(
    model: Any, requests: Sequence[Request], kept: Kept, wanted: WantedDrafter, on_step: OnStep
) -> dict[int, list[Text]]:
    """Each question's texts, by its place."""
    ids = [tuple(request.prompt[0].tolist()) for request in requests]
    answers = write_answers(
        model, [ReadPrompt(str(place), its) for place, its in enumerate(ids)], kept, each=wanted.answers,
        most_tokens=wanted.most_tokens, ends=sorted(requests[0].end_tokens), seed=wanted.seed,
        on_step=lambda done, of: on_step("answers", done, of, ""),
    )  # fmt: skip
    texts: dict[int, list[Text]] = {place: [] for place in range(len(ids))}
    for answer in answers:
        place = int(answer.question)
        texts[place].append(Text(ids[place], answer.answer))
    return texts


def _tau(
    model: Any, folder: Path, requests: Sequence[Request], on_step: OnStep
) -> tuple[float, float | None, float | None]:
    """Tokens that a verifying pass gives, over all passes of some prompts, with its interval over prompts."""
    told: list[tuple[float, float]] = []
    with parse_arm(f"eagle-3(depth={DEPTH}):{folder}").apply(model) as generator:
        for number, request in enumerate(requests):
            steps: list[Sequence[int]] = []
            generator.generate(request, steps.append)
            given = [len(step) for step in steps[1:]]  # the first token comes with the prompt
            told.append((sum(given) - len(given), DEPTH * len(given)))
            on_step("held-out prompts", number + 1, len(requests), "")
    drafts = sum(of for _, of in told)
    interval = clustered_ratio(told)
    low, high = (None, None) if interval is None else (1 + DEPTH * interval.low, 1 + DEPTH * interval.high)
    return (1 + DEPTH * sum(met for met, _ in told) / drafts if drafts else 1.0), low, high


def _save(drafter: Eagle3Drafter, folder: Path) -> None:
    from safetensors import SafetensorError

    try:
        save_drafter(drafter, folder)
    except (OSError, SafetensorError) as error:
        raise VivaceError(f"The drafter cannot be written into {folder}: {error}.") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise VivaceError(f"{path} cannot be written: {error.strerror}.") from error
