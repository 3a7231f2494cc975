"""What settings ask of a device: told in the same words before a run is recorded and when a method is attached."""

from __future__ import annotations

from vivace_methods.errors import MethodError


def require_graphs(compile: str, device: str) -> None:
    """Refuse to compile steps into CUDA graphs where there are none.

    Args:
        compile: how steps are compiled, as methods' settings have it.
        device: the kind: `cpu` or `cuda`.

    Raises:
        MethodError: the device is no CUDA device.
    """
    if compile not in ("none", "auto") and device != "cuda":
        raise MethodError(f"compile={compile} needs a CUDA device, and the model is on {device}: use none.")


def require_attention(implementation: str, device: str) -> None:
    """Refuse an attention that a device has no kernels for.

    Args:
        implementation: of transformers.
        device: the kind: `cpu` or `cuda`.

    Raises:
        MethodError: the device is no CUDA device, and FlashAttention's own package is asked for.
    """
    if implementation.startswith("flash") and device != "cuda":
        raise MethodError(f"{implementation} needs a CUDA device, and the model is on {device}: use sdpa.")
