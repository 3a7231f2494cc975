"""A transformers model that answers conversations in its chat template, one or several at a time."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivace.audio.convert import decode, encode_wav, to_mono
from vivace.machine.bounds import bounded
from vivace.models.local.batches import agree, same, together
from vivace.models.local.failures import MisfitError, RefusedError, failure, short
from vivace.models.local.loading import device_of, load_checkpoint
from vivace.models.local.method import MethodOnModel

Samples = npt.NDArray[np.float32]
PROBE_S = 0.1
"""The length of the piece that is silenced to see whether a model's processor takes it."""
PROBE_REPLY = "Good morning"
"""An earlier answer that must be found again in the prompt that a model is given."""
PROBE_TOKENS = 16
"""The length of the replies that are compared to see whether a batch changes them."""
TIE_STEPS = 4.0
"""How many of the dtype's steps between two tokens' scores are put down to rounding."""


class _Clock:
    """The times of one batch, in seconds from now: a streamer and a stopping criterion of `generate`."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.ttft_s: float | None = None
        """Of every reply in the batch: their first tokens come together."""
        self.total_s: float | None = None
        self.is_over = False
        """Whether it was stopped for taking too long."""
        self._started = time.perf_counter()
        self._has_prompt = False

    def put(self, _tokens: Any) -> None:
        """Called with the prompts first, then with every new token of all replies."""
        if not self._has_prompt:
            self._has_prompt = True
        elif self.ttft_s is None:
            self.ttft_s = time.perf_counter() - self._started

    def end(self) -> None:
        """Called after the last token."""
        self.total_s = time.perf_counter() - self._started

    def __call__(self, tokens: Any, _scores: Any) -> Any:
        """Whether to stop, for each reply of the batch."""
        self.is_over = self.is_over or time.perf_counter() - self._started > self.timeout_s
        return tokens.new_full((len(tokens),), self.is_over).bool()


@dataclass(frozen=True)
class _Conversation:
    """A conversation with the model's inputs for it alone."""

    turns: list[dict[str, Any]]
    inputs: Any


