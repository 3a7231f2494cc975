"""What a call costs, by litellm's price list, read without importing litellm, which takes seconds."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vivace.models import reported

PRICE_LIST = "model_prices_and_context_window_backup.json"
"""In litellm's folder: the list as of its release."""


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of one call as the server counts them; None where it does not say, or says what cannot be so."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_audio_tokens: int | None = None
    """Of the input tokens, those that are audio."""
    output_audio_tokens: int | None = None
    cached_tokens: int | None = None
    """Of the input tokens, those that the provider had at hand from an earlier call."""
    cost_usd: float | None = None
    """Where the provider itself says what the call costs."""

    def __post_init__(self) -> None:
        """Keep what can be so: counts and costs within reason, and no part that is more than its whole."""
        into, out = reported.count(self.input_tokens), reported.count(self.output_tokens)
        settled = {
            "input_tokens": into,
            "output_tokens": out,
            "input_audio_tokens": _part(self.input_audio_tokens, into),
            "output_audio_tokens": _part(self.output_audio_tokens, out),
            "cached_tokens": _part(self.cached_tokens, into),
            "cost_usd": reported.dollars(self.cost_usd),
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)


def _part(value: Any, whole: int | None) -> int | None:
    part = reported.count(value)
    return None if part is not None and whole is not None and part > whole else part


@dataclass(frozen=True)
class TokenPrice:
    """A price that the user names, in US dollars for a million tokens."""

    into: float
    out: float

    def of(self, usage: TokenUsage) -> float | None:
        """US dollars; None where the server counts no tokens."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        return (usage.input_tokens * self.into + usage.output_tokens * self.out) / 1_000_000


def parse_price(text: str | None) -> TokenPrice | None:
    """The price that `--price IN,OUT` names; None for none.

    Raises:
        ValueError: it is not two numbers of dollars.
    """
    if text is None:
        return None
    parts = text.split(",")
    are_numbers = all(re.fullmatch(r"\s*\d+(\.\d+)?\s*", part) for part in parts)
    prices = [reported.dollars(float(part)) for part in parts] if are_numbers else []
    if len(prices) != 2 or prices[0] is None or prices[1] is None:
        raise ValueError("write two numbers, for instance 2.5,10: US dollars for a million tokens in, and out")
    return TokenPrice(prices[0], prices[1])


def cost_of(model: str, usage: TokenUsage) -> float | None:
    """US dollars; None where the model is not on the list or the server counts no tokens.

    Prices for very long inputs (above 200,000 tokens) are left aside: no conversation comes near.

    Args:
        model: as litellm writes it, with or without `openai/`.
        usage: the tokens of the call.
    """
    if usage.cost_usd is not None:
        return usage.cost_usd
    prices = _price_list().get(model.removeprefix("openai/"))
    if not prices or usage.input_tokens is None or usage.output_tokens is None:
        return None
    into, out = prices.get("input_cost_per_token"), prices.get("output_cost_per_token")
    if into is None or out is None:
        return None
    heard, spoken = usage.input_audio_tokens or 0, usage.output_audio_tokens or 0
    read = usage.input_tokens - heard
    kept = min(usage.cached_tokens or 0, read)
    return float(
        (read - kept) * into
        + kept * prices.get("cache_read_input_token_cost", into)
        + heard * prices.get("input_cost_per_audio_token", into)
        + (usage.output_tokens - spoken) * out
        + spoken * prices.get("output_cost_per_audio_token", out)
    )


def price_per_second(model: str) -> float | None:
    """US dollars for a second of a recording that is written down; None where the model is not priced so.

    Args:
        model: as litellm writes it, with or without `openai/`.
    """
    prices = _price_list().get(model.removeprefix("openai/"), {})
    price = prices.get("input_cost_per_second")
    return None if price is None else float(price)


def cost_of_speech(model: str, characters: int, seconds: float) -> float | None:
    """US dollars for a text that is spoken; None where the model is priced neither by the one nor by the other.

    Args:
        model: as litellm writes it, with or without `openai/`.
        characters: of the text.
        seconds: of the recording.
    """
    prices = _price_list().get(model.removeprefix("openai/"), {})
    for price, amount in (("input_cost_per_character", characters), ("output_cost_per_second", seconds)):
        if price in prices:
            return float(prices[price]) * amount
    return None


BILLING = frozenset({"openrouter"})
"""Providers that say with each answer what it costs."""


def is_listed(target: str) -> bool:
    """Whether what the calls of a target cost will be known without a price that the user names.

    Args:
        target: a model, judge or transcriber as a spec writes it, `adapter:name`.
    """
    name = target.partition(":")[2]
    provider, _, short = name.partition("/")
    if provider in BILLING:
        return True
    listed = (_price_list().get(key) or {} for key in (name, short))
    return any("input_cost_per_token" in prices or "input_cost_per_second" in prices for prices in listed)


@cache
def _price_list() -> dict[str, dict[str, Any]]:
    package = importlib.util.find_spec("litellm")
    assert package is not None and package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / PRICE_LIST
    prices: dict[str, dict[str, Any]] = json.loads(file.read_bytes()) if file.is_file() else {}
    return prices
