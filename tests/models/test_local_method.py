"""Audio models of several classes decode with a fitted method: their text decoders alone, and as they do without."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.datasets import tone

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
    pytest.skip("local models need torch and transformers: pip install 'vivace[local]'", allow_module_level=True)

from transformers.utils import is_mistral_common_available

from support import tiny_audio_models as tiny
from vivace.errors import UsageError
from vivace.models.adapters.local import LocalModel
from vivace.models.base import Prompt, SpokenTurn
from vivace.models.client.calls import ChatOptions
from vivace.models.local.method import check_batch, read_method
from vivace.models.local.spoken_model import SpokenModel
from vivace.tracks.efficiency.fitting_texts import find_calibration
from vivace.tracks.efficiency.measured_models import find_target, loaded_to_fit
from vivace.tracks.efficiency.recipes import fit_recipe
from vivace_methods.registry import parse_method

FAMILIES = [
    "qwen2_audio",
    "qwen2_5_omni",
    pytest.param(
        "voxtral",
        marks=pytest.mark.skipif(
            not is_mistral_common_available(),
            reason="Voxtral needs mistral-common: pip install 'mistral-common[audio]'",
        ),
    ),
    "text_only",
]
NEW_TOKENS = 12
TEXT = "A table for two by the window, please, and the bill before eight. " * 40

Fit = Callable[[str, str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Fit a method to a tiny checkpoint as `vivace methods fit` does, and give the folders of both."""
    made: dict[str, Path] = {}
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(TEXT, encoding="utf-8")

    def execute(family: str, label: str) -> tuple[Path, Path]:
        if family not in made:
            made[family] = getattr(tiny, family)(tmp_path_factory.mktemp(family))
        target = find_target(f"local:{made[family]}", None, text.parent)
        assert target.checkpoint is not None
        model, tokenizer = loaded_to_fit(target, target.checkpoint.fetched(), dtype="float32", device="cpu")
        found = find_calibration(str(text), [])
        recipe = tmp_path_factory.mktemp("recipe")
        fit_recipe(
            parse_method(label),  # type: ignore[arg-type]  # of activation sparsity
            model, found.texts(model, tokenizer, 1024), recipe,
            model_name=family, calibration=found.name, on_step=lambda done, steps: None,
        )  # fmt: skip
        return made[family], recipe

    return execute


def loaded(folder: Path, label: str | None = None, recipe: Path | None = None, batch: int = 1) -> SpokenModel:
    return SpokenModel(
        {
            "folder": str(folder),
            "dtype": "auto",
            "device": "cpu",
            "attn_implementation": None,
            "generation": {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False},
            "seed": None,
            "batch": batch,
            "method": None if label is None else {"label": label, "recipe": recipe and str(recipe)},
        }
    )


def turns(model: SpokenModel, *hertz: float) -> list[dict[str, Any]]:
    """A conversation of tones, or of words for a model that does not hear."""
    spoken = [
        {
            "audio": base64.b64encode(tone(pitch, 0.5)).decode() if model.hears else None,
            "text": f"At {pitch:g}?",
            "assistant": "Gladly.",
        }
        for pitch in hertz
    ]
    spoken[-1]["assistant"] = None
    return spoken


def ask(model: SpokenModel, *hertz: float) -> dict[str, Any]:
    return model.answer({"turns": turns(model, *hertz), "timeout_s": 60.0})


def share_read(answer: dict[str, Any]) -> float:
    """What the answer's note says that decoded tokens read."""
    (share,) = [
        float(found[1]) for note in answer["notes"] if (found := re.match(r"decoded .* read ([\d.]+) %", note))
    ]
    return share / 100


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_left_out_changes_nothing(family: str, fit: Fit) -> None:
    folder, recipe = fit(family, "teal(sparsity=0.0)")
    plain, sparse = loaded(folder), loaded(folder, "teal(sparsity=0.0)", recipe)
    for hertz in ((300.0,), (400.0, 700.0)):
        answer = ask(sparse, *hertz)
        assert answer["text"] == ask(plain, *hertz)["text"] and answer["output_tokens"] == NEW_TOKENS
        assert share_read(answer) == pytest.approx(1, abs=0.001), "the kernels ran, and kept every channel"
    assert "teal(sparsity=0.0)" in sparse.description and "teal" not in plain.description


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("label", ["teal(sparsity=0.4)", "r-sparse(sparsity=0.4,ratio=0.9)", "cats(sparsity=0.2)"])
def test_what_is_decoded_reads_less(family: str, label: str, fit: Fit) -> None:
    folder, recipe = fit(family, label)
    found = ask(loaded(folder, label, recipe), 300.0, 500.0)
    sparsity = parse_method(label).settings["sparsity"]
    assert share_read(found) == pytest.approx(1 - sparsity, abs=0.15)
    assert found["ttft_s"] < found["total_s"]


