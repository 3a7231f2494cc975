"""What a run will take in calls, tokens and dollars, told before it begins by the lengths of texts and sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from vivace.audio.voice import cost_of_speaking
from vivace.models.adapters.transcription import is_free as is_free_transcriber
from vivace.models.client.providers.prices import TokenPrice, TokenUsage, cost_of, is_listed, price_per_second
from vivace.models.hearing_check import KINDS_OF_PROBES, MOST_TURNS, SILENT_SECONDS
from vivace.models.registry import adapter_of, asked_target
from vivace.tracks.dialogue.data.conversations import Conversation
from vivace.tracks.dialogue.judging.judges import OpenJudge, judge_adapter_of
from vivace_rubrics.criteria import grading_history

UNKNOWN = "unknown"
"""In place of a cost where no price is known."""
CHARACTERS_A_TOKEN = 4
CHARACTERS_A_SECOND = 15
"""Of speech."""
HEARD_TOKENS_A_SECOND = {"openai": 10, "gemini": 32, "vertex_ai": 32}
"""Provider → what a second of a recording counts (its own documentation)."""
OTHERS_TOKENS_A_SECOND = 25
SPOKEN_TOKENS_A_SECOND = 20
"""Of an answer in speech, as OpenAI counts it."""
USUAL_REPLY = 400
"""Characters, where the set has no assistant turns to go by."""
VERDICT_TOKENS = 400
"""Of a judge's answer with its thoughts: what o4-mini writes for a criterion of the public set, about."""


@dataclass(frozen=True)
class Prices:
    """What the user says of prices, and who else is paid."""

    model: TokenPrice | None = None
    judge: TokenPrice | None = None
    transcriber: str | None = None
    """As the spec writes it, `adapter:name`."""
    ear: str | None = None
    """Of a cascade; written likewise."""
    voice: str | None = None
    """Of a cascade that speaks, as `open_voice` takes it."""


NO_PRICES = Prices()


def is_free(target: str) -> bool:
    """Whether the calls of a model, judge or transcriber cost nobody anything."""
    adapter, judge = adapter_of(asked_target(target)), judge_adapter_of(target)
    return (
        (adapter is not None and adapter.capabilities.is_free)
        or (judge is not None and judge.is_free)
        or is_free_transcriber(target)
    )


def has_price(target: str) -> bool:
    """Whether what the calls of a target cost will be known without a price that the user names.

    Args:
        target: a model, judge or transcriber as a spec writes it, `adapter:name`.
    """
    return is_free(target) or is_listed(asked_target(target))


class Bill:
    """Calls to one target, added up."""

    def __init__(self, target: str | None, price: TokenPrice | None = None) -> None:
        """Begin a bill.

        Args:
            target: as a spec writes it; None for what is not asked at all.
            price: the one that the user names.
        """
        self._target = target or ""
        asked = "" if target is None else asked_target(target)
        self._is_free = target is None or is_free(asked)
        self._name = asked.partition(":")[2]
        adapter = adapter_of(asked)
        self._provider = (adapter.capabilities.provider if adapter else "") or self._name.partition("/")[0]
        self._price = price
        self.calls = 0
        self.tokens = 0
        self.dollars: float | None = 0.0

    @property
    def heard_a_second(self) -> int:
        """Tokens for a second of a recording."""
        return HEARD_TOKENS_A_SECOND.get(self._provider, OTHERS_TOKENS_A_SECOND)

    def add(self, calls: int, usage: TokenUsage) -> None:
        """Calls that are all alike, priced by their tokens."""
        cost = 0.0 if self._is_free else self._price.of(usage) if self._price else cost_of(self._name, usage)
        self._add(calls, (usage.input_tokens or 0) + (usage.output_tokens or 0), cost)

    def add_transcriptions(self, calls: int, seconds: float) -> None:
        """Recordings of so many seconds that are written down, priced by the second or else by their tokens."""
        usage = _usage(0, seconds * CHARACTERS_A_SECOND, heard=seconds * self.heard_a_second)
        by_second = price_per_second(self._name)
        cost = 0.0 if self._is_free else cost_of(self._name, usage) if by_second is None else by_second * seconds
        self._add(calls, (usage.input_tokens or 0) + (usage.output_tokens or 0), cost)

    def add_speech(self, calls: int, characters: float) -> None:
        """Texts that are spoken, priced by the character or by the second of speech."""
        self._add(calls, 0, cost_of_speaking(self._target, round(characters), characters / CHARACTERS_A_SECOND))

    def _add(self, calls: int, tokens: int, cost: float | None) -> None:
        self.calls += calls
        self.tokens += calls * tokens
        if calls:
            self.dollars = None if self.dollars is None or cost is None else self.dollars + calls * cost


