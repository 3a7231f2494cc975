"""Transcribers: what writes a spoken reply down, so that the judge, who hears nothing, can read it."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import soundfile

from vivace.audio.convert import EncodedAudio
from vivace.errors import UsageError
from vivace.models.adapters.local import HeldModel, LocalModel
from vivace.models.adapters.whisper import HeldWhisper
from vivace.models.base import Prompt, SpokenTurn
from vivace.models.client.calls import CallRecord, ChatOptions, record_call, recorded_calls
from vivace.models.client.chat import ChatClient, Completions
from vivace.models.client.completions import NO_KEY, CallError, Received, usage_of
from vivace.models.client.litellm_bridge import LiteLLMCompletions
from vivace.models.client.messages import audio_part
from vivace.models.client.providers.prices import TokenUsage, cost_of, price_per_second
from vivace.models.client.transport import NotACompletionError, WireExchange, named_status, parse_answer, send_watched
from vivace_methods.plugins import PluginError, Registry
from vivace_rubrics.criteria import Unscored

STAGE = "transcribe"
"""What the calls made here are recorded as."""
WORKER = [sys.executable, "-P", "-m", "vivace.models.local.transcription_worker"]
"""The program that holds a local model."""


@dataclass(frozen=True)
class Transcription:
    """What a transcriber heard; exactly one of `text` and `unscored` is set."""

    text: str | None
    unscored: Unscored | None = None
    detail: str | None = None


class Transcriber(Protocol):
    """Something that writes down what is said in a recording."""

    @property
    def name(self) -> str:
        """As boards show it."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what it writes; part of the identity of every run whose replies it wrote down."""
        ...

    async def preflight(self) -> None:
        """See that it can answer at all.

        Raises:
            UnreachableError: nothing answers at its address.
            UsageError: a key is missing or refused, or it is no transcriber.
        """
        ...

    async def transcribe(self, wav: bytes) -> Transcription:
        """What is said in a WAV file; a failure, or silence, is a transcription without text, with the reason.

        Raises:
            UsageError: every further recording would fail too.
            UnreachableError: nothing answers at its address any more.
        """
        ...

    async def close(self) -> None:
        """Release what it holds."""
        ...


def open_transcriber(text: str, options: ChatOptions, home: Path | None = None) -> Transcriber:
    """The transcriber that a target names.

    Args:
        text: `litellm:PROVIDER/NAME`, `local:` and a folder or hub id, or `whisper:` and a name or folder, where
            settings may stand in brackets before the colon.
        options: of the model whose replies are written down. Its timeout and tries hold here as well; its address
            and its rates are its own. Another address for a transcriber is the provider's usual variable, for
            instance OPENAI_BASE_URL.
        home: the folder that packaged models lie in; None for the one that the settings name.

    Raises:
        UsageError: the target is wrong, or what it names cannot be used.
        UnreachableError: the hub has to be asked for a model and does not answer.
    """
    kind = transcriber_kind(text)
    if kind is None or not text.partition(":")[2]:
        raise UsageError(
            f"The transcriber '{text}' is none; write it as ADAPTER:NAME with one of the adapters "
            f"{', '.join(sorted(TRANSCRIBERS))}."
        )
    own = ChatOptions(timeout_s=options.timeout_s, retries=options.retries)
    return kind.make(text, own, home)


def transcriber_kind(text: str) -> TranscriberKind | None:
    """The kind of transcriber that a target names; None where there is none of its name.

    Raises:
        UsageError: there is one, and it cannot be imported.
    """
    name = text.partition(":")[0].partition("(")[0].strip()
    if name not in TRANSCRIBERS:
        return None
    try:
        return TRANSCRIBERS[name]
    except PluginError as error:
        raise UsageError(str(error)) from error


def is_free(text: str) -> bool:
    """Whether what a transcriber writes down costs nobody anything."""
    kind = transcriber_kind(text)
    return kind is not None and kind.is_free


@contextmanager
def _recorded_as_transcribing() -> Iterator[None]:
    made: Sequence[CallRecord] = ()
    try:
        with recorded_calls() as made:
            yield
    finally:  # also what failed in the end was made, and may have to be paid
        for call in made:
            record_call(replace(call, stage=STAGE))


