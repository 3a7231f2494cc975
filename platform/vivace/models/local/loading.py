"""Loading a checkpoint of transformers: its configuration, what makes its inputs, and the model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vivace.models.local.failures import RefusedError, short

_ELSEWHERE = re.compile(r'"[^"]*--\w+(\.\w+)+"')
"""`OWNER/NAME--module.Class`, as transformers writes code of another repository."""


def device_of(name: str) -> Any:
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


def load_checkpoint(
    folder: Path, dtype: str, attention: str | None = None, *, trusted: bool = False
) -> tuple[Any, Any]:
    """What makes a model's inputs, and the model, on the CPU.

    Args:
        folder: of the checkpoint.
        dtype: of the weights; `auto` is the checkpoint's own.
        attention: an attention implementation; None is the model's own choice.
        trusted: whether the operator lets code run that lies in the folder.

    Raises:
        RefusedError: the checkpoint cannot be loaded, or its model does not write text.
    """
    if trusted:
        _check_code(folder)
    config = config_of(folder, trusted=trusted)
    return _processor(folder, config, trusted), _model(folder, config, dtype, attention, trusted)


def _check_code(folder: Path) -> None:
    """See that all code is the folder's own: another repository's would be of no commit that anybody has looked at.

    Raises:
        RefusedError: it is not.
    """
    for file in sorted(folder.glob("*config.json")):
        try:
            written = json.dumps(json.loads(file.read_bytes()))  # without escapes of letters
        except ValueError as error:
            raise RefusedError(f"its {file.name} is not understood ({short(error)})") from error
        if _ELSEWHERE.search(written):
            raise RefusedError(f"its {file.name} takes code from another repository, which nobody has trusted")


def config_of(folder: Path, *, trusted: bool = False) -> Any:
    """The checkpoint's configuration."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise RefusedError(
                "it needs code of its own (trust_remote_code), which is not run unless the operator "
                "trusts it: VIVACE_TRUST_REMOTE_CODE=OWNER/NAME@COMMIT"
            ) from error
        raise RefusedError(f"its config.json is not understood ({short(error)})") from error


def _processor(folder: Path, config: Any, trusted: bool) -> Any:
    """What makes the model's inputs: a processor, or just a tokenizer for a model of text."""
    from transformers import AutoProcessor
    from transformers.utils import is_mistral_common_available, is_torchvision_available

    if (folder / "tekken.json").exists() and not is_mistral_common_available():
        raise RefusedError("its tokenizer needs mistral-common: pip install 'mistral-common[audio]'")
    try:
        if _sees(config) and not is_torchvision_available():
            return _audio_only_processor(folder, config)
        return AutoProcessor.from_pretrained(folder, trust_remote_code=trusted)
    except Exception as error:
        raise RefusedError(f"its processor cannot be loaded ({short(error)})") from error


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


def _own_class(config: Any) -> Any:
    """The auto class under which a checkpoint names a model of its own; None where it names none that writes."""
    import transformers

    named = getattr(config, "auto_map", None) or {}
    classes = (
        "AutoModelForMultimodalLM",
        "AutoModelForSpeechSeq2Seq",
        "AutoModelForSeq2SeqLM",
        "AutoModelForCausalLM",
    )
    return next((getattr(transformers, name) for name in classes if name in named), None)


def _model(folder: Path, config: Any, dtype: str, attention: str | None, trusted: bool) -> Any:
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
    if known is None and trusted:
        known = _own_class(config)
    if known is None:
        raise RefusedError(f"models of the type '{config.model_type}' do not write text")
    try:
        model, loading = known.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trusted,
            output_loading_info=True,
            **({"attn_implementation": attention} if attention else {}),
        )
    except Exception as error:
        raise RefusedError(f"its weights cannot be loaded ({short(error)})") from error
    if missing := sorted(loading["missing_keys"]):
        raise RefusedError(
            f"its checkpoint lacks {len(missing)} weights of a {known.__name__}, for instance '{missing[0]}'"
        )
    return model
