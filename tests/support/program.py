"""Running the real programs in processes of their own, as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    *arguments: object, cwd: Path | None = None, timeout: float = 300, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run `vivace` to its end; `changes` are environment variables."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start_vivace(*arguments: object, cwd: Path | None = None, **changes: str) -> subprocess.Popen[str]:
    """Start `vivace` and go on; the caller waits for it or ends it."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
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
