"""`vivace demo` with and without the packaged models, and that it repeats nothing."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support.program import vivace
from vivace.cli.running import execution
from vivace.cli.running.demo import _dialogue, _efficiency, _missing
from vivace.spec import DialogueSpec, EfficiencySpec, read_card


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def done(home: Path) -> CompletedProcess[str]:
    """The half of the demo that takes no model, without the packaged ones."""
    return vivace("demo", "--only", "dialogue", "--home", home, "--format", "json")


def test_without_the_packages_it_goes_on_without_the_cascade(done: CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert [row["model"] for row in json.loads(done.stdout)] == [
        "written-attentive", "written-hurried", "written-forgetful",
    ]  # fmt: skip
    assert "left out: packaged:smollm2-135m is not in" in done.stderr or "vivace[packaged]" in done.stderr
    assert "Part 3 of 3: written-forgetful" in done.stderr


def test_a_second_time_nothing_is_run_again(
    done: CompletedProcess[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "run_here", lambda *_, **__: pytest.fail("it is recorded"))
    second = vivace("demo", "--only", "dialogue", "--home", home, "--format", "json")
    assert second.returncode == 0 and second.stdout == done.stdout


def test_with_them_a_live_cascade_and_methods_on_its_model_are_parts_of_it() -> None:
    live = [part for part in (*_dialogue(is_real=True), *_efficiency(is_real=True)) if part.is_live]
    cascade, sweep = (part.spec for part in live)
    assert isinstance(cascade, DialogueSpec) and isinstance(sweep, EfficiencySpec)
    assert cascade.card is not None and read_card(Path(cascade.card))["open_weights"] is True
    assert (cascade.model, cascade.ear) == ("cascade:packaged:smollm2-135m", "whisper:packaged:whisper-base")
    methods = [arm.partition("(")[0].partition(":")[0] for arm in sweep.arms]
    assert (sweep.model, methods) == ("packaged:smollm2-135m", ["int8", "teal", "r-sparse"])
    plain = [*_dialogue(is_real=False), *_efficiency(is_real=False)]
    assert not any(part.is_live for part in plain) and len(plain) >= 6


def test_what_is_missing_is_said_in_a_sentence(tmp_path: Path) -> None:
    sentence = _missing(tmp_path)
    assert sentence and sentence.endswith(".") and "\n" not in sentence
