"""`--method`: a local audio model decodes with a fitted method, and is told apart from itself without one."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.datasets import conversation_rows, write_parquet

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
    pytest.skip("local models need torch and transformers: pip install 'vivace[local]'", allow_module_level=True)

from support import tiny_audio_models as tiny

pytestmark = pytest.mark.usefixtures("models_start_at_once")

Call = Callable[..., Any]
TEXT = "A table for two by the window, please, and the bill before eight. " * 40


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2-Audio."""
    return tiny.qwen2_audio(tmp_path_factory.mktemp("models") / "listener")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that keeps what was fitted."""
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture
def fit(call: Call, tmp_path: Path, listener: Path, recipes: Path) -> Callable[..., str]:
    """Fit a method to the model, or to another, in a folder of the working directory, and give the arm."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")

    def execute(method: str, model: Path = listener) -> str:
        folder = re.sub(r"\W+", "-", f"{method}-{model.name}")
        if (recipes / folder).exists():
            shutil.copytree(recipes / folder, folder)
            return f"{method}:{folder}"
        done = call("methods", "fit", method, "--model", f"local:{model}", "--calibration", text, "-o", folder)
        assert done.code == 0, done.err
        assert done.out.strip() == f"{method}:{folder}"
        shutil.copytree(folder, recipes / folder)
        return f"{method}:{folder}"

    return execute


@pytest.fixture
def arguments(tmp_path: Path, listener: Path) -> tuple[object, ...]:
    """What takes the model through two voiced conversations."""
    data = write_parquet(tmp_path / "data.parquet", conversation_rows(2, turns=1))
    how = ("--model-arg", "device=cpu", "--model-arg", "max_new_tokens=12", "--no-hear", "--judge", "checks")
    return "run", "audio-multichallenge", "--data", data, "--model", f"local:{listener}", *how


def test_each_method_is_a_run_of_its_own(call: Call, fit: Callable[..., str], arguments: tuple[object, ...]) -> None:
    def run(*more: object) -> Any:
        done = call(*arguments, "--format", "json", *more)
        assert done.code == 0, done.err
        return json.loads(done.out)[0]

    def replies(row: Any) -> list[Any]:
        done = call("export", row["judging"])
        assert done.code == 0, done.err
        return [json.loads(line)["reply"] for line in done.out.splitlines()]

    everything, sparse = fit("r-sparse(sparsity=0.0,ratio=1.0)"), fit("teal(sparsity=0.6)")
    plainly, all_of_it, some_of_it = run(), run("--method", everything), run("--method", sparse)
    assert len({row["run"] for row in (plainly, all_of_it, some_of_it)}) == 3
    assert replies(plainly) == replies(all_of_it), "the method itself at sparsity 0 leaves nothing out"
    assert replies(plainly) != replies(some_of_it)

    assert plainly["method"] is None
    assert re.fullmatch(r"r-sparse\(sparsity=0\.0,ratio=1\.0\):[0-9a-f]{8}", all_of_it["method"])
    assert some_of_it["method"].startswith("teal(sparsity=0.6):")
    for row in (plainly, all_of_it, some_of_it):
        assert row["model"] == "listener" and row["n"] == 2 and row["apr"] is not None
        assert 0 < row["ttft_median_s"] < row["total_median_s"]

    assert run("--method", sparse)["judging"] == some_of_it["judging"], "the same again is the same run"
    Path("moved").mkdir()
    Path(sparse.partition(":")[2]).rename("moved/recipe")
    assert run("--method", "teal(sparsity=0.6):moved/recipe")["run"] == some_of_it["run"], "wherever the recipe lies"

    shown = call("leaderboard", "--format", "md").out
    rows = [line for line in shown.splitlines() if "| listener |" in line]
    assert sum(some_of_it["method"] in row for row in rows) == 1 and len(rows) == 3
    compared = json.loads(call("compare", plainly["run"], some_of_it["run"], "--format", "json").out)["rows"][0]
    assert (compared["a"], compared["b"]) == ("listener · no method", f"listener · {some_of_it['method']}")

    again = json.loads(call("reproduce", some_of_it["run"], "--format", "json").out)
    assert f"--method 'teal(sparsity=0.6):{Path('moved/recipe').absolute()}'" in again["commands"][-1]
    assert not [change for change in again["changes"] if change["what"] == "method"]
    Path("moved/recipe/recipe.json").unlink()
    changes = json.loads(call("reproduce", some_of_it["run"], "--format", "json").out)["changes"]
    assert [change["then"] for change in changes if change["what"] == "method"] == [some_of_it["method"]]


