"""What is asked becomes token ids: in the chat template unless it is to be gone on with, and cut in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from vivace.tasks.base import Sample
from vivace.tracks.efficiency.measured_models import loaded
from vivace.tracks.efficiency.prompts import PlannedPrompt, plan_tasks
from vivace.tracks.efficiency.session.token_prompts import timed_prompt, token_ids
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import MethodError

HELD = 40
"""Tokens that the model holds."""


@pytest.fixture(scope="module")
def chatting() -> Any:
    """A tokenizer of numbers that begins each text, and has a chat template."""
    vocabulary = {word: place for place, word in enumerate(["?", "<s>", "user", "model", *map(str, range(100))])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="?")
    tokenizer.chat_template = (
        "{{ bos_token }} user {{ messages[0]['content'] }}{% if add_generation_prompt %} model{% endif %}"
    )
    return tokenizer


@pytest.fixture(scope="module")
def model() -> Any:
    configuration = tiny_configuration("llama")
    configuration.max_position_embeddings = HELD
    return random_model(configuration)


def numbers(count: int) -> str:
    return " ".join(map(str, range(count)))


def asked(
    model: Any, tokenizer: Any, text: str, most_tokens: int = 9, *, plain: bool = False, cuttable: bool = False
) -> tuple[list[str], int]:
    """What the model reads, word by word, and how many were left out."""
    sample = Sample("1", text, (), plain=plain, cuttable=cuttable)
    planned = PlannedPrompt("p", "longbench", "", most_tokens, sample)
    prompt, left_out = timed_prompt(planned, model, tokenizer)
    return tokenizer.convert_ids_to_tokens(prompt.request.prompt[0].tolist()), left_out


def test_a_chat_is_asked_in_its_template_and_a_text_to_go_on_with_is_not(model: Any, chatting: Any) -> None:
    assert asked(model, chatting, "2 3") == (["<s>", "user", "2", "3", "model"], 0)
    assert asked(model, chatting, "2 3", plain=True) == (["<s>", "2", "3"], 0)


@pytest.mark.parametrize("plain", [False, True])
def test_an_answer_follows_the_very_tokens_that_were_asked(chatting: Any, plain: bool) -> None:
    alone, answered = (token_ids("2 3", chatting, answer, plain=plain) for answer in ("", " 5"))
    assert answered[: len(alone)] == alone
    assert chatting.convert_ids_to_tokens(answered[len(alone) :]) == ["5"]


@pytest.mark.parametrize("most_tokens", [9, 10])
def test_a_prompt_that_is_too_long_loses_its_middle_and_keeps_its_template(
    model: Any, chatting: Any, most_tokens: int
) -> None:
    room = HELD - most_tokens
    found, left_out = asked(model, chatting, numbers(90), most_tokens, cuttable=True)
    assert len(found) == room and left_out == 93 - room
    assert found[:3] == ["<s>", "user", "0"] and found[-2:] == ["89", "model"]
    kept = [int(word) for word in found[2:-1]]
    first = next(place for place in kept if place + 1 not in kept) + 1 + 2  # with what the template begins with
    assert first in (room // 2, room - room // 2), "of what it holds, one half is the prompt's first part"
    assert kept == [*range(first - 2), *range(90 - (room - first - 1), 90)]


def test_a_prompt_that_just_fits_stays_whole(model: Any, chatting: Any) -> None:
    fits = HELD - 9 - 3
    assert asked(model, chatting, numbers(fits), cuttable=True)[1] == 0
    assert asked(model, chatting, numbers(fits + 1), cuttable=True)[1] == 1


def test_what_cannot_be_asked_is_refused(model: Any, chatting: Any) -> None:
    with pytest.raises(MethodError, match="takes 53 tokens and its answer up to 9, and the model holds 40"):
        asked(model, chatting, numbers(50))
    with pytest.raises(MethodError, match="its answer up to 39, and the model holds 40: take a shorter one"):
        asked(model, chatting, numbers(50), most_tokens=39, cuttable=True)


def test_a_checkpoint_without_a_tokenizer_reads_ids_and_one_that_is_damaged_is_said(
    model: Any, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    read, none = loaded(tmp_path, None, None, dtype="float32", device="cpu", seed=1)
    assert none is None
    ids = plan_tasks(["tokens(length=5,vocabulary=99)"], 1, 1, 4).prompts[0]
    asked, cut = timed_prompt(ids, read, none)
    assert asked.request.prompt.shape == (1, 5) and not asked.request.end_tokens and not cut
    with pytest.raises(MethodError, match="no tokenizer: give it the task tokens"):
        timed_prompt(plan_tasks(["sums"], 1, 1, 4).prompts[0], read, none)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(MethodError, match=r"no tokenizer in .* that transformers can read"):
        loaded(tmp_path, None, None, dtype="float32", device="cpu", seed=1)
