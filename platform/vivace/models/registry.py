"""From a target, `adapter:name`, to the adapter: the one place where adapters are registered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.models.adapters.base import Adapter, Asked, Capabilities
from vivace.models.adapters.transcribed import transcribed
from vivace.models.base import UNSPOKEN, AppliedMethod, RecordedSystem, SpokenOutput, SystemUnderTest
from vivace.models.client.calls import ChatOptions
from vivace_methods.plugins import PluginError, Registry
from vivace_methods.suggestions import did_you_mean


@dataclass(frozen=True)
class WrittenTarget:
    """`adapter:name`, as models and judges are written."""

    adapter: str
    name: str


def parse_target(text: str, known: list[str], what: str) -> WrittenTarget:
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
    return WrittenTarget(adapter, name)


def _fault_of(name: str, made: object) -> str:
    if not isinstance(getattr(made, "capabilities", None), Capabilities):
        return "it has no capabilities, which are vivace.models.adapters.base.Capabilities"
    return "" if callable(getattr(made, "open", None)) else "it has no open, which makes a system of a target"


ADAPTERS: Registry[Adapter] = Registry(
    "adapter",
    "vivace.adapters",
    {
        "cascade": "vivace.models.adapters.cascade:Cascade",
        "litellm": "vivace.models.adapters.litellm:LiteLLMSystem",
        "local": "vivace.models.adapters.local:LocalModel",
        "openai-realtime": "vivace.models.adapters.openai_realtime:OpenAIRealtimeSystem",
        "packaged": "vivace.models.adapters.local:PackagedLanguageModel",
        "replay": "vivace.models.adapters.replay:Replay",
    },
    _fault_of,
)
"""Name → class. A new adapter is one file and one line here, or a package with an entry point."""


def adapter_of(target: str) -> Adapter | None:
    """The adapter of a target; None where there is none of its name.

    Raises:
        UsageError: there is one, and it cannot be imported.
    """
    name = target.partition(":")[0]
    return _adapter(name) if name in ADAPTERS else None


def asked_target(target: str) -> str:
    """The target whose model writes the replies: of a cascade the one behind its colon, else the target itself."""
    adapter = adapter_of(target)
    return target.partition(":")[2] if adapter is not None and adapter.capabilities.asks_another else target


def is_free(target: str) -> bool:
    """Whether calls to a model cost nobody anything."""
    adapter = adapter_of(asked_target(target))
    return adapter is not None and adapter.capabilities.is_free


def open_system(
    text: str,
    arguments: dict[str, Any],
    options: ChatOptions,
    spoken: SpokenOutput = UNSPOKEN,
    *,
    hears: bool = True,
    method: str | None = None,
    ear: str | None = None,
    home: Path | None = None,
) -> SystemUnderTest:
    """The system under test that a target names.

    Args:
        text: the target, `adapter:name`.
        arguments: generation parameters.
        options: how calls are made.
        spoken: what it is to answer with.
        hears: whether it will be sent recordings, not transcripts.
        method: the inference method that a model on this machine decodes with, as a person wrote it.
        ear: the transcriber that hears for a cascade.
        home: the folder that packaged models lie in; None for the one that the settings name.

    Raises:
        UsageError: the target, its arguments or the method are wrong, or the provider is known not to do what is
            asked.
    """
    target = parse_target(text, sorted(ADAPTERS), "model")
    if not target.name:
        raise UsageError(f"The model '{text}' lacks a name after '{target.adapter}:'.")
    adapter = _adapter(target.adapter)
    _check_spoken(target.adapter, adapter.capabilities, spoken)
    another = applied = None
    if adapter.capabilities.asks_another:
        another = _another(target, arguments, options, method, home)
    elif ear is not None:
        raise UsageError(f"--ear hears for a cascade: write --model cascade:{text}, or leave it out.")
    elif method is not None:
        applied = _method_for(target.adapter, adapter.capabilities, method)
    system = adapter.open(Asked(target.name, arguments, options, spoken, hears, applied, ear, another, home))
    if spoken.transcriber is None:
        return system
    from vivace.models.adapters.transcription import open_transcriber

    return transcribed(system, open_transcriber(spoken.transcriber, options, home))


def _another(
    target: WrittenTarget, arguments: dict[str, Any], options: ChatOptions, method: str | None, home: Path | None
) -> SystemUnderTest:
    """The model behind a cascade's colon, which reads and writes.

    Raises:
        UsageError: there is none that can be asked.
    """
    inner = parse_target(target.name, sorted(ADAPTERS), f"model of {target.adapter}:")
    if _adapter(inner.adapter).capabilities.asks_another:
        raise UsageError(f"A cascade has one ear and one model: leave out the second {inner.adapter}:.")
    system = open_system(target.name, arguments, options, hears=False, method=method, home=home)
    if isinstance(system, RecordedSystem):
        raise UsageError(
            f"{target.adapter}: takes a model that can be asked, and {inner.adapter}: holds recorded replies."
        )
    return system


def _adapter(name: str) -> Adapter:
    try:
        return ADAPTERS[name]
    except PluginError as error:
        raise UsageError(str(error)) from error


def _check_spoken(adapter: str, capabilities: Capabilities, spoken: SpokenOutput) -> None:
    speaks = spoken.output == "audio" or (spoken.output is None and capabilities.speaks == "always")
    for flag, value in (("voice", spoken.voice), ("transcriber", spoken.transcriber)):
        if value is not None and not speaks:
            raise UsageError(f"--{flag} is about spoken answers; leave it out, or ask for them with --output audio.")
    if spoken.output == "audio" and capabilities.speaks == "never":
        raise UsageError(f"{adapter}: models answer in text; leave out --output audio.")


def _method_for(adapter: str, capabilities: Capabilities, text: str) -> AppliedMethod:
    """The method that a target's model is to decode with.

    Raises:
        UsageError: its model is not on this machine, or the method is wrong.
    """
    if not capabilities.takes_method:
        raise UsageError(
            f"--method changes how a local: model decodes, and {adapter}: answers as it does: leave --method out."
        )
    from vivace.models.local.method import read_method

    return read_method(text)
