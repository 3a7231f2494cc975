"""A judge is an instrument: what makes it the same one, how often it asks, and what it never does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vivace_rubrics.criteria import Criterion, Exchange, Unscored, Verdict
from vivace_rubrics.judges import ChecksJudge, Judge, JudgeCard, LanguageModelJudge, language_model_card
from vivace_rubrics.prompts import VIVACE_PROMPT, JudgePrompt

MET = '{"explanation": "Yes.", "criteria_met": true}'
NOT_MET = '{"explanation": "No.", "criteria_met": false}'


class Scripted:
    """An asker that gives the answers of a list, and keeps what it was asked."""

    def __init__(self, *answers: str | Verdict) -> None:
        self._answers = list(answers)
        self.prompts: list[str] = []

    async def ask(self, prompt: str) -> str | Verdict:
        self.prompts.append(prompt)
        return self._answers.pop(0)


def judged(asker: Scripted, tries: int = 3) -> Verdict:
    card = language_model_card("litellm:openai/j", "openai/j", VIVACE_PROMPT, {})
    judge: Judge = LanguageModelJudge(card, asker, readable_tries=tries)
    return asyncio.run(judge.judge([Exchange("Hi")], "Hello", Criterion("Greets")))


def test_one_criterion_is_one_question() -> None:
    asker = Scripted(NOT_MET)
    assert judged(asker) == Verdict(False, "No.")
    assert asker.prompts == [VIVACE_PROMPT.fill("User: Hi\n\nAssistant: Hello", "Greets", 1)]


def test_an_unreadable_answer_is_asked_for_again_in_the_same_words() -> None:
    asker = Scripted("Yes!", "Surely.", MET)
    assert judged(asker) == Verdict(True, "Yes.")
    assert len(set(asker.prompts)) == 1
    assert len(asker.prompts) == 3


def test_answers_that_stay_unreadable_are_no_verdict() -> None:
    asker = Scripted("Yes!", "Yes!", MET)
    verdict = judged(asker, tries=2)
    assert (verdict.met, verdict.unscored) == (None, Unscored.UNREADABLE)
    assert len(asker.prompts) == 2


def test_a_failed_call_is_not_repeated_here_since_the_asker_has_tried() -> None:
    failure = Verdict(None, "no answer", Unscored.TIMEOUT)
    asker = Scripted("Yes!", failure, MET)
    assert judged(asker) == failure
    assert len(asker.prompts) == 2


def card_with(**changes: Any) -> JudgeCard:
    given: dict[str, Any] = {
        "target": "litellm:openai/j", "name": "j", "prompt": VIVACE_PROMPT, "parameters": {"a": 1}, "address": None,
    }  # fmt: skip
    return language_model_card(**{**given, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "litellm:openai/k"},
        {"address": "http://127.0.0.1:1/v1"},
        {"prompt": JudgePrompt("vivace-2", VIVACE_PROMPT.text + " ")},
        {"parameters": {"a": 2}},
        {"parameters": {"a": 1, "b": None}},
        {"parameters": {}},
    ],
)
def test_whatever_could_change_a_verdict_makes_another_judge(changes: dict[str, Any]) -> None:
    assert card_with(**changes).fingerprint != card_with().fingerprint


def test_names_and_the_order_of_parameters_make_no_difference() -> None:
    one = card_with(parameters={"a": {"x": 1, "y": 2}, "b": 3})
    other = card_with(name="k", parameters={"b": 3, "a": {"y": 2, "x": 1}})
    assert one.fingerprint == other.fingerprint


def test_a_verdict_is_met_not_met_or_unscored_with_a_reason() -> None:
    for met, reason in ((None, None), (True, Unscored.EMPTY), (False, Unscored.TIMEOUT)):
        with pytest.raises(ValueError, match="met, not met, or unscored"):
            Verdict(met, "", reason)


def test_the_judge_of_checks_scores_what_carries_a_check_and_nothing_else() -> None:
    def decide(check: dict[str, Any] | None) -> Verdict:
        return asyncio.run(ChecksJudge().judge([Exchange("Hi")], "Hello", Criterion("Greets", check)))

    assert decide({"states_one_of": ["hello"]}).met is True
    assert decide({"states_one_of": ["bye"]}).met is False
    assert decide(None).unscored is Unscored.NO_CHECK
    assert decide({"no_such_check": 1}).unscored is Unscored.NO_CHECK
