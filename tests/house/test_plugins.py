"""Another package adds one of each kind of thing that has a name, and what is wrong with one disturbs nothing else.

The package is the one that CONTRIBUTING shows, built into a wheel.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hatchling")
if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
    pytest.skip("methods need torch and transformers: pip install 'vivace[local]'", allow_module_level=True)

from hatchling.builders.wheel import WheelBuilder

from support.datasets import conversation_rows, write_jsonl
from support.program import vivace
from vivace_methods.plugins import PluginError
from vivace_methods.registry import METHODS, parse_method

ROOT = Path(__file__).parents[2]
METHODS_PAGE = ROOT / "docs" / "methods.md"
GROUPS = {
    "methods": "method",
    "adapters": "adapter",
    "transcribers": "transcriber",
    "tasks": "task",
    "judges": "judge",
}
FAULTS = "".join(
    f'\n[project.entry-points."vivace.{group}"]\n'
    f'absent = "vivace_faulty.nowhere:Thing"\nraising = "vivace_faulty.raising:Thing"\n'
    f'wrong = "vivace_faulty:WRONG"\n{hidden} = "vivace_faulty.raising:Thing"\n'
    for group, hidden in zip(GROUPS, ("dense", "replay", "whisper", "sums", "checks"), strict=True)
)

ONE_FILE_EACH = """
[build-system]
requires = ["hatchling"]
[project]
name = "vivace-brought"
version = "1.0"
[project.entry-points."vivace.methods"]
recent = "vivace_brought.recent:Recent"
[project.entry-points."vivace.budget_rules"]
first = "vivace_brought.first:FirstExperts"
"""
FIRST_EXPERTS = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from vivace_methods.speculation.budgets.base import BudgetRule, Routed


@dataclass(frozen=True)
class FirstExperts(BudgetRule):
    name: ClassVar[str] = "first"

    def scores(self, routed: Routed) -> torch.Tensor:
        return -torch.arange(routed.shares.shape[1], dtype=torch.float32)
"""


def shown_files() -> dict[str, str]:
    """The files that CONTRIBUTING shows, by their names."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"^```(?:toml|python)\n# (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return dict(blocks)


def install(files: dict[str, str], folder: Path, site: Path) -> None:
    """Build a wheel of a project's files, and unpack it, which is what installs a wheel of Python alone."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (wheel,) = WheelBuilder(str(folder)).build(directory=str(folder / "dist"), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package that CONTRIBUTING shows."""
    folder, site = tmp_path_factory.mktemp("example"), tmp_path_factory.mktemp("site")
    install(shown_files(), folder, site)
    return site


