"""The sparse products' benchmark, on tiny shapes in Triton's interpreter: what it measures, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from support.triton_processes import Call, launches

pytest.importorskip("triton")
import gpu_sparsity
from gpu_sparsity import GROUPS, SPARSITY, TINY, Bench, Group, GroupArm, bare_table, kept_limit, main
from report import BenchmarkError

from vivace_kernels.sparsity.sparse_gemv import sparse_gemv
from vivace_methods.models.random import random_configuration, random_model
from vivace_methods.registry import parse_method
from vivace_methods.sparsity.applying.groups import SparseGroup
from vivace_methods.timing.floor import FloorProbe


@pytest.mark.full
def test_every_arm_stands_beside_dense_ones_and_above_the_floor(interpreted: Call, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    assert interpreted(main, ["--quick", "--device", "cpu", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    arms = ["cublas", "teal", "r-sparse(ratio=1)", "r-sparse"]
    for group in TINY:
        rows = [row for row in found["rows"] if row["case"] == group.case]
        beside = {(row["arm"], row["baseline"]) for row in rows}
        assert beside == {
            *((arm, "floor") for arm in arms),
            *((arm, "cublas") for arm in arms[1:]),
            *((arm, "teal") for arm in arms[2:]),
        }
        assert [row["arm"] for row in rows if row["headline"]] == ["r-sparse"]
        assert all(row["floor"] == 1.0 and row["ratio"] > 1.0 for row in rows if row["baseline"] == "floor")
        dense = sum(group.outputs) * group.inputs * 2
        figures = {each["arm"]: each for each in found["manifest"]["figures"] if each["case"] == group.case}
        assert figures["cublas"]["bytes"] == dense
        for arm in arms[1:]:  # all at equal bytes, but for magnitudes that tie in bfloat16 and the rounding of ranks
            assert 0.8 * SPARSITY * dense <= figures[arm]["bytes"] <= 1.05 * SPARSITY * dense
        for arm in arms:
            assert len(figures[arm]["seconds"]) == 5 and figures[arm]["share_of_bandwidth"] < 1
        table = bare_table(found["manifest"]["figures"])
        assert len(table) == 1 + len(TINY) * len(arms)
        line = next(line for line in table if line.startswith(group.case) and " teal " in line)
        assert f"{figures['teal']['microseconds']:.2f}" in line
    step = "llama, a decoded token"
    rows = [row for row in found["rows"] if row["case"] == step]
    assert {(row["arm"], row["baseline"]) for row in rows} == {
        *((arm, "floor") for arm in ("dense", "r-sparse", "r-sparse(ratio=1)")),
        *((arm, "dense") for arm in ("r-sparse", "r-sparse(ratio=1)")),
    }
    assert [row["arm"] for row in rows if row["headline"]] == ["r-sparse"]
    assert all(row["metric"] == "tpot_s" and row["n"] == 6 for row in rows)
    least = {each["arm"]: each["least_s"] for each in found["manifest"]["figures"] if each["case"] == step}
    assert 0.3 < least["r-sparse"] / least["dense"] < 0.9, "half of the blocks' weights, and all of the rest"
    notes = found["manifest"]["notes"]
    assert any(note.startswith("The baseline is dense") for note in notes)
    assert "inductor is left out: it is tuned for a GPU." in notes
    assert sum(note.startswith("teal's fastest tile") for note in notes) == len(TINY)


def rows_of_a_group(group: Group) -> list[tuple[str, str, float]]:
    """Arm, baseline and ratio of each row that a group of layers comes to, where kernels are interpreted."""
    device = torch.device("cpu")
    size = replace(gpu_sparsity.QUICK, tiles=gpu_sparsity.QUICK.tiles[:1])
    probe = FloorProbe(device, dtypes=[torch.bfloat16], **gpu_sparsity.SMALL)
    bench = Bench(device, torch.bfloat16, size, probe)
    bench.group(group)
    return [(row.arm, row.baseline, row.ratio) for row in bench.rows]


def test_the_arms_of_a_small_group_are_right_and_above_the_floor(interpreted: Call) -> None:
    rows = interpreted(rows_of_a_group, Group("gate|up", 64, (32, 16)))
    assert {baseline for arm, baseline, _ in rows if arm == "r-sparse"} == {"floor", "cublas", "teal"}
    assert all(ratio > 1.0 for _, baseline, ratio in rows if baseline == "floor")


def launched_by_a_step(architecture: str) -> int:
    """Kernels that a decode step of two layers launches, where they are interpreted."""
    with patch("vivace_methods.sparsity.applying.groups.sparse_product", sparse_gemv):
        model = random_model(random_configuration(architecture), seed=0)
        method = parse_method("r-sparse(sparsity=0.5,ratio=0.8,sequential=false)")
        texts = [torch.randint(199, (1, 40), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
        with torch.inference_mode(), method.attach(model, method.fit(model, texts)):
            return launches(model, torch.tensor([[5]]), use_cache=False)


def test_a_decode_step_launches_four_sparse_kernels_a_layer(interpreted: Call) -> None:
    """q, k and v; o; gate and up; down. There were eight."""
    assert [interpreted(launched_by_a_step, each) for each in ("llama", "qwen3", "gemma2")] == [2 * 4] * 3


def test_an_arm_that_computes_something_else_is_no_result() -> None:
    bench = Bench(torch.device("cpu"), torch.bfloat16, gpu_sparsity.QUICK, None)  # type: ignore[arg-type]
    for wrong in (torch.tensor([[1.0, 2.5]]), torch.tensor([[1.0, float("nan")]])):
        arm = GroupArm([lambda wrong=wrong: wrong], torch.tensor([[1.0, 2.0]]).double(), 1.0)  # type: ignore[misc]
        with pytest.raises(BenchmarkError, match="mine computes something else on o 2x2"):
            bench._require_right(Group("o", 2, (2,)), "mine", arm)


def test_an_arm_that_fails_is_a_note_and_the_others_have_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, *given: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SparseGroup, "_forward", fail)
    device = torch.device("cpu")
    bench = Bench(device, torch.bfloat16, gpu_sparsity.QUICK, FloorProbe(device, **gpu_sparsity.SMALL))
    bench.step()
    assert [(row.arm, row.baseline) for row in bench.rows] == [("dense", "floor")]
    assert {"r-sparse", "r-sparse(ratio=1)"} == {
        note.split(": ")[1].partition(" failed")[0] for note in bench.notes if " failed (" in note
    }


def test_so_many_channels_lie_above_the_limit_on_average() -> None:
    inputs = [torch.tensor([[1.0, -2.0, 3.0, 4.0]]), torch.tensor([[0.5, 0.2, -9.0, 0.1]])]
    assert kept_limit(inputs, 2) == 1.0
    assert kept_limit(inputs, 3) == pytest.approx(0.2)


def test_the_shapes_are_those_of_the_models() -> None:
    """Weights of a layer: of 6.48 and 6.98 thousand millions, in 32 layers."""
    weights = {group.name: group.inputs * sum(group.outputs) for group in GROUPS}
    for model, total in (("Llama-2-7B", 6_476_005_376), ("Llama-3-8B", 6_979_321_856)):
        mine = [count for name, count in weights.items() if name.startswith((model, "both"))]
        assert len(mine) == 4 and 32 * sum(mine) == total


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--device", "cpu"], "This is for a CUDA device"), (["--device", "cpu", "--quick"], "Set TRITON_INTERPRET=1")],
)
def test_what_cannot_be_measured_is_one_sentence(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda"]) == 1
    assert "no CUDA device" in capsys.readouterr().err
