"""The process that holds a `local:` transcriber: as `local_worker`, for models that write down what they hear."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np

from vivace.audio.convert import decode, to_mono
from vivace.models.local.failures import RefusedError, short
from vivace.models.local.loading import config_of, device_of
from vivace.models.local.service import serve


class RecognisingModel:
    """A speech recogniser of transformers (Whisper and its kin, or one with a CTC head), ready to write.

    Args:
        setup: `folder`, `dtype`, `device`.

    Raises:
        RefusedError: the checkpoint cannot be loaded, or recognises no speech.
    """

    hears = True

    def __init__(self, setup: dict[str, Any]) -> None:
        from transformers import AutoProcessor, pipeline
        from transformers.models.auto import modeling_auto

        folder = Path(setup["folder"])
        config = config_of(folder)
        mappings = (modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, modeling_auto.MODEL_FOR_CTC_MAPPING)
        known = next((found for mapping in mappings if (found := mapping.get(type(config), None))), None)
        if known is None:
            raise RefusedError(f"models of the type '{config.model_type}' do not transcribe")
        try:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            model = known.from_pretrained(
                folder, dtype=setup["dtype"], use_safetensors=True, trust_remote_code=False
            ).eval()
        except Exception as error:
            raise RefusedError(f"it cannot be loaded ({short(error)})") from error
        self._rate = int(processor.feature_extractor.sampling_rate)
        # Whisper takes a recording of more than 30 s only piece by piece, and finds the places by its time marks.
        self._options = {"return_timestamps": True} if config.model_type == "whisper" else {}
        self._recognise = pipeline(
            "automatic-speech-recognition",
            model=model,
            tokenizer=processor.tokenizer,
            feature_extractor=processor.feature_extractor,
            device=device_of(setup["device"]),
        )

    @property
    def description(self) -> str:
        """What runs, and on what."""
        import torch
        import transformers

        model = self._recognise.model
        dtype = str(model.dtype).removeprefix("torch.")
        return (
            f"{type(model).__name__}, {dtype} on {model.device.type}, transformers {transformers.__version__}, "
            f"torch {torch.__version__}"
        )

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is said in the recording of the request's only turn."""
        started = time.perf_counter()
        [turn] = request["turns"]
        samples = to_mono(decode(base64.b64decode(turn["audio"])), self._rate).astype(np.float32)
        text = self._recognise({"raw": samples, "sampling_rate": self._rate}, **self._options)["text"]
        return {
            "text": text.strip(),
            "finish_reason": "stop",
            "ttft_s": None,
            "total_s": time.perf_counter() - started,
            "notes": [],
        }


if __name__ == "__main__":
    serve(RecognisingModel)
