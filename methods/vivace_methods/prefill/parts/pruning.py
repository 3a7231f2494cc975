"""The one shape of all pruned prefills: a ranker, a selector, a plan and a policy for keys and values."""

from __future__ import annotations

from dataclasses import dataclass

from vivace_methods.prefill.parts.kv import KvPolicy
from vivace_methods.prefill.parts.plans import Plan, whole
from vivace_methods.prefill.parts.selectors import Selector, TopTokens, budget
from vivace_methods.prefill.rankers.base import Ranker
from vivace_methods.prefill.rankers.positions import PlaceRanker


@dataclass(frozen=True)
class Pruning:
    """How a model reads a prompt, without its number of layers any more.

    Attributes:
        ranker: gives tokens their scores.
        selector: chooses by them.
        plan: where in the model it does.
        kv: what stays in the caches.
    """

    ranker: Ranker
    selector: Selector
    plan: Plan
    kv: KvPolicy

    def prunes(self, tokens: int) -> bool:
        """Whether a prompt of so many tokens is long enough for anything to be left out."""
        least = max(self.ranker.least(), self.selector.first + self.selector.last)
        keeps = [*self.plan.keeps(), self.kv.keep]
        return tokens > least and any(budget(keep, tokens) < tokens for keep in keeps)


def kv_alone(kv: KvPolicy, least: int = 0) -> Pruning:
    """The whole prompt through the whole model, and a policy for what stays in the caches.

    Args:
        kv: the policy.
        least: last tokens of a prompt that always stay: shorter prompts stay whole.
    """
    return Pruning(PlaceRanker("recent", least), TopTokens(), whole(), kv)
