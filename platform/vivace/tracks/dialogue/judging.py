"""Opening the judge that a spec names, with the prompt that the dataset, a file, or Vivace brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vivace.errors import UsageError
from vivace.models.chat import ChatOptions
from vivace.models.registry import parse_target
from vivace.spec import RunSpec
from vivace.tracks.dialogue.conversations import ConversationSet
from vivace_rubrics.criteria import Criterion, Exchange, Verdict
from vivace_rubrics.judges import ChecksJudge, Judge, JudgeCard, LanguageModelJudge, language_model_card
from vivace_rubrics.prompts import VIVACE_PROMPT, JudgePrompt, PromptError

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
class OpenJudge:
    """A judge, and the connection behind it where it needs one."""

    instrument: Judge
    connection: Connection | None = None

    @property
    def card(self) -> JudgeCard:
        """The judge's identity."""
        return self.instrument.card

    async def judge(self, exchanges: Sequence[Exchange], reply: str, criterion: Criterion) -> Verdict:
        """One verdict."""
        return await self.instrument.judge(exchanges, reply, criterion)

    async def preflight(self) -> None:
        """See that the judge can answer."""
        if self.connection is not None:
            await self.connection.preflight()

    async def close(self) -> None:
        """Close its connections."""
        if self.connection is not None:
            await self.connection.close()


def _checks(name: str, spec: RunSpec, own_prompt: str | None) -> OpenJudge:
    if name or spec.judge_prompt or spec.judge_arg or spec.judge_api_base:
        raise UsageError("The judge 'checks' takes no name, prompt, address or arguments; write --judge checks.")
    return OpenJudge(ChecksJudge())


def _litellm(name: str, spec: RunSpec, own_prompt: str | None) -> OpenJudge:
    from vivace.models.litellm import LiteLLMAsker

    if not name:
        raise UsageError(f"The judge '{spec.judge}' lacks a name after 'litellm:'.")
    prompt = judge_prompt(spec.judge_prompt, own_prompt)
    options = ChatOptions(spec.judge_api_base, spec.timeout, spec.retries)
    asker = LiteLLMAsker(name, spec.judge_arg, options)
    card = language_model_card(spec.judge, name, prompt, asker.arguments, asker.address)
    return OpenJudge(LanguageModelJudge(card, asker, readable_tries=1 + spec.retries), asker)


JUDGES: dict[str, Callable[[str, RunSpec, str | None], OpenJudge]] = {"checks": _checks, "litellm": _litellm}
"""Judge's name before the colon → what makes it. A new judge is one function and one line here."""


def open_judge(spec: RunSpec, conversations: ConversationSet) -> OpenJudge:
    """The judge that a spec names.

    Raises:
        UsageError: there is none of that name, or its prompt cannot be used.
    """
    target = parse_target(spec.judge, sorted(JUDGES), "judge")
    return JUDGES[target.adapter](target.name, spec, conversations.judge_prompt)


def judge_prompt(file: str | None, own_prompt: str | None) -> JudgePrompt:
    """The prompt of a file if one is named, else the dataset's own, else Vivace's.

    Raises:
        UsageError: the file cannot be read, or a prompt lacks its placeholders.
    """
    try:
        if file is not None:
            return JudgePrompt(Path(file).name, Path(file).read_text(encoding="utf-8-sig").strip())
        return JudgePrompt("dataset", own_prompt) if own_prompt is not None else VIVACE_PROMPT
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The judge prompt '{file}' cannot be read ({reason}).") from error
    except PromptError as error:
        raise UsageError(f"{str(error)[0].upper()}{str(error)[1:]}.") from error
