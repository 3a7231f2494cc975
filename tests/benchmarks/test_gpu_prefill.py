"""The GPU's benchmark of pruned prefill, on a tiny model of a processor: what it measures, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import gpu_prefill
import pytest
import torch
from gpu_prefill import ARMS, EARLY, LONG, main
from pruning.contest import Round

pytestmark = pytest.mark.usefixtures("even_rates")


def test_every_arm_has_a_bound_of_its_own_and_a_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    assert main(["--quick", "--device", "cpu", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert {(row["case"], row["arm"]) for row in found["rows"]} == {
        (f"96 tokens, keep 25%: {arm}", arm) for arm in ARMS
    }
    assert all(row["headline"] and row["baseline"] == "full" and row["n"] == 2 for row in found["rows"])
    manifest = found["manifest"]
    figures = manifest["figures"]["96 tokens, keep 25%"]
    assert figures[EARLY]["bound"] > figures["claa"]["bound"] > 0
    assert figures["claa"]["bound"] == pytest.approx(figures["fastkv"]["bound"])
    kernels = manifest["kernels"]["96 tokens, keep 25%"]
    assert kernels["window_scores_s"] > 0 and kernels["kept_attention_s"] > 0
    assert "of it; scoring takes" in capsys.readouterr().out


def test_the_goal_on_long_prompts_is_a_limit_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Early selection saves 0.44 of the time, which is nearly all that could be saved, and less than the goal."""

    def measured(
        size: object, device: object, found: dict[str, list[Round]], seen: dict[str, object], *others: object
    ) -> None:
        floors = {"full": 1.0, **dict.fromkeys(ARMS, 0.55)}
        found[LONG.name] = [Round({"full": 1.0, **dict.fromkeys(ARMS, 0.56)}, floors, {})] * 5
        seen[LONG.name] = {"kernels": {}, **{arm: {"scoring_share": 0.0} for arm in floors}}

    monkeypatch.setattr(gpu_prefill, "measured", measured)
    monkeypatch.setattr(gpu_prefill, "QUICK", gpu_prefill.FULL)
    assert main(["--quick", "--device", "cpu", "--check"]) == 1
    missed = [line for line in capsys.readouterr().err.splitlines() if "is missed" in line]
    assert len(missed) == 1 and f"{LONG.name}: {EARLY} is missed: 0.560, and 0.55 is allowed" in missed[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--device", "cpu"], "for a GPU"), (["--quick", "--device", "cpu", "--tokens", "7"], "prompts of 10240")],
)
def test_what_cannot_be_measured_is_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda"]) == 1
    assert "no CUDA device" in capsys.readouterr().err
