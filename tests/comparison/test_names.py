"""Systems that are compared have names that tell them apart, and no longer ones than that takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.analysis.comparison import names_of
from vivace.output.short_names import distinct, short_arms
from vivace.store.verdicts import JudgingCard

CARD = JudgingCard(
    judging="j" * 32, run="r" * 32, model="m", model_fingerprint="f", target="litellm:openai/m", address=None,
    parameters={"top_p": 1}, method=None, input_form="audio-16k", output_form="text", repeats=1, judge="J",
    judge_fingerprint="abcdef0", votes=1, data="d", data_revision="1", dataset_id=1, ended_at=None,
)  # fmt: skip


def test_systems_of_different_names_keep_them() -> None:
    assert names_of([CARD, replace(CARD, model="n", repeats=3, judging="k")]) == ["m", "n"]


def test_two_runs_of_one_model_are_told_apart_by_what_differs() -> None:
    warm = replace(CARD, parameters={"top_p": 1, "temperature": 0.7}, judging="k", run="s")
    assert names_of([CARD, warm, replace(warm, model="n")]) == ["m · defaults", "m · temperature=0.7", "n"]
    assert names_of([CARD, replace(CARD, repeats=3, judging="k")]) == ["m · 1 repeats", "m · 3 repeats"]
    sparse = replace(CARD, method="teal:12345678", judging="k", run="s")
    assert names_of([CARD, sparse]) == ["m · no method", "m · teal:12345678"]


def test_the_same_run_again_is_told_apart_by_its_id() -> None:
    assert names_of([CARD, replace(CARD, run="s" * 32, judging="k")]) == ["m · run rrrrrrrr", "m · run ssssssss"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 3)), unique=True))
def test_names_differ_where_their_details_do(rows: list[tuple[str, str, int]]) -> None:
    names = distinct([name for name, *_ in rows], ([kind for _, kind, _ in rows], [str(n) for *_, n in rows]))
    assert len(set(names)) == len(rows)
    assert all(name.startswith(row[0]) for name, row in zip(names, rows, strict=True))


@pytest.mark.parametrize(
    "names, shown",
    [
        (["teal:/home/one/fits/teal-50", "dense"], ["teal:teal-50", "dense"]),
        (["teal:/a/x/fit", "teal:/a/y/fit", "cats:/c/own"], ["teal:x/fit", "teal:y/fit", "cats:own"]),
        (["teal:/a/fit", "teal:/a/fit #2"], ["teal:fit", "teal:fit #2"]),
        (["teal(sparsity=0.4):/a/fit+eagle-3:zoo:moe-drafter"], ["teal(sparsity=0.4):fit+eagle-3:zoo:moe-drafter"]),
        (["teal:/a/b+c/d e"], ["teal:d e"]),
        (["teal:/fit", "teal:/a/fit"], ["teal:/fit", "teal:a/fit"]),
        (["not (an arm"], ["not (an arm"]),
    ],
)
def test_arms_are_shown_without_their_folders_paths(names: list[str], shown: list[str]) -> None:
    assert short_arms(names) == shown
