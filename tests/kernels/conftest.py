"""Processes in which Triton interprets kernels, or compiles them for GPUs that are not here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.triton_processes import Call, other_process


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Call]:
    """`interpreted(function, …)` calls a function where kernels are interpreted, on the CPU."""
    pytest.importorskip("triton")
    with other_process(TRITON_INTERPRET="1") as call:
        yield call


@pytest.fixture(scope="session")
def compiling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """`compiling(function, …)` calls a function where kernels are compiled, and nothing compiled before is found."""
    pytest.importorskip("triton")
    with other_process(TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton"))) as call:
        yield call
