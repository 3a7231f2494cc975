"""The arms of `prefill_quality.py`: rankings at each layer, share and window, and whole methods as they are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from vivace_methods.prefill.claa import Claa
from vivace_methods.prefill.controls import RandomTokens, RecentTokens, UniformTokens
from vivace_methods.prefill.fastkv import FastKv
from vivace_methods.prefill.oracle import Oracle
from vivace_methods.prefill.pruned import PrunedPrefill
from vivace_methods.registry import METHODS

WINDOW = 8
"""The usual one."""


@dataclass(frozen=True)
class Part:
    """Prompts of one length, and what they are asked under.

    Attributes:
        length: of prompt and answer, in tokens.
        prompts: how many.
        layers: behind which the prompt is pruned, from 0.
        keeps: shares that go on.
        windows: last tokens that look.
        only: arms; none for all.
        variants: layers at which variants of CLAA are compared as well, at the shares of `VARIED`.
        whole: prompts that whole methods read, as people use them.
        timed: prompts on which these are timed up to the first token.
    """

    length: int
    prompts: int
    layers: tuple[int, ...]
    keeps: tuple[float, ...]
    windows: tuple[int, ...]
    only: tuple[str, ...] = ()
    variants: tuple[int, ...] = ()
    whole: int = 0
    timed: int = 0


MOST_WINDOWS = 0.4
"""The greatest share at which windows other than the usual one are looked at."""
VARIED = (0.1, 0.2)
FULL = (
    Part(1024, 24, (14, 15, 16, 17), (0.05, 0.1, 0.2, 0.4, 0.6), (8, 16, 32), variants=(15, 16), whole=4, timed=2),
    Part(2048, 8, (15, 16), (0.1, 0.2, 0.4), (8, 32)),
    Part(4096, 4, (15, 16), (0.1, 0.2), (8,)),
    Part(8000, 4, (16,), (0.1, 0.2), (8,), only=("claa", "fastkv", "oracle", "random")),
)
QUICK = (Part(400, 3, (15, 16), (0.1, 0.4), (8,)),)


@dataclass(frozen=True)
class Label:
    """An arm's name with all that is set of it."""

    arm: str
    layer: int
    keep: float
    window: int

    def __str__(self) -> str:
        return f"{self.arm}|{self.layer}|{self.keep}|{self.window}"

    @classmethod
    def of(cls, text: str) -> Label:
        """The label that was written so."""
        arm, layer, keep, window = text.split("|")
        return cls(arm, int(layer), float(keep), int(window))


def arms(part: Part, seed: int) -> dict[str, PrunedPrefill]:
    """Label → method, of all that prune the prompt once and keep full keys and values below."""
    found: dict[str, PrunedPrefill] = {}
    for layer, keep in product(part.layers, part.keeps):
        for window in part.windows if keep <= MOST_WINDOWS else (WINDOW,):
            for name, method in _looking(layer, keep, window):
                found[str(Label(name, layer, keep, window))] = method
        others: dict[str, PrunedPrefill] = {
            "oracle": Oracle(keep=keep, layer=layer, window=WINDOW, kv="full"),
            "random": RandomTokens(keep=keep, layer=layer, window=WINDOW, kv="full", seed=seed),
            "uniform": UniformTokens(keep=keep, layer=layer, window=WINDOW, kv="full"),
            "recency": RecentTokens(keep=keep, layer=layer, window=WINDOW, kv="full", first=4),
        }
        found |= {str(Label(name, layer, keep, WINDOW)): method for name, method in others.items()}
        if layer in part.variants and keep in VARIED:
            found |= {str(Label(name, layer, keep, WINDOW)): method for name, method in _variants(layer, keep)}
    return {label: method for label, method in found.items() if not part.only or Label.of(label).arm in part.only}


def _looking(layer: int, keep: float, window: int) -> Iterator[tuple[str, PrunedPrefill]]:
    yield "claa", Claa(keep=keep, layer=layer, window=window, kv="full")
    yield "fastkv", FastKv(keep=keep, layer=layer, window=window, kv="full")


def _variants(layer: int, keep: float) -> Iterator[tuple[str, PrunedPrefill]]:
    """What CLAA's parts do: layers joined, how heads are, and whether scores are normalised."""
    for layers, heads, norm in product((1, 2, 4, 8), ("sum", "max"), ("none", "zscore")):
        name = f"claa n={layers} {heads} {norm}"
        yield name, Claa(keep=keep, layer=layer, layers=layers, heads=heads, norm=norm, kv="full")
    yield "claa mean", Claa(keep=keep, layer=layer, aggregate="mean", kv="full")
    yield "claa ranksum", Claa(keep=keep, layer=layer, aggregate="ranksum", kv="full")
    yield "claa pool last", Claa(keep=keep, layer=layer, pool="last", kv="full")


SAME_KEEP = (
    "claa", "fastkv", "gemfilter", "asl", "pyramid-infer", "lazy-llm", "snapkv", "h2o", "oracle", "random", "uniform",
    "recency",
)  # fmt: skip
"""Methods as people use them, at the same `keep`; those that this version of Vivace lacks are left out."""
SHARES = (0.2, 0.4)
"""Shares of a full cache that are kept alike, where arms are compared at equal bytes."""


def whole_methods(keeps: Sequence[float], layers: int) -> dict[str, str]:
    """Name → how a person writes it, of methods that read prompts from beginning to end."""
    found = {f"{name} keep {keep:.0%}": f"{name}(keep={keep})" for keep in keeps for name in SAME_KEEP if _is(name)}
    for deferred_from, joined, heads in product((0, 4, None), (1, 4), ("sum", "max")) if keeps else ():
        kept = "kv=full" if deferred_from is None else f"kv_from={deferred_from}"
        name = f"claa n={joined} {heads}, {'full KV below' if deferred_from is None else f'm={deferred_from}'}"
        found[f"{name}, keep {keeps[-1]:.0%}"] = f"claa(keep={keeps[-1]},layers={joined},heads={heads},{kept})"
    for share in SHARES:
        # CLAA keeps all of four layers, and its budget of the others.
        deferred = (share * layers - 4) / (layers - 4)
        found[f"fastkv KV {share:.0%}"] = f"fastkv(keep={share})"
        found[f"claa KV {share:.0%}"] = f"claa(keep={deferred:.4f})"
        found[f"claa m=0 KV {share:.0%}"] = f"claa(keep={share},kv_from=0)"
        found[f"claa n=1 KV {share:.0%}"] = f"claa(keep={deferred:.4f},layers=1)"
        found[f"claa n=1 m=0 KV {share:.0%}"] = f"claa(keep={share},layers=1,kv_from=0)"
        found[f"oracle KV {share:.0%}"] = f"oracle(keep={deferred:.4f})"
        if _is("snapkv"):
            found[f"snapkv KV {share:.0%}"] = f"snapkv(keep={share})"
    return found


def _is(name: str) -> bool:
    return name in METHODS
