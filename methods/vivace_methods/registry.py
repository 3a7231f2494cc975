"""The methods by name, and methods made from names and settings that a person wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from vivace_methods.arms import Arm, ArmMember
from vivace_methods.plugins import PluginError, Registry, fault_of_subclass
from vivace_methods.protocol import Method, MethodError
from vivace_methods.spelling import Part, SpellingError, check_settings, parse, parse_one, read_settings
from vivace_methods.suggestions import did_you_mean

METHODS: Registry[type[Method]] = Registry(
    "method",
    "vivace.methods",
    {
        "autoregressive": "vivace_methods.speculation.autoregressive:Autoregressive",
        "eagle-3": "vivace_methods.speculation.eagle3:Eagle3",
        "draft-model": "vivace_methods.speculation.draft_model:DraftModel",
        "prompt-lookup": "vivace_methods.speculation.prompt_lookup:PromptLookup",
        "moe-spec": "vivace_methods.speculation.moe_spec:MoeSpec",
        "adaptive-depth": "vivace_methods.speculation.adaptive_depth:AdaptiveDepth",
        "cut-tree": "vivace_methods.speculation.cut_tree:CutTree",
        "piggyback": "vivace_methods.speculation.piggyback:Piggyback",
        "full": "vivace_methods.prefill.full:FullPrefill",
        "claa": "vivace_methods.prefill.claa:Claa",
        "fastkv": "vivace_methods.prefill.fastkv:FastKv",
        "gemfilter": "vivace_methods.prefill.gemfilter:GemFilter",
        "spec-prefill": "vivace_methods.prefill.spec_prefill:SpecPrefill",
        "asl": "vivace_methods.prefill.asl:Asl",
        "pyramid-infer": "vivace_methods.prefill.pyramid_infer:PyramidInfer",
        "lazy-llm": "vivace_methods.prefill.lazy_llm:LazyLlm",
        "snapkv": "vivace_methods.prefill.snapkv:SnapKv",
        "h2o": "vivace_methods.prefill.h2o:H2o",
        "oracle": "vivace_methods.prefill.oracle:Oracle",
        "uniform": "vivace_methods.prefill.controls:UniformTokens",
        "random": "vivace_methods.prefill.controls:RandomTokens",
        "recency": "vivace_methods.prefill.controls:RecentTokens",
        "dense": "vivace_methods.sparsity.dense:Dense",
        "r-sparse": "vivace_methods.sparsity.r_sparse:RSparse",
        "teal": "vivace_methods.sparsity.teal:Teal",
        "wina": "vivace_methods.sparsity.wina:Wina",
        "low-rank": "vivace_methods.sparsity.low_rank:LowRank",
        "int8": "vivace_methods.sparsity.int8:Int8",
        "int4": "vivace_methods.sparsity.int4:Int4",
        "cats": "vivace_methods.sparsity.cats:Cats",
        "random-channels": "vivace_methods.sparsity.random_channels:RandomChannels",
    },
    lambda name, made: fault_of_subclass(name, made, Method),
)
"""Name → class. A new method is one file and one line here, or a package with an entry point."""


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        MethodError: there is none of that name, or it cannot be imported.
    """
    try:
        return METHODS[name]
    except PluginError as error:
        raise MethodError(str(error)) from error


def method(name: str, **settings: Any) -> Method:
    """A method with its settings; those not given are at their defaults.

    Raises:
        MethodError: an unknown method or setting, or a value that the setting cannot take.
    """
    kind = method_class(name)
    with _as_method_error():
        check_settings(kind, settings, "method", name)
    return kind(**settings)


def method_of(part: Part) -> Method:
    """The method that a part of an arm names.

    Raises:
        MethodError: an unknown method or setting, or a value that the setting cannot take.
    """
    kind = method_class(part.name)
    with _as_method_error():
        settings = read_settings(kind, part, "method")
    return kind(**settings)


def parse_method(text: str) -> Method:
    """A method from the form in which its label is written: `full`, or `full(attention=eager)`.

    Raises:
        MethodError: not in that form, or as `method` says.
    """
    with _as_method_error():
        part = parse_one(text)
    return method_of(part)


def parse_arm(text: str) -> Arm:
    """An arm from the form in which its label is written.

    `full(attention=eager)`, with something fitted `eagle-3(depth=3):FOLDER` or `eagle-3:zoo:moe-drafter`, and
    several methods as one arm `r-sparse:FOLDER+eagle-3:FOLDER`.

    Raises:
        MethodError: not in that form; as `method` says; a method that needs a drafter without one, one that takes
            nothing fitted with something, or methods that do not go together.
    """
    with _as_method_error():
        parts = parse(text)
    for before, part in pairwise(parts):
        if before.folder is not None and part.name not in METHODS:
            raise MethodError(
                f"There is no method '{part.name}'{did_you_mean(part.name, METHODS)} in '{text}'; a folder with + in "
                f"its name is put into quotation marks, {before.name}:'{before.folder}+…'."
            )
    return Arm(tuple(ArmMember(method_of(part), part.folder) for part in parts))


@contextmanager
def _as_method_error() -> Iterator[None]:
    try:
        yield
    except SpellingError as error:
        raise MethodError(str(error)) from error


def parse_arms(texts: Sequence[str]) -> dict[str, Arm]:
    """Arms by the names under which they are measured, in their order.

    An arm that is written again is named `… #2`: measured against itself, it shows what the machine makes of nothing.

    Raises:
        MethodError: as `parse_arm` says.
    """
    return named_arms([(arm.label, arm) for arm in map(parse_arm, texts)])


def named_arms(named: Sequence[tuple[str, Arm]]) -> dict[str, Arm]:
    """Arms by their names, a name that comes again with `#2` and so on after it.

    Args:
        named: name and arm, in their order.
    """
    counted = Counter[str]()
    arms = {}
    for name, arm in named:
        counted[name] += 1
        arms[name if counted[name] == 1 else f"{name} #{counted[name]}"] = arm
    return arms
