"""Causal language models from folders of this machine, with one clear sentence for each way in which that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from vivace_methods.errors import MethodError
from vivace_methods.models.free_memory import require_free, stored_bytes

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """A model from a folder with `config.json` and weights as safetensors, in evaluation mode.

    Raises:
        MethodError: the folder holds no such model, or one that does not fit into the processor's memory; there is no
            such device.
    """
    target = available_device(device)
    _require_checkpoint(folder)
    require_free(stored_bytes(folder, dtype), target, f"The model in {folder}", "take one of numbers of fewer bits")
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
    except (
        ValueError, TypeError, LookupError, AttributeError, OSError, RuntimeError, SafetensorError,
        StrictDataclassError,
    ) as error:  # fmt: skip
        raise MethodError(f"{folder} cannot be loaded as a causal language model: {_reason(error)}") from error
    # Where weights are missing transformers makes some up, and says so in a log only.
    if missing := sorted(found["missing_keys"]):
        raise MethodError(
            f"{folder} lacks {len(missing)} of the weights of a {type(model).__name__}, {missing[0]} among them: it "
            "is no whole checkpoint of such a model."
        )
    return model.to(target).eval()


def load_configuration(folder: Path) -> Any:
    """The configuration of the model that `load_model` would load from a folder.

    Raises:
        MethodError: the folder holds no such model, or its configuration cannot be read.
    """
    _require_checkpoint(folder)
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what a configuration holds is up to its writer, and each kind checks its own
        raise MethodError(
            f"The config.json in {folder} is of no model that is known here: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """What transformers says, in a line; it asks for a flag that is nowhere set here."""
    text = str(error).strip()
    if "trust_remote_code" in text:
        return "it needs code of its own (trust_remote_code), which inference methods are never measured with"
    return text.partition("\n")[0][:300]


def _require_checkpoint(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise MethodError(f"{folder} holds no model: there is no config.json in it.")
    if not any(folder.glob("*.safetensors")):
        if any(any(folder.glob(pattern)) for pattern in _PICKLES):
            raise MethodError(
                f"The weights in {folder} are pickled, which can run foreign code: convert them to safetensors."
            )
        raise MethodError(f"There are no weights in {folder}: no file ends in .safetensors.")


def available_device(name: str) -> torch.device:
    """A device of this machine by its name in torch.

    Raises:
        MethodError: there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MethodError(f"'{name}' is no device: use cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MethodError("There is no CUDA device on this machine: use cpu.")
    return device


def require_causal(model: Any) -> None:
    """Refuse what cannot decode greedily.

    Raises:
        MethodError: the model cannot generate, or is in training mode.
    """
    if not (hasattr(model, "can_generate") and model.can_generate()):
        raise MethodError(f"{type(model).__name__} is no causal language model: it cannot generate.")
    if model.training:
        raise MethodError("The model is in training mode, where answers are random: call model.eval() first.")
