"""Judges: the instruments that answer, criterion by criterion, whether a reply meets its rubric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vivace_rubrics.checks import CHECKS_VERSION, CheckError, parse_check
from vivace_rubrics.criteria import Criterion, Exchange, Unscored, Verdict, grading_history, has_text
from vivace_rubrics.parsing import PARSER_VERSION, parse_verdict
from vivace_rubrics.prompts import JudgePrompt


@dataclass(frozen=True)
class JudgeCard:
    """What makes a judge the same instrument: two scores compare only where all of this is equal."""

    target: str
    name: str
    parser_version: str
    address: str | None = None
    prompt: JudgePrompt | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    """Name and JSON value of each parameter, sorted by name."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of target, address, prompt, parameters and parser version."""
        identity: list[Any] = [
            self.target,
            self.address,
            self.prompt.sha256 if self.prompt else None,
            self.parameters,
            self.parser_version,
        ]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


class Judge(Protocol):
    """An instrument that gives one verdict on one criterion of one reply."""

    @property
    def card(self) -> JudgeCard:
        """The judge's identity."""
        ...

    async def judge(self, exchanges: Sequence[Exchange], reply: str, criterion: Criterion) -> Verdict:
        """The verdict on this criterion; a failure is a verdict without an answer, never an exception."""
        ...


class Asker(Protocol):
    """What a judge needs of a language model: one prompt in, one text out.

    The platform's adapters fulfil it, with tries and timeouts of their own.
    """

    async def ask(self, prompt: str) -> str | Verdict:
        """The answer's text; or, where every try failed, an unscored verdict that says why."""
        ...


@dataclass(frozen=True)
class LanguageModelJudge:
    """A language model that reads the transcript and one criterion, and answers in strict JSON."""

    card: JudgeCard
    asker: Asker
    readable_tries: int = 3
    """How often it is asked while its answers cannot be read."""

    async def judge(self, exchanges: Sequence[Exchange], reply: str, criterion: Criterion) -> Verdict:
        """Ask for this criterion, and read the answer."""
        assert self.card.prompt is not None
        turns = sum(has_text(exchange.user) for exchange in exchanges)
        prompt = self.card.prompt.fill(grading_history(exchanges, reply), criterion.text, turns)
        verdict = Verdict(None, "The judge was not asked.", Unscored.NOT_RECORDED)
        for _ in range(self.readable_tries):
            answer = await self.asker.ask(prompt)
            if isinstance(answer, Verdict):
                return answer  # the asker has had its own tries
            verdict = parse_verdict(answer)
            if verdict.unscored is not Unscored.UNREADABLE:
                break
        return verdict


def language_model_card(
    target: str, name: str, prompt: JudgePrompt, parameters: dict[str, Any], address: str | None = None
) -> JudgeCard:
    """The card of a language model as a judge."""
    pairs = tuple(sorted((key, json.dumps(value, sort_keys=True)) for key, value in parameters.items()))
    return JudgeCard(target, name, PARSER_VERSION, address, prompt, pairs)


def ensemble_card(members: Sequence[JudgeCard]) -> JudgeCard:
    """The card of several judges of whom the majority decides; their order does not count."""
    members = sorted(members, key=lambda card: (card.target, card.fingerprint))
    prompts = {card.prompt for card in members}
    return JudgeCard(
        target=",".join(card.target for card in members),
        name=" + ".join(card.name for card in members),
        parser_version="+".join(sorted({card.parser_version for card in members})),
        prompt=prompts.pop() if len(prompts) == 1 else None,
        parameters=(("members", json.dumps([card.fingerprint for card in members])),),
    )


@dataclass(frozen=True)
class ChecksJudge:
    """The deterministic judge: evaluates the machine check a criterion carries, and scores nothing else."""

    card: JudgeCard = JudgeCard(target="checks", name="checks", parser_version=CHECKS_VERSION)

    async def judge(self, exchanges: Sequence[Exchange], reply: str, criterion: Criterion) -> Verdict:
        """Evaluate the criterion's check on the reply."""
        if criterion.machine_check is None:
            return Verdict(None, "The criterion carries no machine check.", Unscored.NO_CHECK)
        try:
            outcome = parse_check(criterion.machine_check).evaluate(reply)
        except CheckError as error:
            return Verdict(None, f"The machine check cannot be read: {error}", Unscored.NO_CHECK)
        return Verdict(outcome.met, outcome.explanation)
