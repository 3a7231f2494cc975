"""The process that holds a `local:` model: it loads the checkpoint, then answers one conversation at a time.

It is started by `vivace.models.local` and speaks with it in JSON, one object a line. The first line it reads says
what to load; it answers `ready` or a `fault`. Every further line is a conversation, and gets a reply or an `error`.
torch and transformers are imported where they are used: from its first moment on, this process must notice that
the one that started it is gone, and importing them takes seconds.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from vivace.audio.convert import AudioError, decode, encode_wav, to_mono

Samples = npt.NDArray[np.float32]

PROBE_S = 0.1
"""The length of the piece that is silenced to see whether a model's processor takes it."""
PROBE_REPLY = "Good morning"
"""An earlier answer that must be found again in the prompt that a model is given."""
MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory")


class RefusedError(Exception):
    """This checkpoint cannot be used; the message says why, as a clause."""


class _OutOfTimeError(Exception):
    """The reply takes longer than its request allows."""


class _Clock:
    """What `generate` hands its tokens to: notes when the first one came, and ends a reply that takes too long."""

    def __init__(self, deadline: float) -> None:
        self.first_token_at: float | None = None
        self._deadline = deadline
        self._has_prompt = False

    def put(self, _tokens: Any) -> None:
        """Called with the prompt first, then with every new token."""
        moment = time.perf_counter()
        if not self._has_prompt:
            self._has_prompt = True
        elif self.first_token_at is None:
            self.first_token_at = moment
        if moment > self._deadline:
            raise _OutOfTimeError

    def end(self) -> None:
        """Called after the last token."""


class SpokenModel:
    """A transformers model with its processor, ready to answer conversations.

    Args:
        setup: `folder`, `dtype`, `device`, `attn_implementation` (None for the model's own choice),
            `generation` (keyword arguments of `generate`), and `seed` (None unless it samples).

    Raises:
        RefusedError: the checkpoint cannot be loaded, or its chat template cannot hold a conversation.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        import torch

        folder = Path(setup["folder"])
        self._device = _device(setup["device"])
        self._generation = dict(setup["generation"])
        self._seed = setup["seed"]
        config = _config(folder)
        self._processor = _processor(folder, config)
        extractor = getattr(self._processor, "feature_extractor", None) or getattr(
            self._processor, "audio_processor", None
        )
        self.hears = extractor is not None
        self._rate = int(getattr(extractor, "sampling_rate", 0) or 16_000)
        self._tokenizer = getattr(self._processor, "tokenizer", self._processor)
        self._model = _model(folder, config, setup).to(self._device).eval()
        self._heard_s = 0.0
        self._limit_s: float | None = None
        with torch.inference_mode():
            self._check_template()

    @property
    def description(self) -> str:
        """What runs, and on what, as it is stored with every reply."""
        import torch
        import transformers

        model = self._model
        dtype = str(model.dtype).removeprefix("torch.")
        attention = getattr(model.config, "_attn_implementation", None) or "its own attention"
        return (
            f"{type(model).__name__}, {dtype} on {self._device.type}, {attention}, "
            f"transformers {transformers.__version__}, torch {torch.__version__}"
        )

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one conversation; times are in seconds from now.

        Args:
            request: `turns`, a list of `audio` (base64 of a file, or None), `text` and `assistant`, and
                `timeout_s`.
        """
        import torch

        started = time.perf_counter()
        turns = [
            {**turn, "audio": self._samples(turn["audio"]) if turn["audio"] else None} for turn in request["turns"]
        ]
        inputs = self._placed(self._inputs(turns))
        clock = _Clock(started + request["timeout_s"])
        if self._seed is not None:
            torch.manual_seed(self._seed)  # for each reply, so that it does not depend on those before it
        with torch.inference_mode():
            output = self._model.generate(**inputs, **self._generation, streamer=clock)
        ended = time.perf_counter()
        prompt_length = inputs["input_ids"].shape[1]
        tokens = output[0, prompt_length:].tolist()
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        if "</think>" in text:  # what a model thinks aloud before its answer is no part of the answer
            text = text.rpartition("</think>")[2].strip()
        return {
            "text": text,
            "finish_reason": "stop" if tokens and tokens[-1] in self._end_tokens() else "length",
            "input_tokens": prompt_length,
            "output_tokens": len(tokens),
            "input_audio_tokens": self._audio_tokens(inputs["input_ids"]),
            "ttft_s": clock.first_token_at - started if clock.first_token_at else None,
            "total_s": ended - started,
            "notes": [*self._cut_turns(turns), *self._context_note(prompt_length)],
        }

    def _samples(self, content: str) -> Samples:
        """A recording at the rate that the model's processor takes."""
        return to_mono(decode(base64.b64decode(content)), self._rate).astype(np.float32)

    def _inputs(self, turns: list[dict[str, Any]]) -> Any:
        """The model's inputs: the turns through the chat template that comes with it."""
        messages: list[dict[str, Any]] = []
        for turn in turns:
            part = (
                self._audio_part(turn["audio"])
                if turn["audio"] is not None
                else {"type": "text", "text": turn["text"] or ""}
            )
            if messages and messages[-1]["role"] == "user":
                messages[-1]["content"].append(part)  # templates want the two roles to alternate
            else:
                messages.append({"role": "user", "content": [part]})
            if turn["assistant"]:
                messages.append({"role": "assistant", "content": [{"type": "text", "text": turn["assistant"]}]})
        if not self.hears:
            for message in messages:
                message["content"] = "\n".join(part["text"] for part in message["content"])
        return self._processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )

    def _placed(self, inputs: Any) -> dict[str, Any]:
        """The inputs on the model's device; sounds, but not token numbers, in its dtype."""
        dtype = self._model.dtype
        return {
            key: value.to(self._device, dtype=dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }

    def _audio_part(self, samples: Samples) -> dict[str, Any]:
        if type(self._tokenizer).__name__ == "MistralCommonBackend":  # takes files, not samples
            file = encode_wav(samples.astype(np.float64), self._rate)
            return {"type": "audio", "base64": base64.b64encode(file).decode("ascii")}
        return {"type": "audio", "audio": samples}

    def _end_tokens(self) -> list[int]:
        ends = self._model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]

    def _check_template(self) -> None:
        """See that recordings and earlier answers get into the prompt: some templates silently leave them out.

        Raises:
            RefusedError: they do not.
        """
        spoken = [{"audio": _noise(0.5, self._rate, seed), "text": None} for seed in (1, 2)]
        written = [{"audio": None, "text": text} for text in ("Hello", "How are you?")]
        users = spoken if self.hears else written
        turns = [{**users[0], "assistant": PROBE_REPLY}, {**users[1], "assistant": None}]
        try:
            inputs = self._inputs(turns)
        except Exception as error:
            raise RefusedError(f"its chat template fails ({_short(error)})") from error
        if PROBE_REPLY not in self._tokenizer.decode(inputs["input_ids"][0].tolist()):
            raise RefusedError("its chat template leaves out the assistant's earlier answers")
        for number in (0, 1) if self.hears else ():
            silenced = [dict(turn) for turn in turns]
            silenced[number]["audio"] = np.zeros_like(users[number]["audio"])
            if _same(inputs, self._inputs(silenced)):
                raise RefusedError("its chat template leaves out recordings")

    def _audio_tokens(self, tokens: Any) -> int | None:
        """The places in a prompt where the model reads sound instead of text; None where it has no such token."""
        configs = (self._model.config, getattr(self._model.config, "thinker_config", None))
        for config in configs:
            for name in ("audio_token_id", "audio_token_index"):
                token = getattr(config, name, None)
                if isinstance(token, int):
                    return int((tokens == token).sum())
        return None

    def _cut_turns(self, turns: list[dict[str, Any]]) -> list[str]:
        """A note on each user turn that the model's processor takes only in part."""
        notes = []
        for number, turn in enumerate(turns, start=1):
            if turn["audio"] is None:
                continue
            seconds = len(turn["audio"]) / self._rate
            heard = self._seconds_heard(seconds)
            if heard < seconds:
                notes.append(
                    f"user turn {number}: {seconds:.1f} s, of which the model's processor takes the first {heard:g} s"
                )
        return notes

    def _seconds_heard(self, seconds: float) -> float:
        """How much of a recording of this length gets into the model's inputs.

        Processors differ in where they cut and do not say that they did. So the processor is tried: silencing
        a piece that it takes changes the inputs. This is done again only for a longer recording than before.
        """
        if seconds > self._heard_s and self._limit_s is None:
            noise = _noise(seconds, self._rate, 0)
            whole = self._inputs([_turn(noise)])
            if self._takes(noise, whole, seconds - PROBE_S):
                self._heard_s = seconds
            else:
                low, high = self._heard_s, seconds
                while high - low > PROBE_S / 4:
                    middle = (low + high) / 2
                    low, high = (middle, high) if self._takes(noise, whole, middle) else (low, middle)
                self._limit_s = round(high, 1)
        return seconds if self._limit_s is None else min(seconds, self._limit_s)

    def _takes(self, noise: Samples, whole: Any, second: float) -> bool:
        """Whether the piece of a recording that begins there gets into the inputs."""
        start = max(0, int(second * self._rate))
        silenced = noise.copy()
        silenced[start : start + int(PROBE_S * self._rate)] = 0.0
        return not _same(whole, self._inputs([_turn(silenced)]))

    def _context_note(self, prompt_length: int) -> list[str]:
        """A note on a prompt that is longer than what the model was made for."""
        limit = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if not isinstance(limit, int) or prompt_length <= limit:
            return []
        return [f"the conversation takes {prompt_length} tokens, more than the {limit} that the model was made for"]