class SpokenModel:
    """A transformers model with its processor, ready to answer conversations.

    Args:
        setup: `folder`, `dtype`, `device`, `attn_implementation` (None for the model's own choice),
            `generation` (keyword arguments of `generate`), `seed` (None unless it samples), `batch`, the most
            conversations that it will be given at once, and `method` with `label` and `recipe` (None to decode
            plainly).

    Raises:
        RefusedError: the checkpoint cannot be loaded, its chat template cannot hold a conversation, or its replies
            to conversations in a batch are not those that they get alone.
        MisfitError: the method does not fit the checkpoint.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        import torch

        folder = Path(setup["folder"])
        self._device = device_of(setup["device"])
        self._generation = dict(setup["generation"])
        self._seed = setup["seed"]
        self._processor, model = load_checkpoint(
            folder, setup["dtype"], setup["attn_implementation"], trusted=setup.get("trusted", False)
        )
        extractor = getattr(self._processor, "feature_extractor", None) or getattr(
            self._processor, "audio_processor", None
        )
        self.hears = extractor is not None
        self._rate = int(getattr(extractor, "sampling_rate", 0) or 16_000)
        self._tokenizer = getattr(self._processor, "tokenizer", self._processor)
        self._model = model.to(self._device).eval()
        self._method: MethodOnModel | None = None
        self._heard_s = 0.0
        self._limit_s: float | None = None
        with torch.inference_mode():
            self._check_template()
        if setup["method"] is not None:
            self._method = _on_model(self._model, setup["method"])
        with torch.inference_mode():
            if setup["batch"] > 1:
                self._check_batching()
            else:
                # What is built or read on first use, kernels above all, is to be on no reply's clock.
                self._scores([self._inputs(self._probe_turns(0.4))])

    @property
    def description(self) -> str:
        """What runs, and on what, as it is stored with every reply."""
        import torch
        import transformers

        model = self._model
        dtype = str(model.dtype).removeprefix("torch.")
        attention = getattr(model.config, "_attn_implementation", None) or "its own attention"
        method = "" if self._method is None else f"{self._method.label}, "
        return (
            f"{type(model).__name__}, {dtype} on {self._device.type}, {attention}, {method}"
            f"transformers {transformers.__version__}, torch {torch.__version__}"
        )

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one conversation, or the `answers` to several; times are in seconds from now.

        Of several, one that cannot be prepared gets an `error`, and the others their replies.

        Args:
            request: `turns`, a list of `audio` (base64 of a file, or None), `text` and `assistant`, or
                `conversations`, a list of such lists; and `timeout_s`, for all of it.
        """
        if "conversations" in request:
            return {"answers": self._answers(request["conversations"], request["timeout_s"])}
        return self._answers([request["turns"]], request["timeout_s"])[0]

    def _answers(self, conversations: list[list[dict[str, Any]]], timeout_s: float) -> list[dict[str, Any]]:
        """An answer to each conversation, generated together."""
        clock = _Clock(timeout_s)
        prepared = [self._prepared(turns) for turns in conversations]
        batch = [one for one in prepared if isinstance(one, _Conversation)]
        replies = iter(self._replies(batch, clock) if batch else ())
        return [next(replies) if isinstance(one, _Conversation) else one for one in prepared]

    def _prepared(self, turns: list[dict[str, Any]]) -> _Conversation | dict[str, Any]:
        """A conversation ready for the model, or the error that keeps it from being one."""
        try:
            heard = [{**turn, "audio": self._samples(turn["audio"]) if turn["audio"] else None} for turn in turns]
            return _Conversation(heard, self._inputs(heard))
        except Exception as error:
            return {"error": "bad_request", "detail": failure(error)}

    def _replies(self, batch: list[_Conversation], clock: _Clock) -> list[dict[str, Any]]:
        import torch

        inputs = self._placed(together([conversation.inputs for conversation in batch]))
        if self._seed is not None:
            torch.manual_seed(self._seed)  # for each reply, so that it does not depend on those before it
        if self._method is not None:
            self._method.begin()
        with torch.inference_mode():
            output = self._model.generate(**inputs, **self._generation, streamer=clock, stopping_criteria=[clock])
        written = output[:, inputs["input_ids"].shape[1] :].tolist()
        figures = {} if self._method is None else self._method.figures()
        notes = [*_batch_note(len(batch)), *_method_notes(figures)]
        replies = [
            self._reply(conversation, tokens, clock, len(batch), notes)
            for conversation, tokens in zip(batch, written, strict=True)
        ]
        return [
            reply if "error" in reply else {**reply, "kept_share": figures.get("kept_share")} for reply in replies
        ]

    def _reply(
        self, conversation: _Conversation, tokens: list[int], clock: _Clock, together: int, notes: list[str]
    ) -> dict[str, Any]:
        """One reply of a batch, whose tokens go on after its end where others are longer."""
        ends = self._end_tokens()
        end = next((place for place, token in enumerate(tokens) if token in ends), None)
        if end is None and clock.is_over:
            where = f" in a batch of {together}" if together > 1 else ""
            return {"error": "timeout", "detail": f"no complete reply within {clock.timeout_s:g} s{where}"}
        tokens = tokens if end is None else tokens[: end + 1]
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        prompt = conversation.inputs["input_ids"]
        prompt_length = prompt.shape[1]
        return {
            "text": text,
            "finish_reason": "length" if end is None else "stop",
            "input_tokens": prompt_length,
            "output_tokens": len(tokens),
            "input_audio_tokens": self._audio_tokens(prompt),
            "ttft_s": clock.ttft_s,
            "total_s": clock.total_s,
            "notes": [
                *self._cut_turns(conversation.turns),
                *self._context_note(prompt_length),
                *notes,
            ],
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
        with bounded():
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
        turns = self._probe_turns(0.5, 0.5)
        try:
            inputs = self._inputs(turns)
        except Exception as error:
            raise RefusedError(f"its chat template fails ({short(error)})") from error
        if PROBE_REPLY not in self._tokenizer.decode(inputs["input_ids"][0].tolist()):
            raise RefusedError("its chat template leaves out the assistant's earlier answers")
        for number in (0, 1) if self.hears else ():
            silenced = [dict(turn) for turn in turns]
            silenced[number]["audio"] = np.zeros_like(turns[number]["audio"])
            if same(inputs, self._inputs(silenced)):
                raise RefusedError("its chat template leaves out recordings")

    def _check_batching(self) -> None:
        """See that conversations of different lengths get the same replies in a batch as alone.

        Raises:
            RefusedError: they do not, or cannot be put into a batch.
        """
        import torch

        conversations = [self._inputs(self._probe_turns(*seconds)) for seconds in ((0.4,), (0.7, 0.3))]
        alone = [self._scores([inputs])[0] for inputs in conversations]
        try:
            batched = self._scores(conversations)
        except Exception as error:
            raise RefusedError(
                f"it does not take several conversations at once ({short(error)}); leave out --model-arg batch"
            ) from error
        tie = TIE_STEPS * torch.finfo(self._model.dtype).eps
        if not all(agree(one, other, tie) for one, other in zip(alone, batched, strict=True)):
            raise RefusedError(
                "it answers conversations in a batch differently than one by one; leave out --model-arg batch"
            )

    def _scores(self, conversations: list[Any]) -> Any:
        """What `generate` chooses the first tokens by: conversations x tokens x vocabulary."""
        import torch

        output = self._model.generate(
            **self._placed(together(conversations)),
            do_sample=False,
            min_new_tokens=PROBE_TOKENS,
            max_new_tokens=PROBE_TOKENS,
            output_scores=True,
            return_dict_in_generate=True,
        )
        return torch.stack(output.scores, dim=1)

    def _probe_turns(self, *seconds: float) -> list[dict[str, Any]]:
        """A conversation of noises of these lengths, or of words for a model that does not hear."""
        turns = [_turn(_noise(length, self._rate, number)) for number, length in enumerate(seconds, start=1)]
        if not self.hears:
            turns = [{**turn, "audio": None, "text": f"Hello, number {number}"} for number, turn in enumerate(turns)]
        return [*({**turn, "assistant": PROBE_REPLY} for turn in turns[:-1]), turns[-1]]

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
        return not same(whole, self._inputs([_turn(silenced)]))

    def _context_note(self, prompt_length: int) -> list[str]:
        """A note on a prompt that is longer than what the model was made for."""
        limit = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if not isinstance(limit, int) or prompt_length <= limit:
            return []
        return [f"the conversation takes {prompt_length} tokens, more than the {limit} that the model was made for"]


def _turn(samples: Samples) -> dict[str, Any]:
    return {"audio": samples, "text": None, "assistant": None}


def _batch_note(together: int) -> list[str]:
    return [f"answered in a batch of {together}, whose times these are"] if together > 1 else []


def _method_notes(figures: dict[str, Any]) -> list[str]:
    """What a method left out of a reply; of weights, for tokens after the first, which the prompt's pass gives.

    Args:
        figures: as `MethodOnModel` gives them.
    """
    notes = []
    if (spared := figures.get("sparsity")) is not None:
        notes.append(
            f"decoded tokens read {100 * (1 - float(spared)):.1f} % of the weights of the decoder's linear layers"
        )
    if (kept := figures.get("kept_share")) is not None:
        notes.append(f"{100 * float(kept):.1f} % of the prompt's tokens went through the decoder's last layer")
    return [*notes, *([str(figures["nothing_pruned"])] if "nothing_pruned" in figures else [])]


def _on_model(model: Any, method: dict[str, str | None]) -> MethodOnModel:
    """The method on the model.

    Raises:
        MisfitError: it does not fit.
    """
    from vivace_methods.protocol import MethodError

    try:
        recipe = method["recipe"]
        return MethodOnModel(model, str(method["label"]), None if recipe is None else Path(recipe))
    except MethodError as error:
        raise MisfitError(str(error)) from error


def _noise(seconds: float, rate: int, seed: int) -> Samples:
    noise = np.random.default_rng(seed).normal(0.0, 0.1, int(seconds * rate))
    return noise.clip(-1.0, 1.0).astype(np.float32)
