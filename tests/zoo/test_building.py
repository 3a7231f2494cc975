"""Builds of the zoo: the same bytes twice, whole or not there, and each wrong request one sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from vivace.errors import UsageError, VivaceError
from vivace.zoo import registry, shipped
from vivace.zoo.base import OnStep, TrainingRecipe
from vivace.zoo.registry import RECIPES
from vivace.zoo.training import model_build


def silent(step: int, loss: float) -> None:
    """Nobody watches."""


@pytest.mark.full
@pytest.mark.parametrize("name", list(RECIPES))
def test_twenty_steps_give_the_same_bytes_twice(name: str, tmp_path: Path) -> None:
    _same_bytes_twice(name, tmp_path, steps=20)


@pytest.mark.usefixtures("few_words")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full) if name == "retrieval" else name for name in RECIPES]
)
def test_two_steps_give_the_same_bytes_twice(name: str, tmp_path: Path) -> None:
    _same_bytes_twice(name, tmp_path, steps=2)


def _same_bytes_twice(name: str, tmp_path: Path, steps: int) -> None:
    torch.manual_seed(3)  # whatever the caller drew before
    first = model_build.build(name, tmp_path, silent, steps=steps, output=tmp_path / "first")
    torch.set_num_threads(2)
    torch.rand(5)
    second = model_build.build(name, tmp_path, silent, steps=steps, output=tmp_path / "second")
    assert torch.get_num_threads() == 2 and not torch.are_deterministic_algorithms_enabled()
    files = {path.name for path in first.iterdir()}
    assert {"config.json", "model.safetensors"} <= files == {path.name for path in second.iterdir()}
    assert {path.stat().st_mode & 0o777 for path in first.iterdir()} == {0o644}, "others may read them"
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


@dataclasses.dataclass(frozen=True)
class Stub(TrainingRecipe):
    """A recipe that writes its seed and its steps."""

    name = "stub"
    steps = 3

    def train(self, folder: Path, needed: Mapping[str, Path], steps: int, on_step: OnStep) -> None:
        for step in range(steps):
            on_step(step + 1, 0.0)
        (folder / "config.json").write_text(f"{self.seed} {steps} {sorted(needed)}")
        (folder / "model.safetensors").write_text("weights")


@dataclasses.dataclass(frozen=True)
class Companion(Stub):
    """One that needs the first."""

    name = "companion"
    needs = ("stub",)


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo of two stubs."""
    kinds: dict[str, type[TrainingRecipe]] = {"stub": Stub, "companion": Companion}
    monkeypatch.setattr(registry, "RECIPES", dict.fromkeys(kinds, ""))
    for module in (model_build, shipped):
        monkeypatch.setattr(module, "recipe_class", lambda name: kinds[name])
    monkeypatch.setattr("vivace.zoo.training.fingerprint._sources", lambda module: {})


@pytest.mark.usefixtures("stubs")
def test_what_is_built_is_found_and_not_built_again(tmp_path: Path) -> None:
    told: list[int] = []
    folder = model_build.build("zoo:stub", tmp_path, lambda step, loss: told.append(step))
    assert model_build.build("stub", tmp_path, lambda step, loss: told.append(step)) == folder
    assert told == [1, 2, 3]
    assert shipped.folder_of("zoo:stub", tmp_path) == folder
    others = {
        model_build.build("stub", tmp_path, silent, seed=1),
        model_build.build("stub", tmp_path, silent, steps=2),
        model_build.build("stub", tmp_path, silent, steps=2, seed=1),
    }
    assert len(others | {folder}) == 4


@pytest.mark.usefixtures("stubs")
def test_a_needed_model_is_built_first_and_another_one_makes_another(tmp_path: Path) -> None:
    first = model_build.build("companion", tmp_path, silent)
    target = shipped.folder_of("stub", tmp_path)
    assert shipped.folder_of("companion", tmp_path) == first
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_text("other weights")
    assert model_build.build("companion", tmp_path, silent, given={"stub": tmp_path / "other"}) != first
    assert model_build.build("companion", tmp_path, silent, given={"stub": target}) == first


@pytest.mark.usefixtures("stubs")
@pytest.mark.parametrize("reason", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError])
def test_a_broken_build_leaves_nothing(reason: BaseException | type[BaseException], tmp_path: Path) -> None:
    def break_off(step: int, loss: float) -> None:
        if step == 2:
            raise reason

    with pytest.raises(BaseException) as caught:
        model_build.build("stub", tmp_path, break_off)
    assert isinstance(caught.value, reason if isinstance(reason, type) else OSError)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="vivace models build stub"):
        shipped.folder_of("stub", tmp_path)


@pytest.mark.usefixtures("stubs")
def test_weights_that_cannot_be_written_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    def train(self: Stub, folder: Path, *others: object) -> None:
        save_file({"a": torch.ones(1)}, folder / "there" / "is" / "no" / "such" / "folder")

    monkeypatch.setattr(Stub, "train", train)
    with pytest.raises(VivaceError, match="could not be written"):
        model_build.build("stub", tmp_path, silent)
    assert not list(tmp_path.iterdir())


def test_wrong_requests_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for wrong, said in (
        ({"name": "nobody"}, "There is no zoo model 'nobody'; there are retrieval, "),
        ({"name": "moe", "steps": 0}, "at least 1 step"),
        ({"name": "moe", "output": tmp_path / "full"}, "not an empty folder"),
        ({"name": "moe", "output": tmp_path / "full" / "file"}, "not an empty folder"),
    ):
        with pytest.raises(UsageError, match=said):
            model_build.build(built=tmp_path, on_step=silent, **wrong)  # type: ignore[arg-type]
