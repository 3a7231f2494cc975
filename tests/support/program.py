"""Running the real programs as a user does, inside this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

PROGRAM = [sys.executable, "-m", "vivace"]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without Vivace's settings and providers' keys, and with changes."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("VIVACE_", "OPENAI_")) and not key.endswith("_API_KEY")
    }
    return {**kept, **changes}


def vivace(
    *arguments: object, cwd: Path | None = None, timeout: float = 300, process: bool = False, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run `vivace` to its end, inside this process, which saves a second of imports; seconds where litellm is needed.

    Args:
        arguments: of the command line.
        cwd: the folder it runs in; None for this process's own.
        timeout: of a process, in seconds.
        process: run it in a process of its own. Verbs that never end by themselves, and those whose libraries keep
            to one start in a process, always are; so is what changes variables that libraries read when imported.
        changes: of environment variables.
    """
    words = [str(argument) for argument in arguments]
    ours = all(name.startswith("VIVACE_") or name.endswith("_API_KEY") for name in changes)
    if not process and ours and not {"worker", "serve"} & set(words[:1]):
        return _inside(words, cwd or Path.cwd(), changes)
    return subprocess.run(
        [sys.executable, *PROGRAM[1:], *words],  # which a test may have changed
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _inside(words: list[str], cwd: Path, changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `vivace` here, with its environment, its folder, and its output written to files as a process's is."""
    from vivace.cli.main import main

    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, environment(**changes), clear=True))
        stack.enter_context(patch.object(sys, "argv", ["vivace", *words]))
        stack.enter_context(chdir(cwd))
        out, talk = (
            stack.enter_context(_written_to_a_file(name, number)) for number, name in ((1, "stdout"), (2, "stderr"))
        )
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        said = [Path(file.name).read_text(encoding="utf-8") for file in (out, talk)]
    return subprocess.CompletedProcess(words, code, *said)


@contextmanager
def _written_to_a_file(name: str, number: int) -> Iterator[IO[str]]:
    """Have what is written to a stream, by this process and those it starts, written to a file."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        kept = os.dup(number)
        os.dup2(file.fileno(), number)
        try:
            with patch.object(sys, name, file.file):
                yield file
        finally:
            os.dup2(kept, number)
            os.close(kept)


def start_vivace(*arguments: object, cwd: Path | None = None, **changes: str) -> subprocess.Popen[str]:
    """Start `vivace` and go on; the caller waits for it or ends it.

    It is a process of the interpreter's, which gets the signals; those that it starts are of what a test has put in
    the interpreter's place.
    """
    began = f"import sys; sys.executable = {sys.executable!r}; from vivace.cli.main import main; main()"
    program = PROGRAM if sys.executable == PROGRAM[0] else [PROGRAM[0], "-c", began]
    return subprocess.Popen(
        [*program, *map(str, arguments)],
        cwd=cwd,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def board(*options: object, **changes: str) -> list[dict[str, Any]]:
    """The leaderboard's JSON."""
    done = vivace("leaderboard", "--format", "json", *options, **changes)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows
