"""Drafters trained on what a model writes itself: made once, gone on with, loaded as any other, or refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vivace.drafters import build
from vivace.drafters.build import ABOUT, WantedDrafter, train_drafter
from vivace.drafters.drafter_training import Text, draft_vocabulary, learn, new_drafter
from vivace.drafters.own_answers import Kept, OwnAnswer, ReadPrompt, write_answers
from vivace.errors import UsageError
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.registry import parse_arm
from vivace_methods.requests import Request

WANTED = WantedDrafter(
    model="",
    tasks=["tokens(length=6,vocabulary=40)"],
    limit=18,
    answers=2,
    most_tokens=6,
    longest=64,
    vocabulary=24,
    epochs=1,
    seed=0,
    device="cpu",
    threads=None,
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    configuration = tiny_configuration("llama")
    configuration.num_hidden_layers = 4
    random_model(configuration, dtype=torch.float32, device=torch.device("cpu"), seed=3).save_pretrained(folder)
    return folder


def unheard(name: str, done: int, of: int, words: str) -> None:
    """Nobody looks at the progress."""


def test_a_drafter_is_made_once_and_drafts_for_its_model(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    wanted = replace(WANTED, model=f"local:{target}")
    folder, made = train_drafter(wanted, tmp_path, None, lambda name, done, of, words: told.append((name, done, of)))
    assert (made.prompts, made.held_out, made.left_out, made.drafted) == (16, 2, 0, 24)
    assert made.tokens == 16 * 2 * 6 and 0 < made.covered <= 1 and 1 <= made.tau <= 5
    assert [each for each in told if each[0] == "answers"][-1] == ("answers", 36, 36)
    assert told[-1] == ("held-out prompts", 2, 2)

    from vivace_methods.models.loading import load_model

    model, answers = load_model(target), {}
    request = Request(torch.tensor([[1, 5, 9, 2]]), 8)
    for arm in ("autoregressive", f"eagle-3(depth=3):{folder}", f"eagle-3(depth=3,tokens=8):{folder}"):
        tokens: list[int] = []
        with parse_arm(arm).apply(model) as generator:
            generator.generate(request, tokens.extend)
        answers[arm] = tokens
    assert len({tuple(tokens) for tokens in answers.values()}) == 1

    monkeypatch.setattr(build, "loaded", None)  # a model that is loaded again would be called
    assert train_drafter(replace(wanted, threads=1), tmp_path, None, unheard) == (folder, made)
    with pytest.raises(UsageError, match="holds another drafter"):
        train_drafter(replace(wanted, epochs=2), tmp_path, folder, unheard)
    (folder / ABOUT).unlink()
    with pytest.raises(UsageError, match="answers of another model, or to other prompts"):
        train_drafter(replace(wanted, seed=1), tmp_path, folder, unheard)


def test_what_cannot_be_made_is_said(target: Path, tmp_path: Path) -> None:
    wanted = replace(WANTED, model=f"local:{target}")
    with pytest.raises(UsageError, match="random model says nothing"):
        train_drafter(replace(wanted, model="random:llama"), tmp_path, None, unheard)
    with pytest.raises(UsageError, match="There are 0 prompts of at most 5 tokens"):
        train_drafter(replace(wanted, longest=5), tmp_path, None, unheard)


def test_answers_that_were_interrupted_are_gone_on_with(target: Path, tmp_path: Path) -> None:
    from vivace_methods.models.loading import load_model

    model = load_model(target)
    questions = [ReadPrompt(str(number), tuple(range(number + 1, number + 4 + number % 3))) for number in range(5)]

    def written(path: Path, ends: Sequence[int] = ()) -> list[OwnAnswer]:
        return write_answers(
            model, questions, Kept(path, "these"), each=1, most_tokens=5, ends=ends, seed=0, on_step=lambda *_: None
        )  # fmt: skip

    whole = written(tmp_path / "whole")
    for question, answer in zip(questions, whole, strict=True):
        with torch.inference_mode():  # one by one, without padding
            ids = list(question.ids)
            for _ in range(5):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert list(answer.answer) == ids[len(question.ids) :]
    lines = (tmp_path / "whole").read_text().splitlines(keepends=True)
    (tmp_path / "cut").write_text("".join(lines[:3]) + lines[3][:20])
    kept = Kept(tmp_path / "cut", "these")
    assert len(kept.answers) == 2
    assert written(tmp_path / "cut") == whole
    assert [json.loads(line)["question"] for line in (tmp_path / "cut").read_text().splitlines()[1:]].count("3") == 1
    end = whole[0].answer[1]
    assert written(tmp_path / "ended", [end])[0].answer == whole[0].answer[: whole[0].answer.index(end) + 1]


def test_the_commonest_tokens_of_answers_are_drafted_first() -> None:
    texts = [Text((9, 9, 9, 8), (5, 5, 3)), Text((7,), (5, 2, 2))]
    assert draft_vocabulary(texts, 3, 10) == [2, 3, 5]
    assert draft_vocabulary(texts, 4, 10) == [2, 3, 5, 9]
    assert draft_vocabulary(texts, 99, 10) == list(range(10))


def test_a_drafter_learns_what_its_model_says(target: Path) -> None:
    from vivace_methods.models.loading import load_model

    model = load_model(target)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30)  # what is nearly a draw among all tokens cannot be learnt
    chance = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, 40, (4, 5), generator=chance)
    with torch.inference_mode():
        answers = model.generate(prompts, max_new_tokens=12, do_sample=False)[:, 5:]
    texts = [Text(tuple(ask), tuple(its)) for ask, its in zip(prompts.tolist(), answers.tolist(), strict=True)]
    drafted = draft_vocabulary(texts, 40, model.config.vocab_size)
    losses = {}
    for epochs in (1, 40):
        torch.manual_seed(0)
        drafter = new_drafter(model, drafted)
        losses[epochs] = learn(model, drafter, texts, epochs=epochs, seed=0, on_step=lambda *_: None)
    assert losses[40] < losses[1] / 2