@pytest.fixture
def site(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, where this process finds it."""
    monkeypatch.syspath_prepend(str(installed))
    yield installed
    for name in [name for name in sys.modules if name.startswith(("vivace_example", "vivace_faulty"))]:
        del sys.modules[name]


@pytest.fixture
def faulty(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it a package whose entry points cannot be used, or have names that are taken."""
    project = '[build-system]\nrequires = ["hatchling"]\n[project]\nname = "vivace-faulty"\nversion = "2.0"\n'
    files = {
        "pyproject.toml": project + FAULTS,
        "vivace_faulty/__init__.py": "print('said on import')\nWRONG = 5\n",
        "vivace_faulty/raising.py": "raise RuntimeError('not\\non this machine')\n",
    }
    other = tmp_path / "other"
    install(files, tmp_path / "faulty", other)
    monkeypatch.syspath_prepend(str(other))


def test_the_package_shown_brings_one_of_each(site: Path) -> None:
    assert set(shown_files()) == {
        "pyproject.toml",
        *(f"vivace_example/{name}.py" for name in ("__init__", "method", "adapter", "transcriber", "task", "judge")),
    }
    methods = json.loads(vivace("methods", "list", "--format", "json").stdout)
    assert "dense-again" in [row["name"] for row in methods]
    tasks = json.loads(vivace("tasks", "list", "--format", "json").stdout)
    assert "evens" in [row["task"] for row in tasks]
    assert '"no"' in vivace("tasks", "show", "evens(below=99)", "--samples", 9, "--format", "json").stdout


@pytest.mark.usefixtures("models_start_at_once")
def test_a_method_and_a_task_that_were_brought_come_to_the_board(site: Path, tmp_path: Path) -> None:
    done = vivace(
        "run", "sparsity", "--model", "zoo:dense", "--tasks", "evens(below=50)", "--limit", 2, "--repeats", 1,
        "--most-tokens", 2, "--arms", "dense-again", "--home", tmp_path / "home", "--format", "json",
        cwd=site,  # where a new process looks first
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(vivace("leaderboard", "sparsity", "--home", tmp_path / "home", "--format", "json").stdout)
    assert {(row["arm"], row["data"]) for row in rows} == {
        (arm, "evens(below=50)") for arm in ("dense", "dense-again")
    }


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the reader that docs/methods.md shows, and a budget rule, each of one file."""
    (reader,) = re.findall(r"^```python\n# recent\.py\n(.*?)^```", METHODS_PAGE.read_text(), re.MULTILINE | re.DOTALL)
    files = {"__init__": "", "recent": reader, "first": FIRST_EXPERTS}
    modules = {f"vivace_brought/{name}.py": text for name, text in files.items()}
    install({"pyproject.toml": ONE_FILE_EACH, **modules}, tmp_path / "brought", tmp_path / "brought-site")
    monkeypatch.syspath_prepend(str(tmp_path / "brought-site"))
    return tmp_path / "brought-site"


@pytest.mark.usefixtures("brought")
def test_a_reader_and_a_budget_rule_that_were_brought_are_known() -> None:
    assert "recent" in [row["name"] for row in json.loads(vivace("methods", "list", "--format", "json").stdout)]
    assert parse_method("moe-spec(budget=8,rule=first)").label == "moe-spec(budget=8,rule=first)"


@pytest.mark.full
@pytest.mark.usefixtures("models_start_at_once")
@pytest.mark.parametrize(
    ("track", "model", "task", "arm"),
    [
        ("prefill", "zoo:retrieval", "needles(length=128)", "recent(keep=0.25)"),
        ("speculation", "zoo:moe", "sums", "moe-spec(budget=8,rule=first):zoo:moe-drafter"),
    ],
)
def test_a_reader_and_a_budget_rule_that_were_brought_come_to_the_board(
    brought: Path, tmp_path: Path, track: str, model: str, task: str, arm: str
) -> None:
    small = ("--limit", 1, "--repeats", 1, "--most-tokens", 3, "--home", tmp_path / "home", "--format", "json")
    done = vivace("run", track, "--model", model, "--tasks", task, "--arms", arm, *small, cwd=brought)
    assert done.returncode == 0, done.stderr
    assert arm in {row["arm"] for row in json.loads(vivace("leaderboard", track, *small[-4:]).stdout)}


def test_an_adapter_and_a_judge_that_were_brought_come_to_the_board(site: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "texts.jsonl", conversation_rows(2, turns=2, audio=False))
    where = ("--home", tmp_path / "home", "--format", "json")
    run = ("run", "audio-multichallenge", "--data", data, "--model", "parrot:polly")
    done = vivace(*run, "--judge", "mentions:e", "--max-cost", 0.01, *where)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(vivace("leaderboard", *where).stdout)
    assert (row["model"], row["judge"], row["coverage"]) == ("polly", "mentions e", 1.0)
    done = vivace(
        "run", "audio-multichallenge", "--data", "demo", "--limit", 1, "--model", "cascade:parrot:polly",
        "--ear", "seconds:any", "--judge", "mentions:took", "--max-cost", 0.01, *where,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (heard,) = (row for row in json.loads(vivace("leaderboard", *where).stdout) if row["judge"] == "mentions took")
    assert heard["apr"] == 1.0, "the parrot repeats what the ear wrote down"
    refused = vivace(*run, "--judge", "mentions:e", "--method", "teal:FOLDER", *where)
    assert refused.returncode == 2 and "parrot: answers as it does" in refused.stderr


@pytest.mark.usefixtures("faulty")
def test_what_cannot_be_used_is_named_and_disturbs_nothing(call_doctor: Callable[[], Any]) -> None:
    rows = {row["what"]: row for row in call_doctor()}
    for what, own, taken in zip(
        GROUPS.values(),
        ("dense-again", "parrot", "seconds", "evens", "mentions"),
        ("dense", "replay", "whisper", "sums", "checks"),
        strict=True,
    ):
        assert rows[f"{what} {own}"]["state"] == "ok" and "vivace-example 1.0" in rows[f"{what} {own}"]["found"]
        assert "ModuleNotFoundError" in rows[f"{what} absent"]["found"]
        assert "RuntimeError: not on this machine" in rows[f"{what} raising"]["found"]
        assert rows[f"{what} wrong"]["state"] == "broken" and "vivace-faulty 2.0" in rows[f"{what} wrong"]["found"]
        assert "is left out: another" in rows[f"{what} {taken}"]["found"]
    listed = vivace("methods", "list", "--format", "json")
    names = [row["name"] for row in json.loads(listed.stdout)]
    assert "dense-again" in names and "dense" in names and not {"absent", "raising", "wrong"} & set(names)
    assert json.loads(vivace("tasks", "list", "--format", "json").stdout)
    assert METHODS["dense"].__module__ == "vivace_methods.sparsity.dense"


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    "arguments",
    [
        ("methods", "show", "raising"),
        ("tasks", "show", "raising"),
        ("run", "audio-multichallenge", "--data", "demo", "--model", "raising:x", "--judge", "checks"),
        ("run", "audio-multichallenge", "--data", "demo", "--model", "parrot:x", "--judge", "raising:x"),
        (
            "run",
            "audio-multichallenge",
            "--data",
            "demo",
            "--model",
            "cascade:parrot:x",
            "--ear",
            "raising:x",
            "--judge",
            "checks",
        ),
    ],
)
def test_whoever_asks_for_what_cannot_be_used_is_told(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = vivace(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "of the package vivace-faulty 2.0 cannot be used: RuntimeError: not on this machine" in done.stderr


def test_a_misspelt_name_is_asked_about_also_where_it_was_brought(site: Path) -> None:
    with pytest.raises(PluginError, match=r"There is no method 'dense-agan' \(did you mean 'dense-again'"):
        METHODS["dense-agan"]


@pytest.fixture
def call_doctor(tmp_path: Path) -> Callable[[], Any]:
    """What the doctor finds."""

    def look() -> Any:
        done = vivace("doctor", "--home", tmp_path / "home", "--format", "json")
        assert done.returncode == 1, "something is broken"
        return json.loads(done.stdout)

    return look
