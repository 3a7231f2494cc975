"""Opening the judge that a spec names, with the prompt that the dataset, a file, or Vivace brings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vivace.errors import UsageError
from vivace.files.text import read_text
from vivace.models.client.calls import ChatOptions
from vivace.models.client.providers.prices import parse_price
from vivace.models.registry import parse_target
from vivace.spec import DialogueSpec
from vivace.tracks.dialogue.registration import Judges
from vivace_methods.plugins import PluginError, Registry
from vivace_rubrics.criteria import Criterion, Exchange, Verdict
from vivace_rubrics.judges import (
    ChecksJudge,
    Judge,
    JudgeCard,
    LanguageModelJudge,
    ensemble_card,
    language_model_card,
)
from vivace_rubrics.prompts import VIVACE_PROMPT, JudgePrompt, PromptError
from vivace_rubrics.votes import decision

OFFICIAL_JUDGE = "litellm:openai/o4-mini"
"""The dataset's own judge (its card; arXiv 2512.14865, table 3)."""


class Connection(Protocol):
    """What stands behind a judge that is a model: something that can be reached and closed."""

    async def preflight(self) -> None:
        """See that it can answer."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


@dataclass(frozen=True)
class Member:
    """One judge of a panel, and the connection behind it where it needs one."""

    instrument: Judge
    connection: Connection | None = None
    is_always_the_same: bool = False
    """Whether its votes on one reply are all alike."""
    needs_checks: bool = False
    """Whether it says nothing of a criterion without a machine check."""


@dataclass(frozen=True)
class OpenJudge:
    """The judge of a run: one member asked once, or several votes of which the majority decides.

    Attributes:
        members: one judge, or an ensemble.
        votes_each: how often each member is asked about each criterion.
    """

    members: tuple[Member, ...]
    votes_each: int = 1

    @property
    def votes(self) -> int:
        """Votes on each criterion."""
        return len(self.members) * self.votes_each

    @property
    def card(self) -> JudgeCard:
        """The judge's identity; an ensemble's is made of its members'."""
        cards = [member.instrument.card for member in self.members]
        return cards[0] if len(cards) == 1 else ensemble_card(cards)

    @property
    def judges(self) -> Judges:
        """As it is registered."""
        cards = tuple(member.instrument.card for member in self.members)
        return Judges(self.card, self.votes, cards if len(cards) > 1 else ())

    async def vote(self, exchanges: Sequence[Exchange], reply: str, criterion: Criterion, number: int) -> Verdict:
        """One vote, counted from 0: the members take turns."""
        member = self.members[number % len(self.members)]
        return await member.instrument.judge(exchanges, reply, criterion)

    async def judge(self, exchanges: Sequence[Exchange], reply: str, criterion: Criterion) -> Verdict:
        """The verdict: the one vote, or what the votes come to."""
        votes = [self.vote(exchanges, reply, criterion, number) for number in range(self.votes)]
        given = await asyncio.gather(*votes)
        return given[0] if len(given) == 1 else decision(given)

    async def preflight(self) -> None:
        """See that every member can answer."""
        for member in self.members:
            if member.connection is not None:
                await member.connection.preflight()

    async def close(self) -> None:
        """Close their connections."""
        for member in self.members:
            if member.connection is not None:
                await member.connection.close()


@dataclass(frozen=True)
class AskedJudge:
    """What a judge is opened with.

    Attributes:
        name: what stands behind the colon; empty where there is none.
        spec: of the run; its `judge` is this judge alone.
        own_prompt: the judge prompt that the data set brings, if it brings one.
        is_alone: whether the run has no other judge, so that all that it says of judges is for this one.
    """

    name: str
    spec: DialogueSpec
    own_prompt: str | None
    is_alone: bool = True


class JudgeAdapter(Protocol):
    """What makes a judge of a name, `adapter:name`."""

    @property
    def is_free(self) -> bool:
        """Whether its calls cost nobody anything."""
        ...

    def open(self, asked: AskedJudge) -> Member:
        """The judge; nothing is asked of it yet.

        Raises:
            UsageError: it cannot be what was asked for.
        """
        ...


class Checks:
    """`checks`: the machine checks that criteria carry."""

    is_free = True

    @staticmethod
    def open(asked: AskedJudge) -> Member:
        """The judge of machine checks, who takes nothing."""
        spec = asked.spec
        if asked.is_alone and (asked.name or spec.judge_prompt or spec.judge_arg or spec.judge_api_base):
            raise UsageError("The judge 'checks' takes no name, prompt, address or arguments; write --judge checks.")
        return Member(ChecksJudge(), is_always_the_same=True, needs_checks=True)