class ServedTranscriber:
    """A transcription model behind an API, `POST /audio/transcriptions`, or another that litellm knows.

    Source: OpenAI's API reference (https://platform.openai.com/docs/api-reference/audio/createTranscription).
    """

    def __init__(self, model: str, options: ChatOptions) -> None:
        self.name = model
        self._client = _TranscriptionClient(model, {}, options, "transcriber")
        self._identity = {"target": f"litellm:{model}", "address": self._client.address}

    @property
    def identity(self) -> dict[str, Any]:
        """Provider and name, and the address where it is not the provider's own."""
        return {key: value for key, value in self._identity.items() if value is not None}

    def check_key(self) -> None:
        """See that a key is there."""
        self._client.check_key()

    async def preflight(self) -> None:
        """See that a key is there and something answers."""
        await self._client.preflight()

    async def transcribe(self, wav: bytes) -> Transcription:
        """What the server reads out of a WAV file."""
        messages = [{"role": "user", "content": [audio_part(wav, "wav")]}]
        with _recorded_as_transcribing():
            answer = await self._client.ask(messages, stream=False)
        return Transcription(answer.text, answer.unscored, answer.detail)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class HeldTranscriber:
    """A recogniser in a process of its own on this machine; it takes one recording at a time.

    Args:
        model: which writes down what it hears.
        settings: those of its parameters that decide what it writes.
    """

    def __init__(self, model: HeldModel, settings: Sequence[str]) -> None:
        self._model = model
        self._settings = settings

    @property
    def name(self) -> str:
        """The checkpoint's own, wherever it lies."""
        return self._model.identity.name

    @property
    def identity(self) -> dict[str, Any]:
        """The checkpoint (its hash where it is a folder) and its settings."""
        model = self._model.identity
        return {
            "target": model.adapter if model.content_sha256 else model.target,
            **({"sha256": model.content_sha256} if model.content_sha256 else {}),
            **{name: model.parameters[name] for name in self._settings},
        }

    async def preflight(self) -> None:
        """Fetch the model if need be, and load it."""
        await self._model.preflight()

    async def transcribe(self, wav: bytes) -> Transcription:
        """What the model hears in a WAV file."""
        prompt = Prompt("", [(SpokenTurn(EncodedAudio(wav, "wav"), None), None)])
        with _recorded_as_transcribing():
            reply = await self._model.reply(prompt)
        return Transcription(reply.text, reply.unscored, reply.detail)

    async def close(self) -> None:
        """End the process."""
        await self._model.close()


def _served(text: str, options: ChatOptions, _home: Path | None) -> Transcriber:
    return ServedTranscriber(text.partition(":")[2], options)


def _local(text: str, options: ChatOptions, home: Path | None) -> Transcriber:
    model = LocalRecogniser(text.partition(":")[2], {}, options, home=home)
    return HeldTranscriber(model, ("dtype", "device"))


def _whisper(text: str, options: ChatOptions, home: Path | None) -> Transcriber:
    from vivace.settings import load_settings

    model = HeldWhisper(text, options.timeout_s, home or load_settings().home)
    return HeldTranscriber(model, ("language", "beam_size", "compute_type", "device"))


@dataclass(frozen=True)
class TranscriberKind:
    """A kind of transcriber, named by what stands before the colon.

    Attributes:
        make: takes the target, how calls are made, and the home.
        is_free: whether what it writes down costs nobody anything.
        may_be_path: whether what stands behind the colon may be a folder, which is then found from anywhere.
    """

    make: Callable[[str, ChatOptions, Path | None], Transcriber]
    is_free: bool = False
    may_be_path: bool = False


SERVED = TranscriberKind(_served)
LOCAL = TranscriberKind(_local, is_free=True, may_be_path=True)
WHISPER = TranscriberKind(_whisper, is_free=True, may_be_path=True)


def _fault_of(name: str, made: object) -> str:
    return "" if isinstance(made, TranscriberKind) else f"it is no {__name__}.TranscriberKind"


