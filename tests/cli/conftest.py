"""Calling the command line inside this process: milliseconds, where a process of its own takes a second."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from support.program import environment
from vivace.cli import main as program
from vivace.output import secrets as masking


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `vivace` with these arguments in an empty folder, without Vivace's variables and providers' keys."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("VIVACE_DEBUG", "")  # the program sets it; this puts it back afterwards
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["vivace", *map(str, arguments)])
        capsys.readouterr()
        try:
            with patch.dict(os.environ):  # what a file .env says holds for a process, and for no other test
                program.main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture
def refused(call: Call, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused: exit 2, one sentence, nothing written. Returns the sentence."""

    def listing() -> dict[Path, bytes | None]:
        return {
            path: path.read_bytes() if path.is_file() else None
            for path in tmp_path.rglob("*")
            if not path.name.endswith(("-shm", "-wal"))  # SQLite keeps its readers' marks in these
        }

    def run(*arguments: object) -> str:
        before = listing()
        done = call(*arguments)
        assert done.code == 2, done
        assert done.out == ""
        lines = done.err.splitlines()
        if lines[0].startswith("Usage: "):
            lines = lines[3:]  # the command line's own parser shows above how the verb is used
        else:
            assert lines[0].endswith("."), lines
        assert len(lines) == 1 and lines[0].startswith("Error: "), done.err
        assert "Traceback" not in done.err and "at fault" not in done.err
        assert listing() == before
        return lines[0]

    return run


@pytest.fixture(autouse=True)
def no_passwords_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process remembers the passwords of addresses; here it is many commands in turn."""
    monkeypatch.setattr(masking, "_noted", set())
