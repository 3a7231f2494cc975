"""From a target, `adapter:name`, to the adapter: the one place where adapters are registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.models.adapters.transcribed import Transcribed
from vivace.models.base import UNSPOKEN, AppliedMethod, SpokenOutput, SystemUnderTest
from vivace.models.client.calls import ChatOptions
from vivace.models.client.provider_rules import check_modalities
from vivace_methods.suggesting import did_you_mean


@dataclass(frozen=True)
class Target:
    """`adapter:name`, as models and judges are written."""

    adapter: str
    name: str


def parse_target(text: str, known: list[str], what: str) -> Target:
    """Split a target at its first colon.

    Raises:
        UsageError: there is no such adapter, or no name after it.
    """
    adapter, _, name = text.partition(":")
    if adapter not in known:
        meant = did_you_mean(adapter, known)
        raise UsageError(
            f"Unknown {what} '{text}'{meant}; write it as ADAPTER:NAME with one of the adapters {', '.join(known)}."
        )
    return Target(adapter, name)


def _replay(name: str, arguments: dict[str, Any], options: ChatOptions, spoken: SpokenOutput) -> SystemUnderTest:
    from vivace.models.adapters.replay import Replay

    if arguments or options.api_base:
        raise UsageError("replay: takes recorded replies as they are; leave out --model-arg and --api-base.")
    return Replay(Path(name))


def _litellm(name: str, arguments: dict[str, Any], options: ChatOptions, spoken: SpokenOutput) -> SystemUnderTest:
    from vivace.models.adapters.litellm import LiteLLMSystem

    return LiteLLMSystem(name, arguments, options, spoken)


def _local(
    name: str,
    arguments: dict[str, Any],
    options: ChatOptions,
    spoken: SpokenOutput,
    method: AppliedMethod | None = None,
) -> SystemUnderTest:
    from vivace.models.adapters.local import LocalModel

    return LocalModel(name, arguments, options, method)


def _openai_realtime(
    name: str, arguments: dict[str, Any], options: ChatOptions, spoken: SpokenOutput
) -> SystemUnderTest:
    from vivace.models.adapters.openai_realtime import OpenAIRealtimeSystem, with_flags

    others, output = with_flags(arguments, spoken)
    return OpenAIRealtimeSystem(name, others, options, output, is_transcribed=spoken.transcriber is not None)


SYSTEMS: dict[str, Callable[[str, dict[str, Any], ChatOptions, SpokenOutput], SystemUnderTest]] = {
    "litellm": _litellm,
    "local": _local,
    "openai-realtime": _openai_realtime,
    "replay": _replay,
}
"""Adapter name → what makes the system under test. A new adapter is one file and one line here."""


def open_system(
    text: str,
    arguments: dict[str, Any],
    options: ChatOptions,
    spoken: SpokenOutput = UNSPOKEN,
    *,
    hears: bool = True,
    method: str | None = None,
) -> SystemUnderTest:
    """The system under test that a target names.

    Args:
        text: the target, `adapter:name`.
        arguments: generation parameters.
        options: how calls are made.
        spoken: what it is to answer with.
        hears: whether it will be sent recordings, not transcripts.
        method: the inference method that a model on this machine decodes with, as a person wrote it.

    Raises:
        UsageError: the target, its arguments or the method are wrong, or the provider is known not to do what is
            asked.
    """
    target = parse_target(text, sorted(SYSTEMS), "model")
    if not target.name:
        raise UsageError(f"The model '{text}' lacks a name after '{target.adapter}:'.")
    check_modalities(target.adapter, target.name, options.api_base, spoken, hears=hears)
    make = SYSTEMS[target.adapter]
    if method is not None:
        make = partial(_local, method=_method_for(target, method))
    system = make(target.name, arguments, options, spoken)
    if spoken.transcriber is None:
        return system
    from vivace.models.adapters.transcription import open_transcriber

    return Transcribed(system, open_transcriber(spoken.transcriber, options))


def _method_for(target: Target, text: str) -> AppliedMethod:
    """The method that a target's model is to decode with.

    Raises:
        UsageError: its model is not on this machine, or the method is wrong.
    """
    if target.adapter != "local":
        raise UsageError(
            f"--method changes how a local: model decodes, and {target.adapter}: answers as it does: leave --method "
            "out."
        )
    from vivace.models.local.method import read_method

    return read_method(text)
