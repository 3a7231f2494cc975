"""Verbs load what they need and nothing heavier."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.program import environment
from vivace.cli import main as program

HEAVY = (
    "torch",
    "transformers",
    "litellm",
    "datasets",
    "streamlit",
    "dbos",
    "pandas",
    "scipy",
    "pyarrow",
    "soundfile",
    "numpy",
    "httpx",
    "alembic",
    "psycopg",
)
PROBE = """
import atexit, os, sys
loaded = os.environ["LOADED"]
atexit.register(lambda: open(loaded, "w").write(" ".join(sorted(sys.modules))))
from vivace.cli.main import main
main()
"""


def loaded_by(home: Path, *arguments: str) -> set[str]:
    """The modules that a process has loaded at its end."""
    record = home.parent / "loaded.txt"
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        env=environment(LOADED=str(record), VIVACE_HOME=str(home)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(record.read_text().split())


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with the demo's results."""
    home = tmp_path_factory.mktemp("demo") / "home"
    subprocess.run(
        [sys.executable, "-m", "vivace", "demo", "--only", "dialogue", "--home", str(home)],
        env=environment(),
        capture_output=True,
        check=True,
    )
    return home


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path / "none", "--help")
    assert loaded.isdisjoint(HEAVY)
    assert "sqlalchemy" not in loaded


def test_the_leaderboard_loads_nothing_heavy(demo_home: Path) -> None:
    assert loaded_by(demo_home, "leaderboard").isdisjoint(HEAVY)
    assert loaded_by(demo_home, "status").isdisjoint(HEAVY)


def test_an_empty_leaderboard_loads_nothing_heavy_and_writes_nothing(tmp_path: Path) -> None:
    assert loaded_by(tmp_path / "none", "leaderboard").isdisjoint(HEAVY)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("arguments", [("methods", "list"), ("methods", "show", "r-sparse"), ("tasks", "list")])
def test_what_methods_and_tasks_are_is_read_without_what_they_run_on(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert loaded_by(tmp_path / "none", *arguments).isdisjoint((*HEAVY, "safetensors", "triton"))


def test_what_plans_drives_and_records_a_measured_run_needs_no_torch() -> None:
    script = "import sys, vivace.tracks.efficiency.track; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("verb", [*program.VERBS, "db", "db upgrade", "db current"])
def test_every_verb_has_help_that_fits_a_narrow_terminal(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    done = call(*verb.split(), "--help")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 60


def test_the_list_of_verbs_is_not_cut_short(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = call("--help").out.partition("Commands:")[2]
    assert "..." not in listed
    assert {line.split()[0] for line in listed.splitlines() if line} >= {*program.VERBS, "db"}


def test_garbage_is_left_at_the_end_unless_triton_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton prints pages about what it finds left, behind the one sentence of an error."""
    left: list[bool] = []
    monkeypatch.setattr(program.gc, "freeze", lambda: left.append(True))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    program._leave_garbage()
    assert left == [True]
    monkeypatch.setitem(sys.modules, "triton", program)
    program._leave_garbage()
    assert left == [True]