class LanguageModel:
    """`litellm:PROVIDER/NAME`: a language model that reads the judge prompt."""

    is_free = False

    @staticmethod
    def open(asked: AskedJudge) -> Member:
        """The language model with its prompt."""
        from vivace.models.adapters.litellm import LiteLLMAsker

        spec = asked.spec
        if not asked.name:
            raise UsageError(f"The judge '{spec.judge}' lacks a name after 'litellm:'.")
        prompt = judge_prompt(spec.judge_prompt, asked.own_prompt)
        options = ChatOptions(
            spec.judge_api_base,
            spec.timeout,
            spec.retries,
            spec.judge_requests_per_minute,
            spec.judge_tokens_per_minute,
            parse_price(spec.judge_price),
        )
        asker = LiteLLMAsker(asked.name, spec.judge_arg, options)
        card = language_model_card(spec.judge, asked.name, prompt, asker.arguments, asker.address)
        return Member(LanguageModelJudge(card, asker, readable_tries=1 + spec.retries), asker)


def _fault_of(name: str, made: object) -> str:
    if not isinstance(getattr(made, "is_free", None), bool):
        return "it does not say whether it is_free, true or false"
    return "" if callable(getattr(made, "open", None)) else "it has no open, which makes a judge of a name"


JUDGES: Registry[JudgeAdapter] = Registry(
    "judge",
    "vivace.judges",
    {
        "checks": "vivace.tracks.dialogue.judging.judges:Checks",
        "litellm": "vivace.tracks.dialogue.judging.judges:LanguageModel",
    },
    _fault_of,
)
"""Judge's name before the colon → what makes it. A new judge is one class and one line here, or a package with an
entry point."""


def judge_adapter_of(target: str) -> JudgeAdapter | None:
    """What makes a judge; None where there is none of its name.

    Raises:
        UsageError: there is one, and it cannot be imported.
    """
    name = target.partition(":")[0]
    if name not in JUDGES:
        return None
    try:
        return JUDGES[name]
    except PluginError as error:
        raise UsageError(str(error)) from error


def open_judge(spec: DialogueSpec, own_prompt: str | None) -> OpenJudge:
    """The judge that a spec names, or the ensemble where it names several with commas between them.

    Args:
        own_prompt: the judge prompt that the data set brings, if it brings one.

    Raises:
        UsageError: there is none of that name, one is named twice, or its prompt cannot be used.
    """
    names = [name.strip() for name in spec.judge.split(",")]
    if len(set(names)) < len(names):
        raise UsageError(f"The judges '{spec.judge}' name one twice; --votes asks each judge more than once.")
    members = []
    for name in names:
        target = parse_target(name, sorted(JUDGES), "judge")
        adapter = judge_adapter_of(name)
        assert adapter is not None
        its_own = spec.model_copy(update={"judge": name})
        members.append(adapter.open(AskedJudge(target.name, its_own, own_prompt, len(names) == 1)))
    if spec.votes > 1 and all(member.is_always_the_same for member in members):
        raise UsageError(f"The judge '{spec.judge}' always says the same; leave out --votes.")
    return OpenJudge(tuple(members), spec.votes)


def check_judge(judge: OpenJudge, criteria: Iterable[Criterion]) -> None:
    """See that machine checks have something to say where they are to judge.

    Raises:
        UsageError: no criterion carries one.
    """
    asked = any(member.needs_checks for member in judge.members)
    if asked and not any(criterion.machine_check is not None for criterion in criteria):
        raise UsageError(
            "No criterion of these conversations carries a machine check, so that the judge 'checks' could score "
            "none; name a language model with --judge, or add a column 'rubric_checks' to the data."
        )


def judge_prompt(file: str | None, own_prompt: str | None) -> JudgePrompt:
    """The prompt of a file if one is named, else the dataset's own, else Vivace's.

    Raises:
        UsageError: the file cannot be read, or a prompt lacks its placeholders.
    """
    try:
        if file is not None:
            return JudgePrompt(Path(file).name, read_text(Path(file), "judge prompt").strip())
        return JudgePrompt("dataset", own_prompt) if own_prompt is not None else VIVACE_PROMPT
    except PromptError as error:
        raise UsageError(f"{str(error)[0].upper()}{str(error)[1:]}.") from error
