"""What is said between the platform and the process that measures arrives as it was said."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from vivace.tasks.base import Sample, Span
from vivace.tracks.efficiency.prompts import PlannedPrompt
from vivace.tracks.efficiency.session import messages
from vivace.tracks.efficiency.session.messages import (
    Audited,
    ChosenBaseline,
    FittedRecipe,
    LongestPrompt,
    MeasuringJob,
    Moved,
    Predictions,
    ProbedFloor,
    ProcessFault,
    Remark,
    ScoredAnswer,
    StepsDone,
    TimedTrial,
    as_line,
    read_job,
    read_told,
)
from vivace_methods.diagnosis import Diagnosis

TRIAL = {"arm": "dense", "prompt": "sums/1", "repetition": 0, "tokens": [1, 2], "emitted_s": [0.25, 0.5]}
TOLD = [
    ProcessFault("no such device", True),
    Remark("2 prompts are longer\nthan the model holds"),
    StepsDone("fitting teal", 3, 9),
    FittedRecipe("teal", "/recipes/1", {"tokens": 9}, (Diagnosis("threshold", "up", "magnitude", 0.5, 0),)),
    ChosenBaseline("dense", "it is the fastest"),
    ProbedFloor({"read_bytes_per_s": 1e9, "flops_per_s": {"torch.float32": 1e12}}, {"attention": "sdpa"}),
    LongestPrompt((5, 6, 7), 16, (2,)),
    TimedTrial(TRIAL),
    TimedTrial(
        TRIAL,
        ScoredAnswer("vier – 四", None),
        Moved(3, 4, 5, 6, 7.5),
        (Diagnosis("kept_channels", "up", "", 0.25, 2),),
    ),
    Predictions("teal", "sums/1", {"kl": 0.125, "kl_tokens": 2}),
    Audited("a1", [{"arm": "teal", "fault": "too fast", "sentence": "…"}]),
]


def test_every_kind_of_message_is_tried() -> None:
    assert {type(each) for each in TOLD} == set(get_args(messages.Told))
    assert len({told.kind for told in TOLD}) == len(get_args(messages.Told))


@pytest.mark.parametrize("told", TOLD, ids=lambda told: type(told).__name__)
def test_a_message_arrives_as_it_was_said_in_one_line(told: Any) -> None:
    line = as_line(told)
    assert line.count("\n") == 1 and line.endswith("\n")
    assert read_told(line.encode()) == told


def test_a_job_brings_its_prompts_with_all_that_their_answers_are_scored_by() -> None:
    sample = Sample("1", "a\nb", ("c", "d"), (Span(0, 1),), ("x", "y"), "kind", plain=True, cuttable=True)
    job = MeasuringJob(
        folder=None,
        random="llama",
        layers=2,
        family="sparsity",
        arms={"dense": "dense"},
        baseline=None,
        prompts=(PlannedPrompt("sums/1", "sums", "number", 9, sample),),
        repeats=1,
        device="cpu",
        dtype="float32",
        threads=1,
        seed=1,
        zoo="zoo",
        name="llama",
        tasks=("sums",),
        calibration=None,
        recipes="recipes",
        done=(("dense", "sums/1", 0),),
    )
    assert read_job(as_line(job)) == job


def test_what_the_store_keeps_of_a_trial_is_flat_and_has_whole_numbers_as_they_were() -> None:
    told = read_told(as_line(TimedTrial(TRIAL, ScoredAnswer("4", 1.0, "sums"), Moved(3, 4, 5, 6, 7.5))).encode())
    assert isinstance(told, TimedTrial)
    kept = told.measurements()
    assert kept == {
        "trial": TRIAL, "answer": "4", "quality": 1.0, "slice": "sums", "prompt_tokens": 3, "bytes": 4, "flops": 5,
        "full_prefill_bytes": 6, "full_prefill_flops": 7.5,
    }  # fmt: skip
    assert isinstance(kept["bytes"], int)
    assert TimedTrial(TRIAL).measurements() == {"trial": TRIAL}
    diagnosed = TimedTrial(TRIAL, diagnoses=(Diagnosis("kept_channels", "up", "", 0.25, 2),)).measurements()
    assert diagnosed == {"trial": TRIAL, "diagnoses": [["kept_channels", "up", "", 0.25, 2]]}


def test_a_line_that_is_no_message_is_refused() -> None:
    with pytest.raises(ValidationError):
        read_told(b'{"kind": "gossip"}\n')
