"""One command for all that waits for a GPU: what hangs is cut, what fails is said, and the rest goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
from gpu_all import PARTS, Part, environment, main, run_parts

SCRIPTS = {
    "good": "found = {'rows': [1]}",
    "raising": "raise ValueError('no such device')",
    "empty": "found = None",
    "hanging": "import time; time.sleep(600)",
    "partial": """
import signal, time
def end(*_):
    raise SystemExit(write({'rows': [2]}))
signal.signal(signal.SIGTERM, end)
write({'rows': ['cut in two'][:0]})
time.sleep(600)
""",
    "deaf": """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])
write({'rows': [3], 'child': child.pid})
time.sleep(600)
""",
}
WRITE = """
import json, sys
def write(found):
    open(sys.argv[sys.argv.index('--json') + 1], 'w').write(json.dumps(found))
"""


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The command has a way of its own to be told to end."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scripts of parts that end in every way."""
    for name, text in SCRIPTS.items():
        ending = "write(found)\n" if text.startswith("found = {") else ""
        (tmp_path / f"{name}.py").write_text(f"{WRITE}\n{text}\n{ending}")
    return tmp_path


def test_parts_end_in_every_way_and_the_rest_goes_on(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parts = [Part(name, 1.5 if name in ("hanging", "partial", "deaf") else 60, folder=folder) for name in SCRIPTS]
    parts.append(Part("good", 60, folder=folder))
    (folder / "out").mkdir()
    (folder / "out" / "raising.json").write_text('{"rows": ["of an earlier call"]}')
    outcomes = run_parts(parts, folder / "out", device="cpu", quick=True, minutes=5, grace_s=1.5)
    said = {outcome.part: outcome.said for outcome in outcomes}
    assert said["good"] == "done"
    assert said["raising"] == "failed with exit code 1" and "no such device" in capfd.readouterr().err
    assert said["empty"] == "ended without a result"
    assert said["hanging"] == "cut after 2 s" and said["partial"] == "cut after 2 s"
    assert said["deaf"] == "cut after 2 s, and had to be killed"
    kept = {outcome.part: outcome.result for outcome in outcomes if outcome.result is not None}
    assert set(kept) == {"good", "partial", "deaf"}
    assert json.loads(Path(kept["partial"]).read_text()) == {"rows": [2]}
    assert outcomes[-1].is_done  # whatever came before it
    child = Path("/proc") / str(json.loads(Path(kept["deaf"]).read_text())["child"])
    assert not child.exists() or " Z " in (child / "stat").read_text()  # what a part started ends with it


def test_no_part_begins_that_cannot_end_in_time(folder: Path) -> None:
    outcomes = run_parts(
        [Part("good", 60, folder=folder)], folder / "out", device="cpu", quick=True, minutes=0.1, grace_s=3
    )
    assert outcomes[0].said == "not begun: no time was left"


def test_what_it_says_without_a_gpu_or_of_a_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([]) == 2 and "There is no GPU" in capsys.readouterr().err
    assert main(["--device", "cpu"]) == 2 and "add --quick" in capsys.readouterr().err
    nothing: list[Part] = []
    assert main(["--device", "cpu", "--quick", "--output", str(tmp_path)], nothing) == 0
    assert json.loads((tmp_path / "gpu_all.json").read_text())["manifest"]["parts"] == []


def test_parts_compile_on_a_gpu_whatever_the_shell_says_and_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with environment("cuda") as variables:
        assert variables["TRITON_INTERPRET"] == "0" and variables["HOME"] == os.environ["HOME"]
        roots = variables["PYTHONPATH"].split(os.pathsep)
        assert all(any((Path(root) / name).is_dir() for root in roots) for name in ("vivace", "vivace_kernels"))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a home that cannot be written
    with environment("cpu") as variables:
        assert variables["TRITON_INTERPRET"] == "1"
        assert variables["HOME"] == variables["TRITON_HOME"] != os.environ["HOME"]
        assert Path(variables["HOME"]).is_dir()
    assert not Path(variables["HOME"]).exists()


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").write_text("")
    assert main(["--device", "cpu", "--quick", "--output", str(tmp_path / "a file" / "results")], []) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be written" in said and "--output" in said


def test_what_has_ended_is_told_after_each_part(folder: Path) -> None:
    seen: list[list[str]] = []
    parts = [Part("empty", 60, folder=folder), Part("good again", 60, script="good", folder=folder)]
    run_parts(
        parts, folder / "out", device="cpu", quick=True, minutes=5,
        on_outcome=lambda outcomes: seen.append([outcome.part for outcome in outcomes]),
    )  # fmt: skip
    assert seen == [["empty"], ["empty", "good again"]] and (folder / "out" / "good again.json").is_file()


@pytest.mark.full
def test_all_parts_run_at_tiny_size_in_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of kernels and methods is within what is allowed, and every part leaves a result."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    unhurried = [replace(part, limit_s=3600) for part in PARTS]  # limits are for a machine that does nothing else
    assert main(["--device", "cpu", "--quick", "--minutes", "60", "--output", str(tmp_path)], unhurried) == 0
    assert {path.stem for path in tmp_path.glob("*.json")} == {"gpu_all", *(part.name for part in PARTS)}
    errors = json.loads((tmp_path / "gpu_correctness.json").read_text())
    assert errors["rows"] and all(row["ratio"] <= 1 for row in errors["rows"])
