"""The GPU's benchmark, on tiny models of a processor: what it measures, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_baselines
import pytest
import torch
from gpu_baselines import TINY, main

from vivace_methods.models import free_memory
from vivace_methods.models import random as random_models


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def written(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a run writes."""
    assert main(["--device", "cpu", "--json", str(folder / "found.json"), *arguments]) == 0
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def test_every_arm_stands_beside_transformers_and_above_the_floor(tmp_path: Path) -> None:
    found = written(tmp_path, "--quick")
    rows = found["rows"]
    for name in TINY:
        for case, beside, metric, above in (
            (f"{name}, 8 tokens", "generate", "time_s", "tpot_s"),
            (f"{name}, prompt of 64", "forward", "ttft_s", "ttft_s"),
        ):
            mine = [row for row in rows if row["case"] == case]
            against = [row for row in mine if row["baseline"] == beside]
            assert {row["metric"] for row in against} == {metric} and len(against) >= 2
            assert sum(row["headline"] for row in against) == 1
            fastest = min(against, key=lambda row: row["ratio"])
            assert fastest["headline"]
            floors = [row for row in mine if row["baseline"] == "floor"]
            assert {row["metric"] for row in floors} == {above}
            assert {row["arm"] for row in against} <= {row["arm"] for row in floors}
            assert all(row["floor"] == 1.0 and row["ratio"] > 1.0 for row in floors)
    manifest = found["manifest"]
    assert manifest["device"]["kind"] == "cpu" and manifest["floor"]["read_bytes_per_s"] > 0
    figures = {each["case"]: each["figures"] for each in manifest["figures"]}
    assert figures["llama, 8 tokens"]["autoregressive"]["comparison"]["agreement"]["same"] == 1


def test_a_model_that_does_not_fit_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_baselines, "TINY", ("llama", "olmoe"))
    made = random_models.random_model

    def full(configuration: Any, **options: Any) -> Any:
        if configuration.model_type == "olmoe":
            monkeypatch.setattr(free_memory, "free_bytes", lambda: 1000)
        return made(configuration, **options)

    monkeypatch.setattr(gpu_baselines, "random_model", full)
    found = written(tmp_path, "--quick")
    assert {row["case"].partition(",")[0] for row in found["rows"]} == {"llama"}
    assert any(note.startswith("olmoe is left out") for note in found["manifest"]["notes"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cpu"], "for a GPU"),
        (["--device", "cpu", "--quick", "--layers", "1"], "leave one out"),
        (["--device", "cpu", "--layers", "1", "--model", "none"], "no shapes of 'none'"),
    ],
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
