"""What the process that measures tells of its trials: answers, costs, and how predictions compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from vivace.tracks.efficiency.prompts import PlannedPrompt
from vivace.tracks.efficiency.session.messages import Moved, Predictions, ScoredAnswer, TimedTrial, Told
from vivace_methods.diagnosis import Diagnosis

Tell = Callable[[Told], None]

PREDICTED = 32
"""Prompts along whose answers predictions are compared."""


class TrialTeller:
    """Tells trials, each with its answer, how good that is, what it had to move at the least, and what layers did."""

    def __init__(
        self,
        tell: Tell,
        model: Any,
        tokenizer: Any,
        arms: Any,
        planned: Sequence[PlannedPrompt],
        prompts: Any,
        folder_of: Any,
    ) -> None:
        self._tell, self._model, self._tokenizer = tell, model, tokenizer
        self._arms = arms
        self._folder_of = folder_of
        self._drafts = dict(_drafts_of(arms, model, folder_of))
        self._costs: dict[Any, tuple[Any, Any]] = {}
        self._planned = {prompt.name: prompt for prompt in planned}
        self._requests = {prompt.name: prompt.request for prompt in prompts}

    def trial(self, trial: Any) -> None:
        """Tell one, outside of every clock."""
        told = trial.as_json()
        if trial.failure is not None:
            self._tell(TimedTrial(told))
            return
        diagnoses = self._diagnoses(trial)
        for kind in {row.kind for row in diagnoses}:
            told["figures"].pop(kind, None)  # the rows say it
        self._tell(TimedTrial(told, self._answer(trial), self._moved(trial), diagnoses))

    def _diagnoses(self, trial: Any) -> tuple[Diagnosis, ...]:
        request = self._requests[trial.prompt]
        found: list[Diagnosis] = []
        for method in self._arms[trial.arm].methods:
            found += method.diagnose(self._model, request, trial, trial.tokens)
            if self._drafts:
                found += method.diagnose_drafts(self._model, request, self._drafts)
        return tuple(found)

    def least(self, floor: Any) -> dict[Any, Any]:
        """The least times of the trials that were told, by what the device did at its best.

        Args:
            floor: of the device, after all of its tries.
        """
        from vivace_methods.timing.audits import Least

        def seconds(cost: Any) -> float:
            return float(floor.floor_seconds(cost.bytes, cost.flops, self._model.dtype))

        return {key: Least(seconds(first), seconds(whole)) for key, (first, whole) in self._costs.items()}

    def predictions(self, recording: Any) -> None:
        """Tell how far each arm's predictions lie from the baseline's along its answers, and from the references.

        On no clock, after all trials, and for the first prompts alone: each costs as much as two generations.
        """
        from vivace_methods.timing.measurement import applied

        answers = {trial.prompt: trial.tokens for trial in recording.of(recording.baseline)}
        with applied(self._model, self._arms, self._folder_of) as (generators, _):
            for name in list(self._planned)[:PREDICTED]:
                along = _Along(self._requests[name], generators, recording.baseline, answers.get(name, ()))
                reference = _reference_ids(self._planned[name], self._tokenizer)
                for arm in generators:
                    found = {**along.divergence(arm), **along.nats(arm, reference)}
                    if found:
                        self._tell(Predictions(arm, name, found))

    def _answer(self, trial: Any) -> ScoredAnswer | None:
        from vivace.tasks.scores.metrics import score

        if self._tokenizer is None:
            return None
        prompt = self._planned[trial.prompt]
        answer = self._tokenizer.decode(trial.tokens, skip_special_tokens=True)
        return ScoredAnswer(answer, score(answer, prompt.metric, prompt.sample), prompt.sample.slice)

    def _moved(self, trial: Any) -> Moved | None:
        from vivace_methods.models.cost import cost, prefill_cost
        from vivace_methods.protocol import MethodError

        length, dtype = self._requests[trial.prompt].prompt.shape[1], self._model.dtype
        if not trial.passes:
            return None
        try:
            whole = cost(self._model.config, trial.passes, dtype)
            first = cost(self._model.config, [one for one in trial.passes if one.kind == "read"], dtype)
            full = prefill_cost(self._model.config, length, dtype)
        except MethodError:
            return None  # an architecture whose costs are not known: there is no floor to show
        self._costs[trial.key] = first, whole
        return Moved(length, whole.bytes, whole.flops, full.bytes, full.flops)


def _drafts_of(arms: Any, model: Any, folder_of: Any) -> Iterator[tuple[str, tuple[Any, Callable[[], Any]]]]:
    """Name of each arm that has a model of its own, its method, and what reads that model, once."""
    from vivace_methods.protocol import Need

    for name, arm in arms.items():
        for member in arm.members:
            if Need.DRAFTER in member.method.needs:
                yield name, (member.method, cache(partial(_read, member, model, folder_of)))


def _read(member: Any, model: Any, folder_of: Any) -> Any:
    return member.method.read_fitted(folder_of(member.fitted), model)


class _Along:
    """What arms think along the baseline's answer to one prompt, and along the reference.

    A prediction depends on nothing after it: where the reference is how the answer begins, as a right one does, an
    arm goes through the answer alone. Logits are kept of one arm and of the baseline, for they may be large.
    """

    def __init__(self, request: Any, generators: Any, baseline: str, answer: Sequence[int]) -> None:
        self._generators, self._baseline = generators, baseline
        self._request, self._answer = request, list(answer)
        self._of_baseline: Any = None
        self._latest: tuple[str, Any] | None = None

    def divergence(self, arm: str) -> dict[str, Any]:
        """The sum of the divergences from the baseline, in nats, along the answer."""
        from vivace.tasks.perplexity import divergence

        if not self._answer or arm == self._baseline:
            return {}
        expected, found = self._along_answer(self._baseline), self._along_answer(arm)
        if found is None or expected is None:
            return {}
        return {"kl": float(divergence(expected, found).sum()), "kl_tokens": len(self._answer)}

    def nats(self, arm: str, reference: Sequence[int]) -> dict[str, Any]:
        """The sum of the negative logarithms of the probabilities of a reference's tokens."""
        if not reference:
            return {}
        if self._answer[: len(reference)] == list(reference):
            found = self._along_answer(arm)
        else:
            found = self._generators[arm].logits(self._request, reference)
        if found is None:
            return {}
        places = range(len(reference))
        chosen = found[: len(reference)].double().log_softmax(-1)[places, list(reference)]
        return {"nats": -float(chosen.sum()), "nats_tokens": len(reference)}

    def _along_answer(self, arm: str) -> Any:
        if arm == self._baseline:
            if self._of_baseline is None:
                self._of_baseline = self._generators[arm].logits(self._request, self._answer)
            return self._of_baseline
        if self._latest is None or self._latest[0] != arm:
            self._latest = arm, self._generators[arm].logits(self._request, self._answer)
        return self._latest[1]


def _reference_ids(prompt: PlannedPrompt, tokenizer: Any) -> list[int]:
    """The first reference as tokens that follow the prompt's; empty where there is none, or they do not."""
    if tokenizer is None or not prompt.sample.references:
        return []
    from vivace.tracks.efficiency.session.token_prompts import sample_ids

    begun = prompt.sample.begun
    further = f"{begun} {prompt.sample.references[0]}" if begun else prompt.sample.references[0]
    asked = sample_ids(prompt.sample, tokenizer)
    whole = sample_ids(replace(prompt.sample, begun=further), tokenizer)
    return whole[len(asked) :] if whole[: len(asked)] == asked else []
