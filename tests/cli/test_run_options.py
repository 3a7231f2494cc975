"""The options of `vivace run` are the keys of the specs: each track shows its own, and none is written twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vivace.spec import SPECS, RunSpec, flags_of

ASIDE = {"config", "set", "retry-errors", "force", "dry-run", "format", "home", "database", "artifacts", "help"}
"""What is asked for beside the keys of a spec."""


def options(text: str) -> set[str]:
    """The options that a help lists."""
    return set(re.findall(r"^  (?:-h, )?--([a-z-]+)", text, re.MULTILINE)) - {""}


@pytest.mark.parametrize("track", SPECS)
def test_a_tracks_help_shows_the_keys_of_its_spec_alone(call: Callable[..., Any], track: str) -> None:
    keys = {name.replace("_", "-") for name in SPECS[track].model_fields}
    assert options(call("run", track, "--help").out) == keys - {"track"} | ASIDE
    assert options(call("run", "--model", "zoo:moe", track, "--help").out) == keys - {"track"} | ASIDE
    for name, flag in flags_of(SPECS[track]).items():
        assert re.fullmatch(r"[^.].*\.|.*…", flag.help), f"{name} is explained in a sentence"


def test_the_help_without_a_track_shows_what_all_have_and_names_the_tracks(call: Callable[..., Any]) -> None:
    shown = call("run", "--help").out
    assert options(shown) == {name.replace("_", "-") for name in flags_of(RunSpec)} | ASIDE
    assert all(track in shown for track in SPECS) and "vivace run TRACK --help" in " ".join(shown.split())


def test_defaults_are_the_specs_own(call: Callable[..., Any]) -> None:
    shown = " ".join(call("run", "audio-multichallenge", "--help").out.split())
    assert "VIVACE_RUN_CONCURRENCY; default: (8)" in shown and "VIVACE_RUN_TIMEOUT; default: (120)" in shown
    assert "VIVACE_RUN_HEAR; default: (hear)" in shown
    efficiency = " ".join(call("run", "prefill", "--help").out.split())
    assert "Samples of each task. [env var: VIVACE_RUN_LIMIT; default: (20)]" in efficiency
    assert "--device <auto|cpu|cuda>" in efficiency


def test_an_option_of_another_track_is_named_before_anything_is_done(refused: Callable[..., str]) -> None:
    sentence = refused("run", "speculation", "--model", "zoo:moe", "--tasks", "sums", "--judge", "checks")
    assert "Unknown key 'judge'" in sentence and "most-tokens" in sentence
    assert "not one of 'auto', 'cpu', 'cuda'" in refused("run", "prefill", "--device", "tpu")


def test_a_variable_of_another_track_is_no_mistake(
    call: Callable[..., Any], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVACE_RUN_MOST_TOKENS", "8")
    monkeypatch.setenv("VIVACE_RUN_LIMIT", "2")
    shown = call("run", "audio-multichallenge", "--data", "demo", "--model", "replay:no.jsonl", "--judge", "checks")
    assert "no.jsonl" in shown.err and "most-tokens" not in shown.err
    monkeypatch.setenv("VIVACE_RUN_LIMIT", "0")
    assert "'limit'" in refused("run", "sparsity", "--model", "zoo:dense", "--tasks", "sums")


def test_flags_of_any_track_are_laid_over_a_file(refused: Callable[..., str], tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("model: zoo:moe\ntasks: sums\nruns:\n- track: sparsity\n- track: prefill\n")
    assert "There is no method 'nonsense'" in refused("run", "--config", suite, "--arms", "nonsense", "--dry-run")
    assert "Unknown key 'votes'" in refused("run", "--config", suite, "--votes", "3")


def test_verbs_of_judges_and_the_doctor_take_the_keys_of_the_spec(call: Callable[..., Any]) -> None:
    again = " ".join(call("judge", "run", "--help").out.split())
    assert "--judge <str> adapter:name, or checks. [env var: VIVACE_JUDGE_RUN_JUDGE" in again and "--votes" in again
    drift = " ".join(call("judge", "drift", "--help").out.split())
    assert "default: (the recorded one, as it was asked)" in drift
    assert "Seconds for one try of a call, for --hear." in " ".join(call("doctor", "--help").out.split())
