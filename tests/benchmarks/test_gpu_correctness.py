"""The kernels and methods that a device is checked for: several processes, of which some break or do not end."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
import gpu_correctness
import torch
from gpu_correctness import KERNELS, PROCESSES, QUICK, Bench, _settings

from vivace_methods.registry import METHODS


class Process:
    """Writes what one process of a check would have found, and ends as it would."""

    ended: Callable[[list[str]], int | None] = staticmethod(len)

    def __init__(self, words: list[str], **_: object) -> None:
        self.names = [word for place, word in enumerate(words) if words[place - 1] == "--only"]
        self.code = type(self).ended(self.names)
        seen = self.names if self.code == 0 else self.names[:1]
        rows = [
            {
                "case": f"{name}, float32", "arm": "here", "baseline": "float64", "metric": "error",
                "ratio": None if name == "window scores" else 0.5, "low": 0.1, "high": 0.5, "n": 1,
                "floor": None, "headline": True,
            }
            for name in seen
            if name not in ("eagle-3", "kept attention")
        ]  # fmt: skip
        notes = [f"{name} is left out: it needs a drafter" for name in seen if name == "eagle-3"]
        if "kept attention" not in self.names:
            file = Path(words[words.index("--json") + 1])
            file.write_text(json.dumps({"rows": rows, "manifest": {"notes": notes}}))

    def wait(self) -> None:
        """It has ended, or never does."""

    def kill(self) -> None:
        """Nothing is left of it."""

    def poll(self) -> int | None:
        return self.code


def checked(monkeypatch: pytest.MonkeyPatch, ended: Callable[[list[str]], int | None]) -> dict[str, Any]:
    """Of each kernel and method, the error that its row tells."""
    monkeypatch.setattr(Process, "ended", staticmethod(ended))
    monkeypatch.setattr(gpu_correctness.subprocess, "Popen", Process)
    bench = Bench(torch.device("cpu"), QUICK)
    bench.apart(quick=True)
    assert len(bench.rows) + len(bench.notes) >= len(KERNELS) + len(METHODS)
    return {row.case.partition(",")[0]: row.ratio for row in bench.rows}


def test_every_kernel_and_method_is_told_by_some_process(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[list[str]] = []

    def ended(names: list[str]) -> int:
        shares.append(names)
        return 0

    found = checked(monkeypatch, ended)
    assert len(shares) == PROCESSES and sorted(chain.from_iterable(shares)) == sorted([*KERNELS, *METHODS])
    assert found.keys() == {*KERNELS, *METHODS} - {"eagle-3"}
    assert found["window scores"] == float("inf"), "what was no number is no success"
    assert found["kept attention"] == float("inf"), "it left no result"
    assert found["sparse product"] == 0.5


@pytest.mark.parametrize("code", [-11, None], ids=["broke", "time is up"])
def test_what_a_process_did_not_come_to_is_a_fault(monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    found = checked(monkeypatch, lambda names: code if "claa" in names else 0)
    share = next(
        list(METHODS)[place :: PROCESSES - len(KERNELS)]
        for place in range(PROCESSES)
        if "claa" in list(METHODS)[place :: PROCESSES - len(KERNELS)]
    )
    assert {name: found[name] for name in share} == {share[0]: 0.5, **dict.fromkeys(share[1:], float("inf"))}


def test_steps_are_compiled_for_some_methods_alone() -> None:
    """A compiler takes a dozen seconds for each."""
    settings = {name: _settings(name, kind) for name, kind in METHODS.items()}
    assert settings["teal"] == {"compile": "none"} and settings["r-sparse"] == {} and settings["claa"] == {}
    assert settings["cats"] == {"sparsity": 0.3}
    for name, kind in METHODS.items():
        kind(**settings[name])