TRANSCRIBERS: Registry[TranscriberKind] = Registry(
    "transcriber",
    "vivace.transcribers",
    {
        "litellm": "vivace.models.adapters.transcription:SERVED",
        "local": "vivace.models.adapters.transcription:LOCAL",
        "whisper": "vivace.models.adapters.transcription:WHISPER",
    },
    _fault_of,
)
"""Name before the colon → what makes the transcriber: built in, or of a package with an entry point."""


class LocalRecogniser(LocalModel):
    """A speech recogniser of transformers."""

    worker = WORKER


class _TranscriptionClient(ChatClient):
    """The tries, pace, cache and accounting of every call, around another kind of request."""

    def _open_completions(self, name: str) -> Completions:
        if self._direct is None:
            return _ThroughLiteLLM(self.model, self._provider, None, None, {})
        if self._base is None:
            raise UsageError(
                f"The transcriber '{self.model}' runs on a server of your own; give its address in "
                f"{self._direct.address_names[0] if self._direct.address_names else 'OPENAI_BASE_URL'}, or use "
                "litellm:openai/NAME with OPENAI_BASE_URL."
            )
        return _Direct(self.model, name, self._base, self._direct.key)


class _Direct:
    """A recording as a form with a file, as OpenAI's API takes it."""

    def __init__(self, model: str, name: str, base: str, key: str | None) -> None:
        self._model = model
        self._name = name
        self._address = base.rstrip("/") + "/audio/transcriptions"
        self._headers = {"authorization": f"Bearer {key or NO_KEY}"}

    async def receive(self, messages: list[dict[str, Any]], exchange: WireExchange, received: Received) -> None:
        """Send the recording, and note what is read out of it.

        Raises:
            CallError: the server says that it has failed.
            NotACompletionError: its answer is no transcription.
        """
        wav = _recording(messages)
        request = httpx.Request(
            "POST",
            self._address,
            headers=self._headers,
            data={"model": self._name, "response_format": "json"},
            files={"file": ("reply.wav", wav, "audio/wav")},
        )
        response = await send_watched(request, exchange)
        try:
            body = await response.aread()
        finally:
            await response.aclose()
        if response.status_code != 200:
            raise CallError(body[:500].decode("utf-8", "replace"), response.status_code)
        answer = parse_answer(body)
        if isinstance(answer, dict) and answer.get("error"):
            exchange.status = named_status(answer["error"])
            raise CallError(str(answer["error"]), exchange.status)
        if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
            raise NotACompletionError("the answer holds no text")
        received.text, received.finish_reason = answer["text"].strip(), "stop"
        received.usage = _priced(self._model, usage_of(answer.get("usage")), wav)

    def cost_of(self, usage: TokenUsage) -> float | None:
        """US dollars by the minute or the token, as the provider has it; None where no price is known."""
        return usage.cost_usd


class _ThroughLiteLLM(LiteLLMCompletions):
    """A recording for the providers whose requests litellm translates."""

    async def receive(self, messages: list[dict[str, Any]], exchange: WireExchange, received: Received) -> None:
        """Send the recording, and note what is read out of it.

        Raises:
            CallError: the server says that it has failed.
        """
        wav = _recording(messages)
        try:
            answer = await self._litellm.atranscription(
                model=self._model, file=("reply.wav", wav, "audio/wav"), num_retries=0, max_retries=0
            )
        except Exception as error:
            raise self._translated(error, exchange) from None
        received.text, received.finish_reason = (answer.text or "").strip(), "stop"
        received.usage = _priced(self._model, TokenUsage(), wav)

    def cost_of(self, usage: TokenUsage) -> float | None:
        """US dollars by the minute; None where no price is known."""
        return usage.cost_usd


def _recording(messages: list[dict[str, Any]]) -> bytes:
    return base64.b64decode(messages[0]["content"][0]["input_audio"]["data"])


def _priced(model: str, usage: TokenUsage, wav: bytes) -> TokenUsage:
    """The usage with its price: by the token where the server counts them, else by the second."""
    cost = cost_of(model, usage)
    if cost is None and (per_second := price_per_second(model)) is not None:
        cost = per_second * float(soundfile.info(io.BytesIO(wav)).duration)
    return replace(usage, cost_usd=cost)
