"""Voices that speak text, espeak-ng and speech APIs, so that a set of transcripts can be heard by a model.

A voice is written `espeak-ng:VOICE[@WORDS-A-MINUTE]`, for instance `espeak-ng:en-us+m3@160`, or
`litellm:PROVIDER/MODEL:VOICE`, for instance `litellm:openai/gpt-4o-mini-tts:alloy`.
"""

from __future__ import annotations

import asyncio
import io
import platform
import re
import shutil
import subprocess
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from vivace.audio.convert import AudioError, DecodedAudio, decode
from vivace.errors import IncompleteError, UsageError
from vivace.models.client.calls import ChatOptions
from vivace.models.client.providers.prices import cost_of_speech

SERVED = r"([^/]+/.+):([^:]+)"
"""Model and voice of a speech API, as they stand behind `litellm:`."""
DEFAULT_RATE = 165
"""Words a minute; people speak unscripted at about this pace."""
SLOWEST_RATE, FASTEST_RATE = 80, 450
"""What espeak-ng can do."""
DEFAULT_VOICES = (
    "espeak-ng:en-us+m1@165",
    "espeak-ng:en-us+f1@165",
    "espeak-ng:en-us+m3@175",
    "espeak-ng:en-us+f2@155",
    "espeak-ng:en-us+m7@160",
    "espeak-ng:en-us+f4@175",
    "espeak-ng:en-gb+m2@160",
    "espeak-ng:en-gb+f3@165",
    "espeak-ng:en-gb-scotland+m4@160",
    "espeak-ng:en-gb-x-rp+f5@170",
    "espeak-ng:en-us+m6@150",
    "espeak-ng:en-gb+m8@175",
)
"""Twelve speakers, told apart by accent, timbre and pace."""
PEAK = 0.7
"""Where espeak-ng's loudest sample is put (−3 dBFS): some of its voices come out close to full scale."""
COMPRESSION = 0.95
"""Of the MP3: the public set's 2,350 turns then take less than 200 MB."""
SPEECH_TIMEOUT_S = 300.0
SPEECH_RETRIES = 5
LONGEST_SPOKEN = 20_000
"""Characters of a text that is spoken, which take twenty minutes: nobody listens longer to one turn."""


class VoiceError(RuntimeError):
    """A voice cannot speak this text; the message says why."""


class SpeechVoice(Protocol):
    """A voice: the same text gives the same recording, as far as its maker can promise."""

    @property
    def name(self) -> str:
        """As it is written on the command line."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides how it sounds, versions of tools included."""
        ...

    def speak(self, text: str) -> bytes:
        """The text as an audio file. May be called by several threads at a time.

        Raises:
            VoiceError: it cannot speak this text.
            UsageError: it could not speak any other text either: a refused key, an unknown model.
            IncompleteError: it does not answer any more.
        """
        ...


def open_voice(
    name: str, api_base: str | None = None, *, timeout_s: float = SPEECH_TIMEOUT_S, retries: int = SPEECH_RETRIES
) -> SpeechVoice:
    """The voice of this name, seen to be there before any work.

    Args:
        name: `espeak-ng:…` or `litellm:…`, as the module says.
        api_base: the address of an OpenAI-compatible server, for litellm's voices.
        timeout_s: for one try of such a voice.
        retries: its further tries.

    Raises:
        UsageError: there is no such voice, or what it needs is missing.
        UnreachableError: nothing answers at its address.
    """
    kind, _, rest = name.partition(":")
    if kind == "espeak-ng" and (parts := re.fullmatch(r"([^@:]+)(?:@(\d{1,4}))?", rest)):
        return EspeakVoice(name, parts[1], int(parts[2] or DEFAULT_RATE))
    if kind == "litellm" and (parts := re.fullmatch(SERVED, rest)):
        return LiteLLMVoice(name, parts[1], parts[2], ChatOptions(api_base, timeout_s, retries))
    raise UsageError(
        f"'{name}' is not a voice; write espeak-ng:VOICE@WORDS-A-MINUTE or litellm:PROVIDER/MODEL:VOICE, "
        f"for instance {DEFAULT_VOICES[0]}."
    )


def cost_of_speaking(name: str, characters: int, seconds: float) -> float | None:
    """US dollars for a text and its recording by the voice of this name; None where no price is known."""
    kind, _, rest = name.partition(":")
    served = re.fullmatch(SERVED, rest) if kind == "litellm" else None
    return cost_of_speech(served[1], characters, seconds) if served else 0.0


class EspeakVoice:
    """A voice of the program espeak-ng, with or without a variant (`en-us+f2`)."""

    def __init__(self, name: str, voice: str, rate: int) -> None:
        self.name = name
        self._voice = voice
        self._rate = rate
        if shutil.which("espeak-ng") is None:
            raise UsageError(
                "The program espeak-ng is not installed; install it (apt install espeak-ng), or give a "
                "litellm:… voice."
            )
        if not SLOWEST_RATE <= rate <= FASTEST_RATE:
            raise UsageError(
                f"The voice '{name}' speaks {rate} words a minute; espeak-ng takes {SLOWEST_RATE} to {FASTEST_RATE}."
            )
        self._check()
        self.identity: dict[str, Any] = {
            "program": "espeak-ng",
            "version": espeak_version(),
            "voice": voice,
            "words_per_minute": rate,
            "compression": COMPRESSION,
            "libsndfile": soundfile.__libsndfile_version__,
            "machine": platform.machine(),
        }

    def _check(self) -> None:
        language, _, variant = self._voice.partition("+")
        try:
            espeak("a", language, self._rate)
        except VoiceError as error:
            raise UsageError(
                f"espeak-ng has no voice '{language}'; `espeak-ng --voices` lists those it has."
            ) from error
        # It takes an unknown variant without a word, and speaks with the plain voice.
        if variant and variant not in _variants():
            raise UsageError(
                f"espeak-ng has no variant '{variant}'; `espeak-ng --voices=variant` lists those it has."
            )

    def speak(self, text: str) -> bytes:
        """The text as MP3, at espeak-ng's own 22,050 Hz."""
        recording = espeak(text, self._voice, self._rate)
        peak = np.max(np.abs(recording.samples), initial=0.0)
        samples = recording.samples[:, 0] * (PEAK / peak if peak else 1.0)
        return encode_mp3(samples, recording.rate, COMPRESSION)


