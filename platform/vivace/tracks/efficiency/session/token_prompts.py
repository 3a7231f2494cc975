"""What a model is asked, as token ids: in its chat template or plainly, and cut in the middle where it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vivace.machine.bounds import bounded
from vivace.tasks.base import Sample
from vivace.tasks.registry import parse_task
from vivace.tracks.efficiency.prompts import PlannedPrompt
from vivace_methods.protocol import MethodError, Request

if TYPE_CHECKING:
    from vivace_methods.timing.trials import TimedPrompt


def timed_prompt(prompt: PlannedPrompt, model: Any, tokenizer: Any) -> tuple[TimedPrompt, int]:
    """A planned prompt for a model, with what ends its answer.

    Args:
        prompt: as it was planned.
        model: a causal language model of transformers.
        tokenizer: the model's; None where it has none, as random ones.

    Returns:
        The prompt, and how many tokens are left out of its middle because the model does not hold them: as many as
        must be, of prompts whose sample lets them be cut. The first and the last half of what it holds stay, and with
        them the chat template.

    Raises:
        MethodError: a prompt that is empty, too long for the model and not to be cut, or of tokens that the model
            does not know.
    """
    import torch

    from vivace_methods.timing.trials import TimedPrompt

    positions = getattr(model.config, "max_position_embeddings", None)
    kept, cut = kept_ids(prompt, tokenizer, model.config.vocab_size, positions)
    asked = Request(
        torch.tensor([kept], device=model.device),
        prompt.most_tokens,
        _end_tokens(model, tokenizer),
        evidence=() if cut else _evidence(prompt.sample, tokenizer),
    )
    return TimedPrompt(prompt.name, asked), cut


def kept_ids(prompt: PlannedPrompt, tokenizer: Any, vocabulary: int, positions: int | None) -> tuple[list[int], int]:
    """The token ids that a model is given of a planned prompt, and how many are left out of its middle.

    Args:
        prompt: as its task asks it of a model with this tokenizer.
        tokenizer: the model's; None where it has none.
        vocabulary: tokens that the model knows.
        positions: that it holds; None for any number.

    Raises:
        MethodError: as `timed_prompt` says.
    """
    ids = sample_ids(prompt.sample, tokenizer)
    if not ids:
        raise MethodError(f"The prompt {prompt.name} is empty.")
    if max(ids) >= vocabulary:
        raise MethodError(f"The prompt {prompt.name} has the token {max(ids)}, and the model knows {vocabulary}.")
    kept = ids
    if positions is not None and len(ids) > (room := positions - prompt.most_tokens):
        if not prompt.sample.cuttable or room < 2:
            raise MethodError(
                f"The prompt {prompt.name} takes {len(ids)} tokens and its answer up to {prompt.most_tokens}, and "
                f"the model holds {positions}: take a shorter one, or fewer with --most-tokens."
            )
        kept = ids[: room - room // 2] + ids[-(room // 2) :]
    return kept, len(ids) - len(kept)


def token_ids(text: str, tokenizer: Any, answer: str = "", *, plain: bool = False) -> list[int]:
    """Token ids of what is asked, and of an answer after it.

    Args:
        text: what is asked.
        tokenizer: whose chat template it is put in where there is one; None where the model has none: the text is
            then ids with blanks between.
        answer: follows the text.
        plain: whether the text is put as it stands, whatever the template.

    Raises:
        MethodError: other text than ids for a model without a tokenizer.
    """
    if tokenizer is None:
        try:
            return [int(part) for part in text.split()]
        except ValueError as error:
            raise MethodError(
                "This model has no tokenizer: give it the task tokens, as in tokens(length=512), or a text "
                "of ids with blanks between."
            ) from error
    put, templated = _put(text, tokenizer, plain)
    return list(tokenizer(put + answer, add_special_tokens=not templated)["input_ids"])


def sample_ids(sample: Sample, tokenizer: Any) -> list[int]:
    """Token ids of what a sample asks, with the beginning of its answer.

    Raises:
        MethodError: as `token_ids`.
    """
    return token_ids(sample.prompt, tokenizer, sample.begun, plain=sample.plain)


def fitted_prompts(prompts: Sequence[PlannedPrompt], tokenizer: Any) -> tuple[PlannedPrompt, ...]:
    """The prompts as their tasks ask them of a model with this tokenizer.

    Args:
        prompts: as they were planned, when the tokenizer was not known.
        tokenizer: None where the model has none.

    Raises:
        UsageError: one cannot be asked in as few tokens as its task's settings say.
    """
    if tokenizer is None:
        return tuple(prompts)
    tasks = {name: parse_task(name) for name in dict.fromkeys(prompt.task for prompt in prompts)}

    def tokens(sample: Sample) -> int:
        return len(sample_ids(sample, tokenizer))

    return tuple(replace(prompt, sample=tasks[prompt.task].fitted(prompt.sample, tokens)) for prompt in prompts)


def evidence_tokens(sample: Sample, tokenizer: Any) -> tuple[int, ...]:
    """The places, in the prompt's token ids, of the tokens that hold any of a sample's evidence.

    Raises:
        MethodError: the tokenizer does not say where tokens come from, or the chat template changes the text.
    """
    put, templated = _put(sample.prompt, tokenizer, sample.plain)
    text = sample.prompt.strip()  # templates may do the same
    begins = put.find(text) - sample.prompt.find(text)
    try:
        encoded = tokenizer(put + sample.begun, add_special_tokens=not templated, return_offsets_mapping=True)
    except NotImplementedError:
        begins = -1
    if begins < 0:
        raise MethodError(
            "It cannot be told which tokens hold the evidence: take a checkpoint with a fast tokenizer."
        )
    spans = [(begins + span.start, begins + span.end) for span in sample.evidence]
    return tuple(
        place
        for place, (first, last) in enumerate(encoded["offset_mapping"])
        if any(max(first, start) < min(last, end) for start, end in spans)
    )


def _evidence(sample: Sample, tokenizer: Any) -> tuple[int, ...]:
    """As `evidence_tokens` has it; none where it is not known."""
    if not sample.evidence or tokenizer is None:
        return ()
    try:
        return evidence_tokens(sample, tokenizer)
    except MethodError:
        return ()


def _put(text: str, tokenizer: Any, plain: bool) -> tuple[str, bool]:
    """The text as a model is given it, and whether it is in the chat template, which brings special tokens."""
    if plain or not getattr(tokenizer, "chat_template", None):
        return text, False
    asked = [{"role": "user", "content": text}]
    try:
        with bounded():
            return tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True), True
    except Exception as error:  # a template is a program, and raises what it likes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise MethodError(f"The model's chat template cannot be used ({reason}); take another checkpoint.") from error


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """What ends an answer; nothing does where no text is made of it."""
    if tokenizer is None:
        return frozenset()
    ends: set[int] = set()
    for holder in (model.generation_config, model.config):
        found = getattr(holder, "eos_token_id", None)
        ends.update([] if found is None else found if isinstance(found, list) else [found])
    return frozenset(ends)
