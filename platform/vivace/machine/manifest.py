"""What was running when a number was made: code revision, packages, machine. No official number without it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import vivace

RECORDED_PACKAGES = (
    "vivace", "litellm", "openai", "datasets", "soundfile", "soxr", "numpy", "torch", "transformers", "triton",
)  # fmt: skip


@cache
def manifest() -> dict[str, Any]:
    """Versions and code revision of this process."""
    return {
        "vivace": vivace.__version__,
        "python": platform.python_version(),
        "packages": {name: version for name in RECORDED_PACKAGES if (version := package_version(name))},
        "code": code_revision(),
    }


def package_version(name: str) -> str | None:
    """The installed version of a package, without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def code_revision() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout this package runs from; None for an installed package."""
    folder = Path(__file__).parent
    try:
        if not _git(folder, "ls-files", "--error-unmatch", __file__):
            return None
        return {
            "commit": _git(folder, "rev-parse", "HEAD"),
            "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


@cache
def hardware() -> dict[str, Any]:
    """What makes two machines the same for a measurement: processor, cores, memory."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        # By the standard library: benchmarks run where nothing but torch and its kin is installed.
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
