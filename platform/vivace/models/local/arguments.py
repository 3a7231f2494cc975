"""What `--model-arg` may set of a model on this machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from vivace.errors import UsageError

DEFAULTS: dict[str, Any] = {
    "dtype": "auto",
    "device": "auto",
    "attn_implementation": None,
    "max_new_tokens": 1024,
    "batch": 1,
    "do_sample": False,
    "temperature": None,
    "top_p": None,
    "seed": None,
}
"""What `--model-arg` may set. `auto` is the checkpoint's own dtype, and a GPU where there is one."""
SAMPLING = ("temperature", "top_p", "seed")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dtype": (lambda v: v in ("auto", "float32", "bfloat16", "float16"), "auto, float32, bfloat16 or float16"),
    "device": (lambda v: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(v))), "auto, cpu, cuda or cuda:N"),
    "attn_implementation": (lambda v: isinstance(v, str) and bool(v), "a name, for instance sdpa or eager"),
    "max_new_tokens": (lambda v: _is_count(v) and v >= 1, "a whole number from 1"),
    "batch": (lambda v: _is_count(v) and v >= 1, "a whole number from 1"),
    "do_sample": (lambda v: isinstance(v, bool), "true or false"),
    "temperature": (lambda v: _is_number(v) and v > 0, "a number above 0"),
    "top_p": (lambda v: _is_number(v) and 0 < v <= 1, "a number above 0 and up to 1"),
    "seed": (lambda v: _is_count(v) and v >= 0, "a whole number from 0"),
}


def checked_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with their defaults.

    Raises:
        UsageError: an argument is unknown, has a value of the wrong kind, or does nothing.
    """
    for name, value in arguments.items():
        if name not in CHECKS:
            raise UsageError(f"--model-arg cannot set '{name}' of a local: model; it takes {', '.join(CHECKS)}.")
        is_valid, takes = CHECKS[name]
        if not is_valid(value):
            raise UsageError(f"--model-arg {name}={value} is not valid; it takes {takes}.")
    values = {**DEFAULTS, **arguments}
    if values["do_sample"] and values["batch"] > 1:
        raise UsageError(
            "--model-arg batch and --model-arg do_sample=true exclude each other: a sampled reply would depend on "
            "the others in its batch; leave one of them out."
        )
    if values["do_sample"]:
        values["seed"] = values["seed"] or 0
    elif useless := [name for name in SAMPLING if name in arguments]:
        raise UsageError(f"--model-arg {useless[0]} does nothing without --model-arg do_sample=true.")
    return {name: value for name, value in values.items() if value is not None}
