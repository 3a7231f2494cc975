"""Packages that not every installation has, and the sentence that asks for them."""

from __future__ import annotations

from importlib.util import find_spec

from vivace.errors import UsageError


def has_torch() -> bool:
    """Whether what models and methods are made of is installed."""
    return find_spec("torch") is not None and find_spec("transformers") is not None


def require_torch() -> None:
    """See that what models and methods are made of is installed.

    Raises:
        UsageError: it is not.
    """
    if not has_torch():
        raise UsageError("This needs torch and transformers: install them with `pip install 'vivace[local]'`.")


def require_math_verify() -> None:
    """See that math-verify is installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec("math_verify") is None:
        raise UsageError("This needs math-verify: install it with `pip install 'vivace[math]'`.")


def require_gguf() -> None:
    """See that what reads GGUF checkpoints is installed.

    Raises:
        UsageError: it is not.
    """
    if not has_torch() or find_spec("gguf") is None or find_spec("accelerate") is None:
        raise UsageError(
            "GGUF checkpoints need gguf and accelerate: install them with `pip install 'vivace[packaged]'`."
        )


def require_whisper() -> None:
    """See that what runs Whisper is installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec("faster_whisper") is None:
        raise UsageError("Whisper needs faster-whisper: install it with `pip install 'vivace[packaged]'`.")


def require_lm_eval() -> None:
    """See that lm-evaluation-harness is installed, and what it loads models of transformers with.

    Raises:
        UsageError: it is not.
    """
    if find_spec("lm_eval") is None or find_spec("accelerate") is None:
        raise UsageError("This needs lm-evaluation-harness: install it with `pip install 'vivace[accuracy]'`.")
