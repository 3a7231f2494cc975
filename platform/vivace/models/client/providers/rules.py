"""What providers are known not to take, said before anything is sent, and their refusals of audio in plain words.

Sources: OpenAI's audio guide (https://platform.openai.com/docs/guides/audio); Gemini's audio guide
(https://ai.google.dev/gemini-api/docs/audio: 20 MB for a request with its recordings inside);
vLLM's multimodal inputs (https://docs.vllm.ai/en/latest/features/multimodal_inputs.html).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vivace.errors import UsageError
from vivace.models.base import Prompt, SpokenOutput
from vivace.models.client.providers.openai_compatible import PROVIDERS, Provider, split_model

GEMINI_LIMIT = 20_000_000
"""Bytes of a request to Gemini."""
MOST_USER_TURNS = 8
"""Of the public set's conversations."""
TEXT_ONLY_PROVIDERS = frozenset(
    {"ai21", "ai21_chat", "anthropic", "cerebras", "cohere", "cohere_chat", "deepseek", "groq", "perplexity", "xai"}
)
"""Providers whose chat takes no audio with any model, as litellm names them."""

_OPENAI_AUDIO = re.compile(r"gpt-audio|gpt-4o(-mini)?-audio")
_OPENAI_TEXT = re.compile(r"o\d|chatgpt-|gpt-3\.5|gpt-4|gpt-5")
_TOO_MANY = re.compile(r"at most (\d+) audio", re.IGNORECASE)
_NO_AUDIO = re.compile(
    r"not a multimodal model|mmproj|input_audio"
    r"|(audio|multimodal)[^.]{0,60}(not (supported|allowed|enabled|available)|unsupported|only supported)"
    r"|(not support|unsupported|unexpected)[^.]{0,60}(audio|multimodal)",
    re.IGNORECASE,
)


def check_provider(name: str, api_base: str | None, spoken: SpokenOutput, *, hears: bool) -> None:
    """Refuse what the provider of a chat model is known not to do.

    Args:
        name: the model, as `provider/name`.
        api_base: a server of one's own, of which nothing is known.
        spoken: what the model is to answer with.
        hears: whether it is sent recordings, not transcripts.

    Raises:
        UsageError: with what to do instead.
    """
    provider = _provider_of(name)
    if spoken.output == "audio" and provider not in PROVIDERS:
        raise UsageError(
            f"'{name}' cannot be asked for speech through '{provider}'; leave out --output audio, or take an "
            "OpenAI audio model, a server that speaks OpenAI's chat completions, or openai-realtime:NAME."
        )
    if hears and provider in TEXT_ONLY_PROVIDERS:
        raise UsageError(f"The provider '{provider}' takes no audio; give its models --audio transcript.")
    known = PROVIDERS.get(provider)
    if api_base is None and known is not None and known.address_in_environment is None:
        _check_openais_model(name, known, spoken, hears=hears)


def _provider_of(name: str) -> str:
    provider, _ = split_model(name)
    return provider or ("openai" if _OPENAI_AUDIO.match(name) or _OPENAI_TEXT.match(name) else "")


def _check_openais_model(name: str, provider: Provider, spoken: SpokenOutput, *, hears: bool) -> None:
    """Rules of OpenAI's models at their own address, or at OpenRouter's (`openrouter/openai/gpt-audio`)."""
    if provider.name == "openrouter" and not name.startswith("openrouter/openai/"):
        return
    model = name.rpartition("/")[2]
    if _OPENAI_AUDIO.match(model):
        if not hears and spoken.output != "audio":
            raise UsageError(
                f"'{name}' needs audio in what it is sent or in what it answers; "
                "with --audio transcript, ask for speech by --output audio."
            )
    elif _OPENAI_TEXT.match(model):
        if hears:
            raise UsageError(f"'{name}' takes no audio; give it --audio transcript, or take one such as gpt-audio.")
        if spoken.output == "audio":
            raise UsageError(f"'{name}' cannot speak; leave out --output audio, or take one such as gpt-audio.")


def broken_limit(model: str, prompt: Prompt) -> str | None:
    """Why the provider would refuse this conversation for its size, or None."""
    if not model.startswith("gemini/"):
        return None
    sound = sum(4 * -(-len(turn.audio.content) // 3) for turn, _ in prompt.turns if turn.audio is not None)
    text = sum(len((turn.text or "") + (answer or "")) for turn, answer in prompt.turns)
    if sound + text <= GEMINI_LIMIT:
        return None
    return (
        f"the conversation's recordings take {(sound + text) / 1e6:.0f} MB, and Gemini takes at most "
        f"{GEMINI_LIMIT / 1e6:.0f} MB in a request; --audio 16k makes them smaller"
    )


@dataclass(frozen=True)
class RefusedAudio:
    """A server's refusal of recordings, in plain words."""

    explanation: str
    is_total: bool
    """Whether it would refuse every conversation."""


def refused_audio(detail: str) -> RefusedAudio | None:
    """What a server that refuses a request with recordings means, if it is about them."""
    if (limit := _TOO_MANY.search(detail)) and int(limit[1]) > 0:
        return RefusedAudio(
            f"it takes at most {limit[1]} recording(s) in a request; start it with "
            f"--limit-mm-per-prompt '{{\"audio\": {MOST_USER_TURNS}}}'",
            is_total=int(limit[1]) == 1,
        )
    if limit or _NO_AUDIO.search(detail):
        return RefusedAudio(
            "its model does not hear, or is served without audio; try --audio transcript", is_total=True
        )
    return None