def test_pruned_prompts_are_a_run_of_their_own_whose_row_says_what_was_kept(
    call: Call, arguments: tuple[object, ...]
) -> None:
    def run(*more: object) -> Any:
        done = call(*arguments, "--format", "json", *more)
        assert done.code == 0, done.err
        return json.loads(done.out)[0]

    plainly, pruned = run(), run("--method", "claa(keep=0.5,layer=0,window=4,kv=full)")
    assert plainly["kept_share"] is None and 0.4 < pruned["kept_share"] <= 0.5
    assert pruned["method"] == "claa(keep=0.5,layer=0,window=4,kv=full)" and pruned["run"] != plainly["run"]
    shown = call("leaderboard", "--columns", "model,kept %,TTFT", "--format", "md").out
    assert f"| {100 * pruned['kept_share']:.1f} |" in shown
    items = [json.loads(line) for line in call("export", pruned["judging"]).out.splitlines()]
    shares = {item["conversation"]: item["kept_share"] for item in items}
    assert sum(shares.values()) / len(shares) == pytest.approx(pruned["kept_share"])
    again = json.loads(call("reproduce", pruned["run"], "--format", "json").out)
    assert not [change for change in again["changes"] if change["what"] == "method"]


@pytest.mark.parametrize(
    ("method", "model", "reason"),
    [
        ("teal(sparsity=0.6)", None, "names no recipe: fit one with `vivace methods fit 'teal(sparsity=0.6)'"),
        ("nonsense:RECIPE", None, "There is no method 'nonsense'"),
        ("teal(speed=2):RECIPE", None, "has no setting 'speed'"),
        ("eagle-3:RECIPE", None, "is not for conversations: local: models decode with r-sparse, teal"),
        ("dense", None, "is not for conversations"),
        ("teal(sparsity=0.3):RECIPE", None, "was fitted as teal(sparsity=0.6), and the arm is teal(sparsity=0.3)"),
        ("teal(sparsity=0.6):.", None, "There is no recipe in"),
        ("teal(sparsity=0.6):RECIPE", "litellm:openai/gpt-audio", "--method changes how a local: model decodes"),
        ("teal(sparsity=0.6):RECIPE", "replay:replies.jsonl", "--method changes how a local: model decodes"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    method: str,
    model: str | None,
    reason: str,
    fit: Callable[..., str],
    arguments: tuple[object, ...],
    refused: Callable[..., str],
) -> None:
    folder = fit("teal(sparsity=0.6)").partition(":")[2]
    other = ("--model", model) if model else ()
    assert reason in refused(*arguments, *other, "--method", method.replace("RECIPE", folder))


def test_more_than_two_at_once_are_refused(
    fit: Callable[..., str], arguments: tuple[object, ...], refused: Callable[..., str]
) -> None:
    said = refused(*arguments, "--method", fit("teal(sparsity=0.6)"), "--model-arg", "batch=3")
    assert "batch may be at most 2" in said and "densely" in said


def test_a_recipe_for_another_model_is_one_sentence(
    call: Call, fit: Callable[..., str], arguments: tuple[object, ...], tmp_path: Path
) -> None:
    omni = tiny.qwen2_5_omni(tmp_path / "omni")
    done = call(*arguments, "--method", fit("teal(sparsity=0.6)", omni))
    assert done.code == 2
    assert done.err.strip().splitlines()[-1] == (
        "Error: The recipe is for other weights, those of omni: fit it again for this model."
    )


def test_a_mixture_of_experts_cannot_be_fitted(call: Call, tmp_path: Path) -> None:
    experts = tiny.qwen3_omni(tmp_path / "experts")
    done = call("methods", "fit", "teal", "--model", f"local:{experts}", "--calibration", "sums", "-o", "recipe")
    assert done.code == 2 and "keeps its experts in one parameter" in done.err
    assert not Path("recipe").exists()
