"""The methods by name, and methods made from names and settings that a person wrote."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vivace_methods.arms import Arm
from vivace_methods.base import Method, MethodError
from vivace_methods.prefill.full import FullPrefill
from vivace_methods.sparsity.cats import Cats
from vivace_methods.sparsity.dense import Dense
from vivace_methods.sparsity.low_rank import LowRank
from vivace_methods.sparsity.r_sparse import RSparse
from vivace_methods.sparsity.random_channels import RandomChannels
from vivace_methods.sparsity.teal import Teal
from vivace_methods.sparsity.wina import Wina
from vivace_methods.speculation.autoregressive import Autoregressive
from vivace_methods.speculation.eagle3 import Eagle3
from vivace_methods.suggesting import did_you_mean

METHODS: dict[str, type[Method]] = {
    kind.name: kind
    for kind in (
        Autoregressive,
        Eagle3,
        FullPrefill,
        Dense,
        RSparse,
        Teal,
        Wina,
        LowRank,
        Cats,
        RandomChannels,
    )
}


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        MethodError: there is none of that name.
    """
    if name not in METHODS:
        raise MethodError(
            f"There is no method '{name}'{did_you_mean(name, METHODS)}; there are {', '.join(METHODS)}."
        )
    return METHODS[name]


def method(name: str, **settings: Any) -> Method:
    """A method with its settings; those not given are at their defaults.

    Raises:
        MethodError: an unknown method or setting, or a value that the setting cannot take.
    """
    kind = method_class(name)
    types = setting_types(kind)
    for setting, value in settings.items():
        if setting not in types:
            known = f"it has {', '.join(types)}" if types else "it has none"
            raise MethodError(f"The method {name} has no setting '{setting}'{did_you_mean(setting, types)}; {known}.")
        if not _fits(value, types[setting]):
            raise MethodError(
                f"The setting {setting} of {name} must be {described(types[setting])}, and {value!r} is not."
            )
    return kind(**settings)


def parse_method(text: str) -> Method:
    """A method from the form in which its label is written: `full`, or `full(attention=eager)`.

    Raises:
        MethodError: not in that form, or as `method` says.
    """
    name, bracket, rest = text.strip().partition("(")
    if bracket and not rest.endswith(")"):
        raise MethodError(f"'{text}' is not written as name(setting=value,setting=value).")
    written = {}
    for part in filter(None, (part.strip() for part in rest[:-1].split(","))):
        setting, equals, value = part.partition("=")
        if not equals:
            raise MethodError(f"'{part}' in '{text}' is not written as setting=value.")
        written[setting.strip()] = value.strip()
    types = setting_types(method_class(name))
    return method(name, **{setting: _read(value, types.get(setting)) for setting, value in written.items()})


_ARM = re.compile(r"(?P<method>[^(:]+(?:\([^)]*\))?)(?::(?P<fitted>.+))?")


def parse_arm(text: str) -> Arm:
    """An arm from the form in which its label is written.

    `full(attention=eager)`, and with something fitted `eagle-3(depth=3):FOLDER` or `eagle-3:zoo:moe-drafter`.

    Raises:
        MethodError: not in that form; as `method` says; a method that needs a drafter without one, or one that takes
            nothing fitted with something.
    """
    written = _ARM.fullmatch(text.strip())
    if written is None:
        raise MethodError(f"'{text}' is not written as name(setting=value,setting=value) or with :FOLDER after it.")
    return Arm(parse_method(written["method"]), written["fitted"])


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


def setting_types(kind: type[Method]) -> dict[str, Any]:
    """The settings of a method with their types, in the order of its fields."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def described(kind: Any) -> str:
    """A setting's type in words: `one of sdpa, eager`, `an integer`."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_args(kind):
        return " or ".join(described(part) for part in get_args(kind))
    return {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "none"}[kind]


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_args(kind):
        return any(_fits(value, part) for part in get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _read(text: str, kind: Any) -> Any:
    """The value that a text stands for, or the text itself where it stands for none."""
    if get_origin(kind) is Literal:
        return next((value for value in get_args(kind) if str(value) == text), text)
    for part in get_args(kind) or (kind,):
        if part is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if part is type(None) and text.lower() == "none":
            return None
        if part in (int, float):
            try:
                return part(text)
            except ValueError:
                continue
    return text