def _turn(samples: Samples) -> dict[str, Any]:
    return {"audio": samples, "text": None, "assistant": None}


def _noise(seconds: float, rate: int, seed: int) -> Samples:
    noise = np.random.default_rng(seed).normal(0.0, 0.1, int(seconds * rate))
    return noise.clip(-1.0, 1.0).astype(np.float32)


def _same(one: Any, other: Any) -> bool:
    """Whether two sets of inputs are equal in every tensor."""
    return all(one[key].shape == other[key].shape and bool((one[key] == other[key]).all()) for key in one)


def _short(error: Exception) -> str:
    """An exception's kind and the beginning of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].rstrip(".: ")


def _device(name: str) -> Any:
    """The device asked for.

    Raises:
        RefusedError: there is no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        if torch.version.cuda is None:
            raise RefusedError(f"device={name} is asked for, but this torch was built without CUDA")
        if (device.index or 0) >= torch.cuda.device_count():
            raise RefusedError(f"device={name} is asked for, but torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _config(folder: Path) -> Any:
    """The checkpoint's configuration."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise RefusedError("it needs code of its own (trust_remote_code), which is not run") from error
        raise RefusedError(f"its config.json is not understood ({_short(error)})") from error


def _processor(folder: Path, config: Any) -> Any:
    """What makes the model's inputs: a processor, or just a tokenizer for a model of text."""
    from transformers import AutoProcessor
    from transformers.utils import is_mistral_common_available, is_torchvision_available

    if (folder / "tekken.json").exists() and not is_mistral_common_available():
        raise RefusedError("its tokenizer needs mistral-common: pip install 'mistral-common[audio]'")
    try:
        if _sees(config) and not is_torchvision_available():
            return _audio_only_processor(folder, config)
        return AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise RefusedError(f"its processor cannot be loaded ({_short(error)})") from error


def _sees(config: Any) -> bool:
    """Whether the model's processor has parts for pictures, too."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    known = PROCESSOR_MAPPING.get(type(config), None)
    return known is not None and {"image_processor", "video_processor"} & set(known.get_attributes()) != set()


def _audio_only_processor(folder: Path, config: Any) -> Any:
    """The processor of a model that also sees, without the parts for pictures: they would need torchvision."""
    from transformers import AutoFeatureExtractor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    known = PROCESSOR_MAPPING[type(config)]

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is None else known.check_argument_for_proper_class(self, name, part)

    parts: dict[str, Any] = dict.fromkeys(known.get_attributes())
    parts["tokenizer"] = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if "feature_extractor" in parts:
        parts["feature_extractor"] = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    settings, _ = known.get_processor_dict(folder)
    template = settings.get("chat_template") or parts["tokenizer"].chat_template
    listening = type(known.__name__, (known,), {"check_argument_for_proper_class": check})
    return listening(**parts, chat_template=template)


def _model(folder: Path, config: Any, setup: dict[str, Any]) -> Any:
    """The model with its weights, on the CPU.

    Raises:
        RefusedError: transformers has no class for it, or the checkpoint lacks weights.
    """
    from transformers.models.auto import modeling_auto

    config = getattr(config, "thinker_config", config)  # of an omni model, the part that listens and writes
    mappings = (
        modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    )
    known = next((found for mapping in mappings if (found := mapping.get(type(config), None))), None)
    if known is None:
        raise RefusedError(f"models of the type '{config.model_type}' do not write text")
    attention = setup["attn_implementation"]
    try:
        model, loading = known.from_pretrained(
            folder,
            config=config,
            dtype=setup["dtype"],
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({"attn_implementation": attention} if attention else {}),
        )
    except Exception as error:
        raise RefusedError(f"its weights cannot be loaded ({_short(error)})") from error
    if missing := sorted(loading["missing_keys"]):
        raise RefusedError(
            f"its checkpoint lacks {len(missing)} weights of a {known.__name__}, for instance '{missing[0]}'"
        )
    return model


def _serve(requests: queue.Queue[str], channel: TextIO) -> None:
    """Load what the first line asks for, then answer every further line."""
    setup = json.loads(requests.get())
    try:
        model = SpokenModel(setup)
    except Exception as error:
        _send(channel, {"fault": str(error) if isinstance(error, RefusedError) else _short(error)})
        return
    _send(channel, {"ready": model.description, "hears": model.hears})
    while True:
        request = json.loads(requests.get())
        _send(channel, _answer_or_error(model, request))


def _answer_or_error(model: SpokenModel, request: dict[str, Any]) -> dict[str, Any]:
    """The reply, or why there is none.

    Raises:
        RuntimeError: the GPU has failed; only another process can go on.
    """
    try:
        return model.answer(request)
    except _OutOfTimeError:
        return {"error": "timeout", "detail": f"no complete reply within {request['timeout_s']:g} s"}
    except AudioError as error:
        return {"error": "bad_request", "detail": str(error)}
    except Exception as error:
        if any(words in str(error).lower() for words in MEMORY_WORDS) or isinstance(error, MemoryError):
            failure = f"out of memory ({_short(error)})"
        elif "CUDA error" in str(error):
            raise
        else:
            return {"error": "bad_request", "detail": _short(error)}
    # Outside the handler: the error held on to the tensors that filled the memory.
    _free_memory()
    return {"error": "bad_request", "detail": failure}


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _send(channel: TextIO, message: dict[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def _read_requests(requests: queue.Queue[str]) -> None:
    """Pass on what arrives; when the other side is gone, end, whatever the model is doing."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def main() -> None:
    """Serve until the process that started this one closes its end or is gone."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not get between the messages
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    try:
        _serve(requests, channel)
    except Exception:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)  # an ordinary end would wait for the thread that reads


if __name__ == "__main__":
    main()
