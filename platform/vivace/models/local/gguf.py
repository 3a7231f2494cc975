"""GGUF checkpoints, turned once into plain ones that load like any other."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from vivace.errors import UsageError, VivaceError
from vivace.files.content_hash import folder_sha256
from vivace.files.folders import remove_unfinished, whole_or_none
from vivace.machine.optional_packages import require_gguf

MAGIC = b"GGUF"
HEADER = "<4sIQ"
"""What a file begins with: the magic, the version, and how many tensors there are."""
FEWEST_BITS = 1.5
"""Of a weight, in the tightest of GGUF's blocks (IQ1_S)."""
SEAL = "whole.sha256"
"""The file in a turned checkpoint's folder that holds the hash of all its others."""
CONVERTER = [sys.executable, "-P", "-m", "vivace.models.local.gguf"]
"""The program that turns one: what others wrote is read in a process of its own."""


@dataclass(frozen=True)
class GgufFile:
    """A GGUF checkpoint.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        cache: the folder below which turned checkpoints lie.
    """

    path: Path
    sha256: str
    cache: Path

    def turned(self) -> Path:
        """The folder with the same weights in bf16 and the tokenizer; made on the first call, which takes a minute.

        Two processes at once make it once. One that is damaged is made anew.

        Raises:
            UsageError: the packages that read GGUF are missing, or transformers cannot read this file.
            VivaceError: the folder cannot be written.
        """
        folder = self.cache / f"{self.path.stem}-{self.sha256[:16]}"
        if _is_whole(folder):
            return folder
        require_gguf()
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f".{folder.name}.lock")):
                if _is_whole(folder):
                    return folder
                remove_unfinished(folder)
                if folder.exists():
                    _say(f"The checkpoint in {folder} is not whole; it is made anew.")
                    shutil.rmtree(folder)
                _say(f"{self.path.name} is turned into a checkpoint in {folder}, once; this takes about a minute.")
                with whole_or_none(folder) as unfinished:
                    _turn_apart(self.path, unfinished)
                    (unfinished / SEAL).write_text(folder_sha256(unfinished), encoding="utf-8")
        except OSError as error:
            raise VivaceError(
                f"'{folder}' cannot be written ({error.strerror}); see to that, and run it again."
            ) from (error)
        return folder


def require_gguf_file(path: Path) -> None:
    """See that a file is GGUF at all.

    Raises:
        UsageError: it is not, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(MAGIC))
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read ({error.strerror}).") from error
    if begins != MAGIC:
        raise UsageError(
            f"'{path}' is no GGUF checkpoint: it does not begin as one; of what transformers saved, name the folder."
        )


def turn(path: Path, folder: Path) -> None:
    """Write a GGUF checkpoint as transformers saves models: weights in bf16, tokenizer and chat template.

    Args:
        path: of the file.
        folder: that is there.

    Raises:
        Exception: whatever transformers raises where it cannot read the file.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_claims(path)
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **_unpacked())
    configuration = read.config
    with suppress(AttributeError):
        del configuration.quantization_config  # with it transformers takes the model for a packed one, and saves none
    plain = AutoModelForCausalLM.from_config(configuration, dtype=torch.bfloat16)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)


def _check_claims(path: Path) -> None:
    """See that a file can hold the model that its header speaks of, before room is made for it.

    Raises:
        ValueError: it cannot.
        Exception: whatever transformers raises where it cannot read the header.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with path.open("rb") as file:
        begins = file.read(struct.calcsize(HEADER))
    if len(begins) < struct.calcsize(HEADER):
        raise ValueError("it ends within its header")
    _, _, tensors = struct.unpack(HEADER, begins)
    configuration = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    layers = configuration.get_text_config().num_hidden_layers
    if layers > tensors:
        raise ValueError(f"its header speaks of {layers:,} layers, and it holds {tensors:,} tensors")
    with torch.device("meta"):
        claimed = AutoModelForCausalLM.from_config(configuration)
    weights, bits = sum(weight.numel() for weight in claimed.parameters()), 8 * path.stat().st_size
    if weights > bits / FEWEST_BITS:
        raise ValueError(f"its header speaks of {weights:,} weights, and it holds {bits:,} bits")


def _unpacked() -> dict[str, Any]:
    """How transformers is told to hold no weight in GGUF's blocks; versions that never do need no telling."""
    import torch

    with suppress(ImportError):
        from transformers import GgufConfig

        return {"dtype": torch.bfloat16, "quantization_config": GgufConfig(dequantize=True)}
    return {"dtype": torch.bfloat16}


def _is_whole(folder: Path) -> bool:
    seal = folder / SEAL
    try:
        sealed = seal.read_text(encoding="utf-8")
        names = [file.name for file in folder.iterdir() if file.name != SEAL]
        return sealed == folder_sha256(folder, names)
    except (OSError, UnicodeDecodeError):
        return False


def _turn_apart(path: Path, folder: Path) -> None:
    done = subprocess.run(
        [*CONVERTER, str(path.absolute()), str(folder.absolute())],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return
    reason = f"the process that read it ended with {done.returncode}"
    with suppress(ValueError, IndexError, KeyError, TypeError):
        reason = json.loads(done.stdout.splitlines()[-1])["fault"]
    raise UsageError(f"transformers cannot read the GGUF checkpoint '{path}': {reason}.")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main(path: str, folder: str) -> int:
    """Turn a file, and tell as JSON on stdout why it cannot be; gives the exit status."""
    try:
        turn(Path(path), Path(folder))
    except Exception as error:  # transformers and gguf raise what they like on files that others wrote
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        print(json.dumps({"fault": reason}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
