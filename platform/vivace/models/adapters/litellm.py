"""`litellm:PROVIDER/NAME`: chat models under test and as judges."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from vivace.errors import UsageError
from vivace.models.adapters.base import Asked, Capabilities
from vivace.models.base import (
    UNSPOKEN,
    ModelIdentity,
    ModelReply,
    Prompt,
    SpokenOutput,
    SpokenTurn,
)
from vivace.models.client.calls import ChatOptions
from vivace.models.client.chat import ChatClient
from vivace.models.client.messages import audio_part
from vivace.models.client.providers.rules import broken_limit, check_provider
from vivace_rubrics.criteria import Unscored, Verdict
from vivace_rubrics.parsing import VERDICT_SCHEMA

JUDGE_ARGUMENTS: dict[str, Any] = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": VERDICT_SCHEMA},
    }
}
"""What a judge is asked with unless told otherwise; the temperature stays the provider's own."""


DEFAULT_VOICE = "alloy"
"""Spoken with where none is named: the API insists on one, and a change of a default would change no run."""


class LiteLLMSystem:
    """A chat model under test: user turns as `input_audio`, assistant turns as text, no system prompt.

    Args:
        model: `provider/name`.
        arguments: generation parameters.
        options: address, timeout and tries.
        spoken: what it answers with. Speech is streamed as PCM, the only form that OpenAI streams; the reply's
            text is the server's own transcript. An answer without sound is tried again, and in the end
            unscored as `no_audio`.

    Raises:
        UsageError: the model cannot be asked so.
    """

    capabilities: ClassVar = Capabilities(speaks="asked")

    @classmethod
    def open(cls, asked: Asked) -> LiteLLMSystem:
        """A chat model behind an API.

        Raises:
            UsageError: its provider is known not to do what is asked, or an argument cannot be sent.
        """
        check_provider(asked.name, asked.options.api_base, asked.spoken, hears=asked.hears)
        return cls(asked.name, asked.arguments, asked.options, asked.spoken)

    def __init__(
        self, model: str, arguments: dict[str, Any], options: ChatOptions, spoken: SpokenOutput = UNSPOKEN
    ) -> None:
        for name in set(arguments) & {"audio", "modalities"}:
            raise UsageError(f"--model-arg cannot set '{name}'; use --output and --voice.")
        outputs, request = _output(spoken)
        self._model = model
        self._client = ChatClient(
            model, {**arguments, **request}, options, "model", is_transcribed=spoken.transcriber is not None
        )
        self._identity = ModelIdentity(
            target=f"litellm:{model}",
            adapter="litellm",
            name=model,
            address=self._client.address,
            parameters={**arguments, **outputs},
        )

    @property
    def identity(self) -> ModelIdentity:
        """Provider and name, address, and every generation parameter."""
        return self._identity

    def check_key(self) -> None:
        """See that a key is there."""
        self._client.check_key()

    async def preflight(self) -> None:
        """See that a key is there and something answers."""
        await self._client.preflight()

    async def reply(self, prompt: Prompt) -> ModelReply:
        """Ask for the reply, streamed, so that its first token is timed."""
        if (why := broken_limit(self._model, prompt)) is not None:
            return ModelReply(None, Unscored.BAD_REQUEST, why)
        # Minutes of audio take tens of milliseconds, in which no other call's answer would be timed rightly.
        messages = await asyncio.to_thread(chat_messages, prompt)
        del prompt  # its recordings need not lie in memory a second time while the answer is waited for
        answer = await self._client.ask(messages, stream=True)
        return ModelReply(**vars(answer))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class LiteLLMAsker:
    """A chat model as a judge's mind: one user message in, one text out."""

    def __init__(self, model: str, arguments: dict[str, Any], options: ChatOptions) -> None:
        self.arguments = {**JUDGE_ARGUMENTS, **arguments}
        self._client = ChatClient(model, self.arguments, options, "judge")
        self.address = self._client.address

    def check_key(self) -> None:
        """See that a key is there."""
        self._client.check_key()

    async def preflight(self) -> None:
        """See that a key is there and something answers."""
        await self._client.preflight()

    async def ask(self, prompt: str) -> str | Verdict:
        """The answer's text, or an unscored verdict with the reason."""
        answer = await self._client.ask([{"role": "user", "content": prompt}], stream=False)
        if answer.text is None:
            return Verdict(None, answer.detail or "", answer.unscored or Unscored.EMPTY)
        return answer.text

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _output(spoken: SpokenOutput) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is asked of the output, as parts of the identity and of the request."""
    if spoken.output is None:
        return {}, {}
    if spoken.output == "text":
        return {"output": "text"}, {"modalities": ["text"]}
    voice = spoken.voice or DEFAULT_VOICE
    request = {"modalities": ["text", "audio"], "audio": {"voice": voice, "format": "pcm16"}}
    return {"output": "audio", "voice": voice}, request


def chat_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The conversation as chat messages.

    Where the dataset lacks an assistant turn, the two user turns around it become one message with two
    parts: an empty assistant message is refused by some servers, and two user messages by others.
    """
    messages: list[dict[str, Any]] = []
    for spoken, assistant in prompt.turns:
        part = _part(spoken)
        if messages and messages[-1]["role"] == "user":
            messages[-1]["content"].append(part)
        else:
            messages.append({"role": "user", "content": [part]})
        if assistant:
            messages.append({"role": "assistant", "content": assistant})
    return messages


def _part(turn: SpokenTurn) -> dict[str, Any]:
    if turn.audio is not None:
        return audio_part(turn.audio.content, turn.audio.container)
    return {"type": "text", "text": turn.text or ""}
