"""Several models of the zoo at the same time: the same bytes as one by one, and whole or not there."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch

from support.own_main import as_own_main
from vivace.errors import VivaceError
from vivace.zoo.training.side_by_side import build_several


def silent(name: str, step: int, loss: float) -> None:
    """Nobody watches."""


@pytest.mark.full
def test_side_by_side_and_one_by_one_give_the_same_bytes(tmp_path: Path) -> None:
    """The drafter's too, whose target is the one that was built with it."""
    _same_bytes(("moe", "moe-drafter", "dense"), tmp_path)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds are forks, which have imported all they need; torch has one thread here, so they may be."""
    assert torch.get_num_threads() == 1
    forks = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: forks)


@pytest.mark.usefixtures("forked", "few_words")
def test_two_side_by_side_and_one_by_one_give_the_same_bytes(tmp_path: Path) -> None:
    _same_bytes(("moe", "dense"), tmp_path)


def _same_bytes(names: tuple[str, ...], tmp_path: Path) -> None:
    told: dict[str, list[int]] = {name: [] for name in names}
    with as_own_main():
        found = dict(
            build_several(
                names, tmp_path / "several", lambda name, step, loss: told[name].append(step), steps=2, jobs=2
            )
        )
    assert told == {name: [1, 2] for name in names}
    assert set(found) == set(names)
    alone = dict(build_several(names, tmp_path / "alone", silent, steps=2, jobs=1))
    for name in names:
        assert found[name].name == alone[name].name
        weights = [folder[name] / "model.safetensors" for folder in (found, alone)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.usefixtures("forked", "few_words")
@pytest.mark.parametrize("killed", [pytest.param(False, marks=pytest.mark.full), True])
def test_what_is_broken_off_leaves_nothing(killed: bool, tmp_path: Path) -> None:
    class BrokenOff(Exception):
        pass

    def break_off(name: str, step: int, loss: float) -> None:
        if not killed:
            raise BrokenOff
        for process in multiprocessing.active_children():
            if process.name == "build dense":
                process.kill()

    with as_own_main(), pytest.raises(VivaceError if killed else BrokenOff) as caught:
        list(build_several(("moe", "dense"), tmp_path, break_off, steps=500, jobs=2))
    if killed:
        assert "built dense was ended (exit code -9)" in str(caught.value)
    assert not [each for each in multiprocessing.active_children() if each.name.startswith("build ")]
    left = [each for each in tmp_path.iterdir() if not (killed and each.name.startswith(".dense"))]
    assert not left, "a killed one alone cannot tidy up"
