"""One command for all that waits for a GPU: what hangs is cut, what fails is said, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
from gpu_all import PARTS, Part, main, run_parts

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


@pytest.mark.full
def test_all_parts_run_at_tiny_size_in_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of kernels and methods is within what is allowed, and every part leaves a result."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(["--device", "cpu", "--quick", "--minutes", "60", "--output", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.json")} == {"gpu_all", *(part.name for part in PARTS)}
    errors = json.loads((tmp_path / "gpu_correctness.json").read_text())
    assert errors["rows"] and all(row["ratio"] <= 1 for row in errors["rows"])