class LiteLLMVoice:
    """A voice behind a speech API, through litellm; it answers in MP3."""

    def __init__(self, name: str, model: str, voice: str, options: ChatOptions) -> None:
        from vivace.machine.environment import read_key
        from vivace.models.client.chat import ChatClient
        from vivace.models.client.completions import NO_KEY
        from vivace.models.client.litellm_bridge import load_litellm

        # The chat client knows providers, addresses and keys.
        client = ChatClient(model, {}, options, "voice")
        asyncio.run(client.preflight())
        self.name = name
        self.identity: dict[str, Any] = {"model": model, "voice": voice, "address": client.address}
        self._litellm = load_litellm()
        self._request: dict[str, Any] = {
            "model": model, "voice": voice, "response_format": "mp3", "timeout": options.timeout_s,
            "max_retries": options.retries,
        }  # fmt: skip
        if client.address is not None:
            key = read_key(f"{model.partition('/')[0].upper()}_API_KEY") or NO_KEY
            self._request |= {"api_base": client.address, "api_key": key}

    def speak(self, text: str) -> bytes:
        """The text as the API speaks it."""
        from vivace.output.secrets import masked

        try:
            content = asyncio.run(self._answer(text))
            decode(content)
        except AudioError as error:
            raise VoiceError(f"the voice '{self.name}' answered with what is no recording: {error}") from error
        except Exception as error:  # litellm raises what its many providers' clients raise
            status = getattr(error, "status_code", None)
            detail = masked(f"{type(error).__name__}: {str(error) or 'no complete answer in time'}")[:300]
            if status in (401, 403, 404):
                raise UsageError(
                    f"The voice '{self.name}' is refused ({detail}); check its name, and the provider's key in the "
                    "environment or in .env."
                ) from error
            if status in (400, 413, 422):
                raise VoiceError(f"the voice '{self.name}' does not speak it ({detail})") from error
            raise IncompleteError(
                f"The voice '{self.name}' does not answer ({detail}); the same command goes on where this one "
                "stopped."
            ) from error
        return content

    async def _answer(self, text: str) -> bytes:
        """What the API sends, watched on the wire as chat completions are: bounded in size and time."""
        from vivace.models.client.transport import STREAM_LIMIT, Connections, WireExchange, current_exchange

        exchange = WireExchange(Connections(), answer_limit=STREAM_LIMIT)
        current_exchange.set(exchange)
        try:
            async with asyncio.timeout(self._request["timeout"] * (1 + self._request["max_retries"])):
                answer = await self._litellm.aspeech(input=text, **self._request)
        except Exception:
            if exchange.too_long:
                raise AudioError(f"the answer is longer than {STREAM_LIMIT:,} bytes") from None
            raise
        finally:
            await exchange.connections.aclose()
        return bytes(answer.content)


def espeak(text: str, voice: str, rate: int, pitch: int = 50) -> DecodedAudio:
    """What espeak-ng says, with the silence around it.

    Args:
        text: as it is written; espeak-ng's own `[[phonemes]]` are not read as such.
        voice: a language or voice, with or without a variant.
        rate: words a minute.
        pitch: from 0 to 99.

    Raises:
        VoiceError: with espeak-ng's own words, or there is too much to say.
    """
    if len(text) > LONGEST_SPOKEN:
        raise VoiceError(
            f"{len(text):,} characters are more than {LONGEST_SPOKEN:,}, which take twenty minutes to say"
        )
    command = ["espeak-ng", "-v", voice, "-s", str(rate), "-p", str(pitch), "--stdin", "--stdout"]
    done = subprocess.run(command, input=text.replace("[[", "[ [").encode(), capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise VoiceError(f"espeak-ng could not speak {text!r}: {done.stderr.decode().strip()}")
    samples, hertz = soundfile.read(io.BytesIO(done.stdout), dtype="float64", always_2d=True)
    return DecodedAudio(samples, int(hertz))


def espeak_version() -> str:
    """The installed espeak-ng's version; raises `FileNotFoundError` without one."""
    said = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split("Data at:")[0].split(":")[-1].strip()


def _variants() -> set[str]:
    listed = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"!v/(\S+)", listed))


def encode_mp3(samples: npt.NDArray[np.float64], rate: int, compression: float) -> bytes:
    """Speech as MP3 of a variable bit rate.

    MP3 and not Ogg because libsndfile numbers every Ogg stream at random, so that the same sound would not
    give the same bytes, and because more speech APIs take it as it is.

    Args:
        samples: shape (frames,), full scale ±1.
        rate: Hz, one of those that MP3 has.
        compression: from 0 to 1; speech at 22 kHz takes about 35 kbit/s at 0.9, and 29 kbit/s at 0.95.
    """
    file = io.BytesIO()
    soundfile.write(
        file,
        samples,
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=compression,
        bitrate_mode="VARIABLE",
    )
    return file.getvalue()