def _usage(characters_in: float, characters_out: float, *, heard: float = 0.0, spoken: float = 0.0) -> TokenUsage:
    """One call's tokens, of texts by their characters and of sound as given."""
    return TokenUsage(
        round(characters_in / CHARACTERS_A_TOKEN + heard),
        round(characters_out / CHARACTERS_A_TOKEN + spoken),
        round(heard),
        round(spoken),
    )


def estimated(
    chosen: Sequence[Conversation],
    *,
    seconds: Mapping[str, float],
    repeats: int,
    asked: str | None,
    speaks: bool,
    is_checked: bool,
    judged: frozenset[str],
    judge: OpenJudge,
    prices: Prices,
) -> dict[str, Any]:
    """A run's calls, tokens and dollars, for `--dry-run`.

    Args:
        chosen: the conversations.
        seconds: conversation → its recordings' length; none where transcripts are sent.
        repeats: replies to each.
        asked: the target that replies; None where all replies are recorded.
        speaks: whether it answers in speech.
        is_checked: whether it is seen first that recordings are heard.
        judged: the conversations that there will be a reply to.
        judge: who judges.
        prices: those that the user names.
    """
    texts = [exchange.assistant for one in chosen for exchange in one.exchanges if exchange.assistant]
    reply = fmean(map(len, texts)) if texts else float(USUAL_REPLY)
    model = Bill(asked, prices.model)
    named = {"transcriber": prices.transcriber, "ear": prices.ear, "voice": prices.voice}
    others = {name: Bill(target) for name, target in named.items() if target is not None}
    ear = others.get("ear")
    spoken_s = reply / CHARACTERS_A_SECOND if speaks else 0.0
    probes = 0 if not is_checked else 1 if ear else len(KINDS_OF_PROBES)
    replies = len(judged) if asked is None else 0
    if asked is not None:
        for one in chosen:
            listens = one.id in seconds and not ear
            said = [exchange.assistant for exchange in one.exchanges]
            said += [] if listens else [exchange.user for exchange in one.exchanges]
            heard = seconds[one.id] * model.heard_a_second if listens else 0.0
            written = sum(len(text or "") for text in said)
            model.add(repeats, _usage(written, reply, heard=heard, spoken=spoken_s * SPOKEN_TOKENS_A_SECOND))
            if ear and one.id in seconds:
                turns = len(one.exchanges)
                ear.add_transcriptions(repeats * turns, seconds[one.id] / turns)
        replies = model.calls
        if "voice" in others:
            others["voice"].add_speech(replies, reply)
        if probes:
            turns = min(MOST_TURNS, max(len(one.exchanges) for one in chosen))
            heard = 0.0 if ear else turns * SILENT_SECONDS * model.heard_a_second
            model.add(probes, _usage(0, turns * CHARACTERS_A_TOKEN**2, heard=heard))
            if ear:
                ear.add_transcriptions(len(KINDS_OF_PROBES) * turns, SILENT_SECONDS)
    if speaks and "transcriber" in others:
        others["transcriber"].add_transcriptions(replies + probes, spoken_s)
    judges = _judging([one for one in chosen if one.id in judged], repeats, reply, judge, prices.judge)
    dollars = [bill.dollars for bill in (model, *others.values(), *judges)]
    judging = [bill.dollars for bill in judges]
    return {
        "model calls": model.calls - probes if asked is not None else 0,
        "hearing probes": probes,
        "model tokens": model.tokens,
        **{f"{name} calls": bill.calls for name, bill in others.items()},
        "judge calls": sum(bill.calls for bill in judges),
        "judge tokens": sum(bill.tokens for bill in judges),
        "cost of the model, $": _shown(model.dollars),
        **{f"cost of the {name}, $": _shown(bill.dollars) for name, bill in others.items()},
        "cost of the judge, $": _shown(_total(judging)),
        "cost, $": _shown(_total(dollars)),
    }


def _judging(
    chosen: Sequence[Conversation], repeats: int, reply: float, judge: OpenJudge, price: TokenPrice | None
) -> list[Bill]:
    """A bill for each judge that is called."""
    bills = []
    for member in judge.members:
        card = member.instrument.card
        if member.connection is None or card.prompt is None:
            continue
        bill = Bill(card.target, price)
        for one in chosen:
            read = len(card.prompt.text) + len(grading_history(one.exchanges, "")) + reply
            for criterion in one.criteria:
                usage = _usage(read + len(criterion.text), VERDICT_TOKENS * CHARACTERS_A_TOKEN)
                bill.add(repeats * judge.votes_each, usage)
        bills.append(bill)
    return bills


def _total(dollars: Sequence[float | None]) -> float | None:
    known = [each for each in dollars if each is not None]
    return sum(known) if len(known) == len(dollars) else None


def _shown(dollars: float | None) -> float | str:
    """Cents, and two digits of what is less; an unknown cost is never a number."""
    if dollars is None:
        return UNKNOWN
    return round(dollars, 2) if dollars >= 0.1 else float(f"{dollars:.2g}")
