"""Whoever mistypes a name is asked about the one that was probably meant, wherever names are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vivace_methods.suggestions import did_you_mean

RUN = ("run", "audio-multichallenge", "--data", "demo")
SWEEP = ("run", "sparsity", "--model", "zoo:dense", "--tasks", "sums")


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        (("laederboard",), "leaderboard"),
        (("leaderboard", "speculaton"), "speculation"),
        (("leaderboard", "--format", "jsn"), "json"),
        (("run", "audio_multichalenge"), "audio-multichallenge"),
        ((*RUN, "--model", "repaly:x"), "replay"),
        ((*RUN, "--model", "replay:x", "--set", "concurency=3"), "concurrency"),
        ((*SWEEP, "--arms", "teel(budget=0.5)"), "teal"),
        ((*SWEEP, "--arms", "teal(sparisty=0.5)"), "sparsity"),
        ((*SWEEP[:-1], "smus"), "sums"),
        ((*SWEEP[:3], "zoo:dnese", "--tasks", "sums"), "dense"),
        (("tasks", "show", "sums(operaton=addition)"), "operation"),
        (("tasks", "show", "sums(operation=additon)"), "addition"),
        (("tasks", "list", "--columns", "metrc"), "metric"),
        (("run", "audio-multichallenge", "--set", "modle=replay:x"), "model"),
        (("methods", "show", "r_spars"), "r-sparse"),
        (("models", "random", "--like", "meta-llama/Llama-3.1-8b-hf", "-o", "new"), "meta-llama/Llama-3.1-8B"),
    ],
)
def test_the_name_that_was_meant_is_asked_about(
    call: Callable[..., object], command: tuple[str, ...], meant: str
) -> None:
    done = call(*command)
    assert done.code == 2 and f"id you mean '{meant}'?" in done.err, done  # type: ignore[attr-defined]


def test_the_keys_of_a_card_are_asked_about(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text("organization: x\n")
    (tmp_path / "r.jsonl").write_text('{"id": "a", "response": "b"}\n')
    sentence = refused(*RUN, "--judge", "checks", "--model", "replay:r.jsonl", "--card", "card.yaml")
    assert "did you mean 'organisation'?" in sentence or "demo" in sentence


def test_a_choice_that_does_not_exist_is_refused_in_plain_words(call: Callable[..., object]) -> None:
    done = call("leaderboard", "--format", "zzz")
    assert done.code == 2 and "'--format': 'zzz' is not one of" in done.err, done  # type: ignore[attr-defined]


def test_a_run_is_judged_by_the_first_four_characters_of_its_id(refused: Callable[..., str]) -> None:
    assert "nothing judged" in refused("judge", "9e6e", "--judge", "checks"), "no verb is looked for under that name"


def test_nothing_is_asked_where_nothing_is_alike() -> None:
    assert did_you_mean("xyzzy", ["sums", "code"]) == ""
    assert did_you_mean("a" * 1_000_000, ["sums"]) == ""
    assert did_you_mean("LOW_RANK", ["low-rank"]) == " (did you mean 'low-rank'?)"
