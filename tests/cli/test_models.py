"""`vivace models`: what it prints, what it refuses, and that nothing half-made stays."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.program import environment
from vivace.zoo.recipes.moe_drafter import MixtureOfExpertsDrafter
from vivace.zoo.registry import RECIPES
from vivace_methods.models.loading import load_model
from vivace_methods.models.shapes import REAL_SHAPES, TINY_SHAPES

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from vivace.cli.main import main
main()
"""


def test_the_zoo_is_listed_where_there_is_no_torch() -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "models", "list", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == list(RECIPES)
    (moe,) = [row for row in rows if row["name"] == "moe"]
    assert moe["class"] == "OlmoeForCausalLM" and moe["parameters"] == 3_493_504 and moe["score"]["n"] >= 200
    assert all(row["purpose"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("build", "nobody"), "there are retrieval, "),
        (("build", "moe", "--steps", "0"), "at least 1 step"),
        (("build", "moe", "--steps", "2", "--output", "full"), "not an empty folder"),
        (("score", "nobody"), "there are retrieval, "),
        (("random", "--like", "nobody/nothing", "--output", "new"), "meta-llama/Llama-3.1-8B"),
        (("random", "--like", "allenai/OLMoE-1B-7B-0125", "--layers", "99", "--output", "new"), "16 layers"),
        (("random", "--like", "allenai/OLMoE-1B-7B-0125", "--output", "full/moe"), "not an empty folder"),
    ],
)
def test_wrong_requests_are_refused(
    arguments: tuple[str, ...], said: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "full" / "moe").mkdir(parents=True)
    (tmp_path / "full" / "moe" / "file").touch()
    assert said in refused("models", *arguments)


def test_a_random_model_can_be_loaded(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny shape stands for the real ones, which take gigabytes."""
    monkeypatch.setitem(REAL_SHAPES, "tiny/olmoe", TINY_SHAPES["olmoe"])  # type: ignore[arg-type]
    options = ("--like", "tiny/olmoe", "--layers", 1, "--dtype", "float16", "--output", "new")
    done = call("models", "random", *options)
    assert (done.code, done.out) == (0, "new\n"), done.err
    model = load_model(tmp_path / "new")
    assert model.config.num_hidden_layers == 1 and model.config.model_type == "olmoe"
    assert call("models", "random", *options).code == 2


def test_a_build_prints_its_folder_and_talks_beside_it(call: Callable[..., Any], tmp_path: Path) -> None:
    done = call("models", "build", "zoo:moe-drafter", "--steps", 1, "--output", "new")
    assert (done.code, done.out) == (0, "new/moe-drafter\n"), done.err
    assert "moe-drafter: 1 of 1 steps" in done.err
    assert (tmp_path / "new" / "moe-drafter" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("reason", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 1)]
)
def test_a_build_that_breaks_off_leaves_nothing(
    reason: BaseException, code: int, call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(self: Any, folder: Path, *others: Any) -> None:
        (folder / "config.json").write_text("{}")
        raise reason

    monkeypatch.setattr(MixtureOfExpertsDrafter, "train", train)
    done = call("models", "build", "moe-drafter", "--output", "new")
    assert done.code == code and not done.out and len(done.err.splitlines()) <= 1
    assert not list((tmp_path / "new").iterdir())
