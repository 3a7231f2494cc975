"""The GPU's benchmark of verifying passes, on tiny models of a processor: what it measures, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gpu_speculation
import pytest
import torch
from gpu_speculation import FULL, QUICK, Kind, Mixture, Subject, configuration_of, main


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_pass_stands_beside_the_floor_the_plain_step_and_the_pass_without_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_speculation, "LARGE", 1.0)
    file = tmp_path / "found.json"
    assert main(["--quick", "--device", "cpu", "--model", "olmoe", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    by_arm: dict[tuple[str, str], set[str]] = {}
    for row in found["rows"]:
        by_arm.setdefault((row["case"], row["arm"]), set()).add(row["baseline"])
        assert row["n"] == QUICK.rounds
    step = next(each["arm"] for each in found["manifest"]["figures"] if "plain step" in each["case"])
    assert by_arm == {
        ("olmoe, 4 tokens, U=5", "eagle3"): {"floor", step},
        ("olmoe, 4 tokens, U=5", "eagle3 (grouped_mm)"): {"floor", step, "eagle3"},
        ("olmoe, 4 tokens, B=2", "moe-spec"): {"floor", step, "eagle3"},
        ("olmoe, 4 tokens, B=4", "moe-spec"): {"floor", step, "eagle3"},
    }
    headline = {(row["case"], row["arm"]) for row in found["rows"] if row["headline"]}
    assert headline == {each for each in by_arm if each[1] in ("eagle3", "moe-spec")}
    assert all(row["baseline"] == "floor" and row["floor"] == 1 for row in found["rows"] if row["headline"])
    figures = found["manifest"]["figures"]
    assert all(each["experts_s"] > 0 and each["bytes"] > each["layer_bytes"] for each in figures)


def test_passes_read_what_they_are_forced_to_and_a_tree_sees_the_context_and_its_own_path() -> None:
    made = Mixture(Subject("olmoe", (2,), 0.0), QUICK, torch.device("cpu"), None)
    assert made.met(4) == 5 and made.met(64) == 8 and made.met(1) == 2
    read: list[int] = []
    for block in made._blocks:
        block.register_forward_pre_hook(lambda module, given: read.append(len(given[1].unique())))
    for kind in (Kind(4, None), Kind(4, 2), Kind(1, None)):
        read.clear()
        made.pass_of(kind)()
        assert set(read) == {made.read(kind)}
    mask = made._where(4)["attention_mask"][0, 0] == 0
    assert mask[:, : QUICK.context].all()
    assert mask[:, QUICK.context :].tolist() == [
        [True, False, False, False], [True, True, False, False], [True, False, True, False],
        [True, True, False, True],
    ]  # fmt: skip


def test_shapes_are_the_public_ones() -> None:
    mixtral = configuration_of(FULL.subjects[2], 2)
    assert (mixtral.num_hidden_layers, mixtral.num_local_experts, mixtral.intermediate_size) == (2, 8, 14336)
    assert configuration_of(FULL.subjects[1], None).num_hidden_layers == 48


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cpu"], "for a GPU"),
        (["--quick", "--device", "cpu", "--model", "x"], "there are olmoe, mixtral"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]