def test_two_together_decode_as_each_does_alone(fit: Fit) -> None:
    folder, recipe = fit("qwen2_audio", "teal(sparsity=0.4)")
    model = loaded(folder, "teal(sparsity=0.4)", recipe, batch=2)
    asked = [(300.0,), (400.0, 700.0)]
    together = model.answer({"conversations": [turns(model, *each) for each in asked], "timeout_s": 60.0})["answers"]
    alone = [ask(model, *each) for each in asked]
    assert [one["text"] for one in together] == [one["text"] for one in alone]
    shares = [share_read(one) for one in alone]
    assert share_read(together[0]) == pytest.approx(sum(shares) / 2, abs=0.002), "of both, taken together"
    assert "answered in a batch of 2, whose times these are" in together[0]["notes"]


def kept(answer: dict[str, Any]) -> float:
    """What the answer's note says of the prompt."""
    (share,) = [
        float(found[1]) for note in answer["notes"] if (found := re.match(r"([\d.]+) % of the prompt's", note))
    ]
    assert share / 100 == pytest.approx(answer["kept_share"], abs=0.001)
    return share / 100


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_sound_and_text_are_pruned_and_all_that_is_kept_changes_nothing(family: str, fit: Fit) -> None:
    folder, _ = fit(family, "teal(sparsity=0.0)")
    plain, whole, pruned = (
        loaded(folder, label) for label in (None, "claa(keep=1.0)", "claa(keep=0.5,layer=0,window=4,kv=full)")
    )
    for hertz in ((300.0,), (400.0, 700.0)):
        answer, all_kept, some_kept = (ask(model, *hertz) for model in (plain, whole, pruned))
        assert all_kept["text"] == answer["text"] and kept(all_kept) == 1 and answer["kept_share"] is None
        assert kept(some_kept) == pytest.approx(0.5, abs=1 / some_kept["input_tokens"] + 0.001)
        assert some_kept["output_tokens"] == NEW_TOKENS
    assert "claa(keep=0.5" in pruned.description


@pytest.mark.parametrize(("text", "said"), [
    ("claa(keep=0.2):folder", "claa takes nothing fitted, and was given folder"),
    ("claa(keep=0)", "keep of claa is a share"),
    ("autoregressive", "not for conversations: local: models decode with"),
    ("spec-prefill:folder", "not for conversations"),
    ("claa+teal", "names no recipe: fit one with `vivace methods fit 'teal'"),
    ("claa+snapkv", "claa and snapkv do not go together: each of them reads prompts"),
    ("claa+eagle-3:folder", "not for conversations"),
    ("claa:folder+teal:folder", "claa takes nothing fitted, and was given folder"),
])  # fmt: skip
def test_what_cannot_answer_conversations_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_method(text)


def test_prompts_are_pruned_and_tokens_decoded_sparsely_as_one(fit: Fit) -> None:
    """Each does to an answer what it does alone, whatever the order in which they are written."""
    claa, teal = "claa(keep=0.5,layer=0,window=4,kv=full)", "teal(sparsity=0.4)"
    folder, recipe = fit("qwen2_audio", teal)
    applied = read_method(f"{teal}:{recipe}+{claa}")
    assert applied == read_method(f"{claa}+{teal}:{recipe}")
    assert applied.label == f"{claa}+{teal}" and applied.name == f"{claa}+{teal}:{applied.recipe_sha256[:8]}"
    both = ask(loaded(folder, applied.label, applied.recipe), 300.0, 500.0)
    assert kept(both) == kept(ask(loaded(folder, claa), 300.0, 500.0)) < 0.6
    assert share_read(both) == pytest.approx(0.6, abs=0.15)
    with pytest.raises(UsageError, match="answered one at a time"):
        check_batch(applied, 2)


def test_pruned_prompts_are_answered_one_at_a_time() -> None:
    with pytest.raises(UsageError, match=r"answered one at a time, .* leave out --model-arg batch"):
        check_batch(read_method("claa(keep=0.2)"), 2)
    assert read_method("claa(keep=0.3)").name == "claa(keep=0.3)"


@pytest.mark.usefixtures("models_start_at_once")
def test_a_recipe_that_does_not_fit_the_weights_ends_the_run_with_a_sentence(fit: Fit) -> None:
    _, recipe = fit("qwen2_audio", "teal(sparsity=0.4)")
    omni, _ = fit("qwen2_5_omni", "teal(sparsity=0.4)")
    method = read_method(f"teal(sparsity=0.4):{recipe}")
    model = LocalModel(str(omni), {"device": "cpu"}, ChatOptions(), method)
    assert model.identity.fingerprint == LocalModel(str(omni), {"device": "cpu"}, ChatOptions()).identity.fingerprint
    with pytest.raises(UsageError, match=r"^The recipe is for other weights, those of qwen2_audio: fit it again"):
        asyncio.run(model.reply(Prompt("one", [(SpokenTurn(None, "Hello"), None)])))
    asyncio.run(model.close())
