"""C++ kernels for the processor, compiled on first use where a compiler is found and kept for the next time."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC")
"""Threads are OpenMP's, whose runtime is the one that torch has loaded before: both share its threads."""
SECONDS = 120


@dataclass(frozen=True)
class Native:
    """A compiled library, or why there is none.

    Attributes:
        library: None where it could not be had.
        reason: a sentence where there is none.
    """

    library: ctypes.CDLL | None
    reason: str = ""


@functools.cache
def native(source: Path) -> Native:
    """The library of a C++ file, compiled for this processor if it is not kept from an earlier time.

    Nothing is raised: whoever cannot compile takes another path.
    """
    import torch  # noqa: F401  # its OpenMP runtime must be loaded before the library asks for one

    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "g++", "c++", "clang++"))), None)
    if compiler is None:
        return Native(None, "There is no C++ compiler; install g++ for the faster path.")
    try:
        key = hashlib.sha256(
            b"\0".join((source.read_bytes(), " ".join(FLAGS).encode(), _version(compiler), _processor()))
        ).hexdigest()[:32]
        kept = _folder() / f"{source.stem}-{key}.so"
        if kept.is_file():
            try:
                return Native(ctypes.CDLL(str(kept)))
            except OSError:
                pass  # damaged: it is compiled again
        _compile(compiler, source, kept)
        return Native(ctypes.CDLL(str(kept)))
    except subprocess.CalledProcessError as error:
        return Native(
            None, f"{compiler} failed: {error.stderr.decode(errors='replace').strip().partition(chr(10))[0]}"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Native(None, f"The C++ kernel could not be compiled or loaded: {error}")


def _compile(compiler: str, source: Path, kept: Path) -> None:
    """Compile beside the file's place and move it there, so that nobody ever loads a half-written one."""
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        made = Path(folder) / kept.name
        subprocess.run(
            [compiler, *FLAGS, str(source), "-o", str(made)], check=True, capture_output=True, timeout=SECONDS
        )
        made.replace(kept)


def _folder() -> Path:
    """Where compiled libraries are kept; for this process alone where the user's cache cannot be written."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vivace" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return _own_folder()
    return folder if os.access(folder, os.W_OK) else _own_folder()


@functools.cache
def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="vivace-kernels-"))


def _version(compiler: str) -> bytes:
    return subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=SECONDS).stdout


def _processor() -> bytes:
    """What `-march=native` depends on: a home may be shared by machines that are not alike."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    ).encode()
