"""The parts that pruned prefills are made of, by name: a method is a combination of these."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.kv import KvPolicy
    from vivace_methods.prefill.parts.plans import Plan
    from vivace_methods.prefill.parts.selectors import Selector
    from vivace_methods.prefill.rankers.base import Ranker

_HERE = "vivace_methods.prefill"
RANKERS = {
    "window": f"{_HERE}.rankers.window:WindowRanker",
    "settling-window": f"{_HERE}.rankers.settled_window:SettlingRanker",
    "last-query": f"{_HERE}.rankers.last_query:LastQueryRanker",
    "last-token": f"{_HERE}.rankers.last_query:LastTokenRanker",
    "last-part": f"{_HERE}.rankers.all_queries:RecentPartRanker",
    "draft": f"{_HERE}.rankers.drafts:DraftRanker",
    "answer": f"{_HERE}.rankers.answer:AnswerRanker",
    "place": f"{_HERE}.rankers.positions:PlaceRanker",
}
SELECTORS = {
    "top-tokens": f"{_HERE}.parts.selectors:TopTokens",
    "top-chunks": f"{_HERE}.parts.selectors:TopChunks",
    "evenly": f"{_HERE}.parts.selectors:Evenly",
    "above-percentile": f"{_HERE}.parts.selectors:AbovePercentile",
}
PLANS = {
    "at-layer": f"{_HERE}.parts.plans:at_layer",
    "where-settled": f"{_HERE}.parts.plans:where_settled",
    "scheduled": f"{_HERE}.parts.plans:scheduled",
    "restarted": f"{_HERE}.parts.plans:restarted",
    "whole": f"{_HERE}.parts.plans:whole",
}
POLICIES = {
    "full": f"{_HERE}.parts.kv:Everything",
    "shared": f"{_HERE}.parts.kv:Shared",
    "own": f"{_HERE}.parts.kv:OwnWindow",
    "heavy-hitters": f"{_HERE}.parts.kv:HeavyHitters",
}
"""Name → `module:object` that makes one of its settings. A new part is written, and gets one line here."""


def ranker(name: str, *settings: Any, **named: Any) -> Ranker:
    """A ranker with its settings."""
    return _made(RANKERS, name)(*settings, **named)  # type: ignore[no-any-return]


def selector(name: str, *settings: Any, **named: Any) -> Selector:
    """A selector with its settings."""
    return _made(SELECTORS, name)(*settings, **named)  # type: ignore[no-any-return]


def plan(name: str, *settings: Any, **named: Any) -> Plan:
    """A plan with its settings."""
    return _made(PLANS, name)(*settings, **named)  # type: ignore[no-any-return]


def policy(name: str, keep: float = 1.0, from_layer: int = 0, *window: int) -> KvPolicy:
    """A policy for keys and values with its settings.

    Args:
        name: of the policy.
        keep: how much of the prompt stays in a layer, as `selectors.budget` has it.
        from_layer: layers before this one keep everything that they have read.
        window: tokens that look, tokens behind them, and neighbours that are averaged, for `own` alone.
    """
    return _made(POLICIES, name)(*((keep, from_layer, *window) if name == "own" else (keep, from_layer)))  # type: ignore[no-any-return]


def _made(parts: dict[str, str], name: str) -> Any:
    module, _, attribute = parts[name].partition(":")
    return getattr(import_module(module), attribute)
