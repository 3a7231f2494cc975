"""Arms that need a recipe: fitted beforehand, or at the start of a run, and refused where they do not belong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select

from engine.lab import opened
from support.program import vivace
from vivace.errors import UsageError
from vivace.store.queries.efficiency import layer_rows
from vivace.store.tables import Arm, Run, Trial
from vivace.tasks.generated.base import is_held_out
from vivace.tasks.generated.sums import Sums
from vivace.tracks.efficiency.fitting_texts import WINDOW, find_calibration
from vivace.tracks.efficiency.recipes import fit_arm
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.registry import parse_method
from vivace_methods.sparsity.activation import ActivationSparsity

pytestmark = pytest.mark.usefixtures("models_start_at_once")


class Words:
    """A tokenizer whose ids are places in the text, and which remembers what it was asked."""

    chat_template = None

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: str, **named: Any) -> dict[str, list[int]]:
        self.asked.append(text)
        return {"input_ids": [len(word) % 199 for word in text.split()]}


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(tiny_configuration("llama"))


def test_what_is_calibrated_on_is_never_asked(model: Any) -> None:
    found = find_calibration(None, ["sums", "gsm8k(path=nowhere)", "code"])
    assert found.name == "samples of sums, code that are never asked"
    words = Words()
    texts = found.texts(model, words, 500)
    assert 500 <= sum(text.shape[1] for text in texts) < 700
    asked = {sample.prompt for sample in Sums("addition").samples(200, 0)}
    assert all(is_held_out(prompt) for prompt in asked)
    assert not any(text.startswith(prompt) for text in words.asked for prompt in asked)


def test_a_file_is_cut_into_windows(model: Any, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("word and another one " * 1000, encoding="utf-8")
    found = find_calibration(str(file), ["sums"])
    longest = min(WINDOW, model.config.max_position_embeddings)
    texts = found.texts(model, Words(), 1200)
    assert [text.shape[1] for text in texts][:-1] == [longest] * (1200 // longest) or 1200 % longest == 0
    assert sum(text.shape[1] for text in texts) == 1200
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="cannot be read"):
        found.texts(model, Words(), 10)


@pytest.mark.parametrize(
    ("written", "asked", "reason"),
    [
        (None, ["gsm8k(path=nowhere)"], "nothing to calibrate on"),
        ("nothere.txt", ["sums"], "'nothere.txt' is neither a text file nor"),
        ("gsm8k(path=nowhere)", ["sums"], "nothing to calibrate on"),
    ],
)
def test_nothing_to_calibrate_on_is_said(written: str | None, asked: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        find_calibration(written, asked)


def test_a_recipe_is_fitted_once(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.Generator().manual_seed(1)
    texts = [torch.randint(199, (1, 24), generator=drawn) for _ in range(4)]
    method = parse_method("teal(sparsity=0.4)")
    assert isinstance(method, ActivationSparsity)

    def fitted(of: ActivationSparsity, its: list[torch.Tensor] = texts) -> Path:
        return fit_arm(of, model, "random", "some text", its, tmp_path, lambda done, steps: None)

    first = fitted(method)
    others = {first, fitted(parse_method("teal(sparsity=0.3)")), fitted(method, texts[:3])}  # type: ignore[arg-type]
    assert len(others) == 3, "another recipe for other settings or texts"
    monkeypatch.setattr(ActivationSparsity, "fit", lambda *arguments: pytest.fail("fitted again"))
    assert fitted(method) == first


def test_arms_are_fitted_at_the_start_and_from_folders(tmp_path: Path) -> None:
    where = ("--home", tmp_path / "home")
    run = ("run", "sparsity", "--model", "zoo:dense", "--tasks", "sums", "--limit", 3, "--repeats", 1, *where)
    fit = ("methods", "fit", "cats(sparsity=0.3)", "--model", "zoo:dense", "--tokens", 600, *where)
    folder = tmp_path / "recipe"
    written = vivace(*fit, "--calibration", "sums", "--output", folder)
    assert written.returncode == 0, written.stderr
    assert written.stdout.strip() == f"cats(sparsity=0.3):{folder}"
    assert "8 layers fitted on" in written.stderr

    arms = f"teal(sparsity=0.4),cats(sparsity=0.3):{folder}"
    done = vivace(*run, "--arms", arms, "--calibration", "sums", "--format", "json")
    assert done.returncode == 0, done.stderr
    _, teal, cats = json.loads(done.stdout)
    assert teal["figures"]["figure_sparsity"]["value"] == pytest.approx(0.4, abs=0.05)
    assert cats["figures"]["figure_sparsity"]["value"] == pytest.approx(0.3, abs=0.05)
    for row in (teal, cats):
        assert row["figures"]["kl_per_token"]["value"] > 0 and row["figures"]["bytes_ratio"]["value"] < 0.85
    assert len(list((tmp_path / "home" / "recipes").iterdir())) == 1
    with opened(f"sqlite:///{tmp_path / 'home' / 'vivace.db'}") as database, database.read() as session:
        (measured,) = session.scalars(select(Run.measured))
        trials = session.scalars(select(Trial.measurements).join(Arm).where(Arm.method == "teal")).all()
        layers = layer_rows(database, session.scalars(select(Run.id)).one(), "teal(sparsity=0.4)")
    assert set(measured["recipes"]) == {"teal(sparsity=0.4)", f"cats(sparsity=0.3):{folder}"}
    module = next(row for row in layers if row["layer"] == "model.layers.0.mlp.up_proj")
    assert module["ratio"] == 1.0 and 0 < module["output_error"] < 1
    assert not any("modules" in recipe for recipe in measured["recipes"].values())
    seen = [
        row for trial in trials for row in trial["diagnoses"] if row[:3] == ["kept_channels", module["layer"], ""]
    ]
    assert len(seen) == 3 and not any("kept_channels" in trial["trial"]["figures"] for trial in trials)
    assert module["kept_channels"] == pytest.approx(
        sum(row[3] * row[4] for row in seen) / sum(row[4] for row in seen)
    )

    other = vivace(*run, "--arms", f"cats(sparsity=0.2):{folder}")
    assert other.returncode == 2 and "was fitted as cats(sparsity=0.3)" in other.stderr
    empty = vivace(*run, "--arms", f"teal:{tmp_path}")
    assert empty.returncode == 2 and "There is no recipe in" in empty.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("teal(sparsity=1.0)",), "must be in [0, 1)"),
        (("dense",), "dense needs no recipe"),
        (("teal", "--calibration", "nowhere.txt"), "neither a text file"),
        (("teal", "--calibration", "{folder}/short.txt"), "at least 16"),
        (("teal", "--model", "zoo:moe"), "keeps its experts in one parameter"),
    ],
)
def test_a_fit_that_cannot_be_is_one_sentence(arguments: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("1 + 1")
    options = {"--model": "zoo:dense", "--calibration": "tokens(length=3)", "--output": str(tmp_path / "recipe")}
    given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    flags = [part.format(folder=tmp_path) for pair in {**options, **given}.items() for part in pair]
    refused = vivace("methods", "fit", arguments[0], *flags, "--home", tmp_path / "home")
    assert refused.returncode == 2 and reason in refused.stderr
    assert "Traceback" not in refused.stderr and not (tmp_path / "recipe" / "recipe.json").exists()
