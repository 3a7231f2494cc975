"""Every command that README and docs show is run here, in order, as a reader would."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet
import pytest

from support.chat_server import Answer, Call, chat_server, verdict
from support.preloaded import NEEDED
from support.program import environment, vivace
from vivace.demo import DATA, EFFICIENCY, SYSTEMS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INSPECT_LOGS = ROOT / "tests" / "comparison" / "inspect_logs"
SHOWN_ADDRESS = "http://127.0.0.1:8000/v1"
SHOWN_DATABASE = "postgresql://vivace@db.example/vivace"
RUN_ELSEWHERE = re.compile(r"^(make (demo|test|serve)|\. \.venv/bin/activate)$", re.MULTILINE)
"""Set-up that this very test run has been through, and the app, which has browser tests of its own."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def behave(call: Call) -> Answer:
    """A model that says hello, and a judge that finds everything met."""
    return verdict() if "judge" in call.model else Answer("Hello there.")


def lay_out(folder: Path, page: Path) -> None:
    """The files a page speaks of: those it prints, replies, and verdicts."""
    for block in [*blocks(page, "yaml"), *blocks(page, "python")]:
        name = re.match(r"# (\S+\.(?:yaml|py))\n", block)
        assert name, f"a block of YAML or Python in {page.name} does not say which file it is"
        file = folder / name.group(1)
        file.parent.mkdir(exist_ok=True)
        file.write_text(block)
        for recording in re.findall(r"recording: ([\w.-]+)", block):
            (file.parent / recording).write_bytes(one_recording())
    shutil.copy(SYSTEMS[0].replies, folder / "replies.jsonl")
    for log in INSPECT_LOGS.glob("*.eval"):
        shutil.copy(log, folder)
    rubrics = pyarrow.parquet.read_table(DATA, columns=["id", "rubric"]).to_pylist()
    (folder / "verdicts.jsonl").write_text(
        "".join(
            json.dumps({"id": row["id"], "response": "", "criteria_met": [True] * len(json.loads(row["rubric"]))})
            + "\n"
            for row in rubrics
        )
    )


def one_recording() -> bytes:
    """A recording of the demo set."""
    column = pyarrow.parquet.read_table(DATA, columns=["user_turn_1_audio"]).column(0)
    return bytes(column[0]["bytes"].as_py())


def commands_that_start_at_once(folder: Path, program: str) -> Path:
    """A folder with `vivace` and `python` whose processes have loaded what most commands need."""
    found = folder / "bin"
    found.mkdir()
    for name, words in (("python", ""), ("vivace", "-m vivace ")):
        (found / name).write_text(f'#!/bin/sh\nexec {program} {words}"$@"\n')
        (found / name).chmod(0o755)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_shown_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    script = "\n".join(blocks(page, "bash"))
    if not script:
        pytest.skip("shows no commands")
    lay_out(tmp_path, page)
    changes = {
        "PATH": f"{Path(sys.executable).parent}:{environment()['PATH']}",
        "VIVACE_DEMO_ONLY": "dialogue",  # its other half has a test of its own
    }
    if page.stem in ("efficiency", "sparsity", "speculation"):
        changes["VIVACE_RUN_MOST_TOKENS"] = "8"  # what is shown does not depend on how long the answers are
    if page.name != "README.md" and find_spec("transformers"):
        program = request.getfixturevalue("preloaded_python")
        changes["PATH"] = f"{commands_that_start_at_once(tmp_path, program)}:{changes['PATH']}"
        changes |= NEEDED
    with chat_server(behave) as server:
        for file in tmp_path.glob("*.yaml"):
            file.write_text(file.read_text().replace(SHOWN_ADDRESS, server.base))
        script = RUN_ELSEWHERE.sub("", script).replace(SHOWN_ADDRESS, server.base)
        if "postgresql://" in script:
            script = script.replace(SHOWN_DATABASE, f"'{request.getfixturevalue('bare_postgres_url')}'")
            script = script.replace("s3://bucket/vivace", str(tmp_path / "shared"))
            script = script.replace("worker --queue gpu-h200", "worker --queue gpu-h200 --until-empty")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment(**changes),
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.full
def test_the_whole_demo_runs(tmp_path: Path) -> None:
    done = vivace("demo", "--home", tmp_path / "home", timeout=1800)
    assert done.returncode == 0, done.stderr
    for name in ("written-attentive", "eagle-3", "r-sparse"):
        assert name in done.stdout


def test_the_demos_sweeps_can_be_planned(tmp_path: Path) -> None:
    plan = vivace("run", "--config", EFFICIENCY, "--dry-run", "--format", "json", "--home", tmp_path / "home")
    assert plan.returncode == 0, plan.stderr
    assert all(row["trials"] > 0 for row in json.loads(plan.stdout))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_every_verb_is_in_the_docs() -> None:
    from vivace.cli.main import VERBS

    text = (ROOT / "docs" / "command-line.md").read_text()
    for verb in VERBS:
        assert f"`{verb}`" in text, f"docs/command-line.md does not mention `{verb}`"


def test_every_method_is_in_the_docs() -> None:
    pytest.importorskip("torch")
    from vivace_methods.registry import METHODS

    text = (ROOT / "docs" / "methods.md").read_text()
    for name, kind in METHODS.items():
        assert f"| `{name}` | {kind.family} |" in text, f"docs/methods.md does not list {name}"
