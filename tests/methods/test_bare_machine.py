"""The methods run where nothing is installed but torch, transformers, triton and what those bring."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALLED = ("torch", "transformers", "triton", "numpy", "safetensors", "tokenizers")

BARE = '''
import importlib.machinery, sys

class Bare:
    """Finds what is installed on a bare machine; for the rest, says that it is not there, as the system would."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in INSTALLED or name.startswith("_sysconfigdata"):
            return importlib.machinery.PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(*arguments, **named):
        return importlib.machinery.PathFinder.find_distributions(*arguments, **named)

INSTALLED = {installed!r} | sys.stdlib_module_names
sys.meta_path = [Bare if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
'''

COMMANDS = """
import contextlib, io, json, runpy, sys

printed = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["vivace_methods", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_module("vivace_methods", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            printed.append([end.code, out.getvalue()])
print(json.dumps(printed))
"""


def brought() -> set[str]:
    """The packages that a bare machine has, by the names under which they are imported."""
    waiting, distributions = list(INSTALLED), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in distributions:
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for other systems
        distributions.add(name)
        waiting += [re.split(r"[^\w.-]", each)[0] for each in required if "extra ==" not in each]
    return {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if any(re.sub(r"[-_.]+", "-", owner).lower() in distributions for owner in owners)
    }


def on_a_bare_machine(
    folder: Path, script: str, *arguments: str, beside: Collection[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a script where nothing else can be imported but the methods, the kernels, and what is named beside them."""
    installed = brought() | {"vivace_methods", "vivace_kernels", "sitecustomize", *beside}
    (folder / "sitecustomize.py").write_text(BARE.replace("{installed!r}", repr(installed)))
    paths = [folder, ROOT / "methods", ROOT / "kernels"]
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_methods_are_listed_and_some_generate(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(" ".join(str(place * place % 199) for place in range(60)))
    sparse = ("--random", "llama", "--method")
    commands = [
        ["--help"],
        ["list"],
        ["show", "eagle-3"],
        [
            *("generate", "--random", "olmoe", "--method", "autoregressive"),
            *("--prompt-tokens", "5,9,2", "--most-tokens", "4"),
        ],
        ["fit", *sparse, "teal(sparsity=0.4)", "--calibration", "ids.txt", "--output", "recipe"],
        ["generate", *sparse, "teal(sparsity=0.4):recipe", "--prompt-tokens", "5,9,2", "--most-tokens", "4"],
    ]
    done = on_a_bare_machine(tmp_path, COMMANDS, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    codes, printed = zip(*json.loads(done.stdout.splitlines()[-1]), strict=True)
    shown, listed, one, answer, fitted, sparse_answer = printed
    assert codes == (0,) * 6, done.stderr
    for name in ("autoregressive", "full", "dense", "eagle-3", "r-sparse"):
        assert name in shown and name in listed
    assert "2503.01840" in one
    assert len(json.loads(answer)["tokens"]) == 4
    assert fitted.strip() == "teal(sparsity=0.4):recipe"
    assert json.loads(sparse_answer)["figures"]["weights_read"] > 0


def test_the_machine_is_bare(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    tried = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    done = on_a_bare_machine(tmp_path, tried, "pytest", "sqlalchemy", "pandas", "scipy", "vivace", "torch", "numpy")
    assert done.stdout.strip() == "['torch', 'numpy']", done.stderr


def test_methods_are_listed_without_transformers(tmp_path: Path) -> None:
    """Its models take seconds to import: a list, a wrong setting and a run that is only planned do without."""
    done = on_a_bare_machine(tmp_path, "import sys, vivace_methods.registry; print('transformers' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = [path.stem for path in sorted(BENCHMARKS.glob("gpu_*.py"))]


@pytest.mark.parametrize(
    "scripts", [["gpu_all"], pytest.param(SCRIPTS, marks=pytest.mark.full)], ids=["the first", "all"]
)
def test_what_waits_for_a_gpu_begins_on_a_checkout(tmp_path: Path, scripts: list[str]) -> None:
    """Nothing of it is installed, and no path is set: as on a machine that is lent for some minutes."""
    begin = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1]); [importlib.import_module(n) for n in sys.argv[2:]]"
    )
    beside = {"vivace", *(path.stem for path in BENCHMARKS.iterdir())}
    done = on_a_bare_machine(tmp_path, begin, str(BENCHMARKS), *scripts, beside=beside)
    assert done.returncode == 0, done.stderr
