"""What a run needs of a machine, and what a machine has: a GPU and its kind, memory, and words of its operator."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

AMOUNTS = ("gpu-memory", "memory")
"""Needs of so many GB or more."""


@dataclass(frozen=True)
class MachineNeed:
    """One need: `gpu`, `gpu=H200`, `gpu-memory=80`, `memory=64`, or a word that a worker offers."""

    name: str
    value: str | None = None

    def __str__(self) -> str:
        """As it is written."""
        return self.name if self.value is None else f"{self.name}={self.value}"

    def is_met(self, offers: dict[str, Any]) -> bool:
        """Whether what a machine offers is enough."""
        gpus = offers.get("gpus") or []
        if self.name == "gpu":
            return any((self.value or "").casefold() in str(gpu["name"]).casefold() for gpu in gpus)
        if self.name == "memory" and self.value is not None:
            return float(offers.get("memory_gb") or 0) >= float(self.value)
        if self.name == "gpu-memory":
            return any(float(gpu["memory_gb"]) >= float(self.value or 0) for gpu in gpus)
        return str(self).casefold() in {str(word).casefold() for word in offers.get("words") or []}


def parse_need(text: str) -> MachineNeed:
    """A need as a person writes it.

    Raises:
        ValueError: an amount is none, or nothing is said.
    """
    name, equals, value = (part.strip() for part in text.strip().partition("="))
    if not name or (equals and not value):
        raise ValueError(f"'{text}' is no need; write gpu, gpu=NAME, gpu-memory=GB, memory=GB or a word")
    if name.casefold() in AMOUNTS and equals:
        amount = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB)?", value, re.IGNORECASE)
        if amount is None:
            raise ValueError(f"'{text}' names no amount; write it as {name.casefold()}=64, in GB")
        return MachineNeed(name.casefold(), amount[1])
    if name.casefold() == "gpu-memory":
        raise ValueError("'gpu-memory' needs an amount in GB: gpu-memory=80")
    return MachineNeed("gpu" if name.casefold() == "gpu" else name, value or None)


def unmet(needs: Sequence[str], offers: dict[str, Any]) -> list[str]:
    """Those needs that a machine does not meet."""
    return [need for need in needs if not parse_need(need).is_met(offers)]


def offers_here(words: Sequence[str] = ()) -> dict[str, Any]:
    """What this machine has.

    Args:
        words: of its operator, which runs may name as needs.
    """
    return {"gpus": _gpus(), "memory_gb": round(psutil.virtual_memory().total / 1e9, 1), "words": list(words)}


def _gpus() -> list[dict[str, Any]]:
    """Name and memory of each GPU, as NVIDIA's own program lists them; none where it is not installed."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = []
    for line in listed.splitlines():
        name, _, mebibytes = line.rpartition(",")
        if name and mebibytes.strip().replace(".", "").isdigit():
            gpus.append({"name": name.strip(), "memory_gb": round(float(mebibytes) * 2**20 / 1e9, 1)})
    return gpus
