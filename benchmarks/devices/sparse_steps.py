"""Decode steps of a whole random model on a GPU: sparse methods beside the fastest dense one, and above the floor."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from report import Row, estimated, going_on

from devices.device_times import decoding_of
from vivace_methods.arms import Arm
from vivace_methods.models.cost import decode_cost
from vivace_methods.models.random import random_configuration, random_model
from vivace_methods.protocol import Generator, Request
from vivace_methods.registry import parse_method
from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.timing.audits import audit
from vivace_methods.timing.baseline_choice import Choice, fastest_baseline
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.measurement import measure_arms
from vivace_methods.timing.summary import ArmSummary, summarise
from vivace_methods.timing.trials import Recording, TimedPrompt, Trial

SPARSITY, RATIO = 0.5, 0.95
"""Half of the weights are not read; of those that are, the low-rank part has a twentieth (R-Sparse, uniform)."""
METHODS = {
    "r-sparse": f"r-sparse(sparsity={SPARSITY},ratio={RATIO},sequential=false)",
    "r-sparse(ratio=1)": f"r-sparse(sparsity={SPARSITY},ratio=1.0,criterion=magnitude,sequential=false)",
}
CALIBRATED = 256
"""Tokens of each text that thresholds of the whole model are taken from."""
COMPILED = "dense(cache=static,compile=reduce-overhead)"
"""The baseline on a GPU; how far it is above the floor is told. To try others would take longer than all the rest."""


@dataclass(frozen=True)
class Answers:
    """What is asked of each arm.

    Attributes:
        model: whose decode steps are timed.
        prompt: tokens that precede them.
        decoded: steps of an answer, and one.
        count: of answers of each arm, each to a prompt of its own, half as many times two.
    """

    model: str
    prompt: int
    decoded: int
    count: int


class Steps:
    """Decode steps that were measured so far.

    Args:
        device: on which.
        dtype: of the model.
        answers: that are asked for.
        probe: of the device.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, answers: Answers, probe: FloorProbe) -> None:
        self._device, self._dtype, self._answers, self._probe = device, dtype, answers, probe
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.faults: list[str] = []
        self.figures: list[dict[str, Any]] = []

    def step(self) -> None:
        """Measure decode steps of a whole random model, with half of its blocks' weights and with all."""
        asked = self._answers
        configuration = random_configuration(asked.model)
        configuration.bos_token_id = configuration.eos_token_id = configuration.pad_token_id = None  # none ends early
        model = random_model(configuration, dtype=self._dtype, device=self._device)
        drawn = torch.Generator().manual_seed(3)

        def text(length: int) -> torch.Tensor:
            return torch.randint(configuration.vocab_size, (1, length), generator=drawn)

        texts = [text(CALIBRATED).to(self._device) for _ in range(4)]
        prompts = [
            TimedPrompt(f"p{number}", Request(text(asked.prompt), asked.decoded))
            for number in range(asked.count // 2)
        ]
        dense = self._dense_method(model, prompts[0].request)
        self._note(dense.sentence)
        for name, written in METHODS.items():  # one after the other: to fit and to compile one takes its time
            print(f"fitting {name}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder, going_on(self.faults, f"{name}, a decoded token"):
                method = parse_method(written)
                assert isinstance(method, ActivationSparsity)
                method.fit(model, texts).save(Path(folder) / name)
                arms = {"dense": Arm.of(dense.method), name: Arm.of(method, str(Path(folder) / name))}
                self._probe.again()
                self._measured_step(configuration, model, arms, prompts)
                self._probe.again()

    def _dense_method(self, model: Any, request: Request) -> Choice:
        if self._device.type == "cuda":
            return Choice(parse_method(COMPILED), f"The baseline is {COMPILED}.")
        return fastest_baseline("sparsity", model, request)

    def _measured_step(
        self, configuration: Any, model: Any, arms: Mapping[str, Arm], prompts: Sequence[TimedPrompt]
    ) -> None:
        """Measure arms on prompts; where it is told to end, what was timed until then counts."""
        trials: list[Trial] = []
        activity: dict[str, dict[str, float]] = {}

        def look(generators: Mapping[str, Generator]) -> None:
            usual = prompts[0].request
            for name, generator in generators.items():
                with going_on(self.notes, f"a profile of {name}"):
                    request = replace(usual, prompt=usual.prompt.to(self._device))
                    activity[name] = decoding_of(generator, request, self._device)

        try:
            measure_arms(
                model, arms, prompts, baseline="dense", repetitions=2, audited=0, between=self._probe.between,
                on_trial=trials.append, afterwards=look,
            )  # fmt: skip
        finally:
            with going_on(self.faults, "a decoded token"):
                case = f"{self._answers.model}, a decoded token"
                self._steps(case, configuration, Recording("dense", tuple(trials)), activity)

    def _steps(
        self, case: str, configuration: Any, recording: Recording, activity: Mapping[str, Mapping[str, float]]
    ) -> None:
        for arm in recording.arms:
            for reason in recording.failures(arm):
                self._note(f"{case}: {arm} failed ({reason})")
        for finding in audit(recording, equal_lengths=list(recording.arms)):
            self._note(f"{case}: {finding.arm} {finding.fault} ({finding.sentence})")
        figures = summarise(recording)
        for arm, its in figures.items():
            if not recording.of(arm):
                continue  # it failed, and a note says why
            least = self._least(arm, configuration, recording)
            beside, dense = its.comparison and its.comparison.tpot_s, figures["dense"].tpot_s
            if beside is not None and dense is not None:
                floor, headline = least / dense.value, arm == "r-sparse"
                self.rows.append(estimated(case, arm, "dense", "tpot_s", beside, floor=floor, headline=headline))
            if arm != "dense" or all(row.arm != arm or row.case != case for row in self.rows):
                self._above_floor(case, arm, its, least, activity.get(arm, {}))

    def _least(self, arm: str, configuration: Any, recording: Recording) -> float:
        """Seconds in which this device could read what one step reads, on average over an arm's trials."""
        asked = self._answers
        steps = asked.decoded - 1
        passes = [decode_cost(configuration, asked.prompt + done, self._dtype) for done in range(steps)]
        spared = statistics.mean(
            trial.figures.get("weights_dense", 0) - trial.figures.get("weights_read", 0)
            for trial in recording.of(arm)
        )
        moved = sum(each.bytes for each in passes) - spared * self._dtype.itemsize
        computed = sum(each.flops for each in passes) - 2 * spared  # a token multiplies and adds once for each weight
        return self._probe.floor.floor_seconds(moved / steps, computed / steps, self._dtype)

    def _above_floor(self, case: str, arm: str, its: ArmSummary, least: float, activity: Mapping[str, float]) -> None:
        taken = its.tpot_s
        if taken is None or taken.low is None or taken.high is None:
            return
        times = replace(taken, value=taken.value / least, low=taken.low / least, high=taken.high / least)
        self.rows.append(estimated(case, arm, "floor", "tpot_s", times, floor=1.0))
        self.figures.append({"case": case, "arm": arm, "least_s": least, "device": activity, **its.as_json()})

    def _note(self, text: str) -> None:
        print(text, file=sys.stderr)
        self.notes.append(text)
