"""The house itself: its folders, its layers, its wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "platform" / "vivace" / "zoo" / "weights"
SOURCE_ROOTS = ("platform", "methods", "kernels", "rubrics", "app", "migrations")


def modules() -> list[Path]:
    """Every Python file of the six packages, and of the tests."""
    found = [path for folder in (*SOURCE_ROOTS, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    return [path for path in found if ".cache" not in path.parts]  # another environment, which a benchmark builds


@pytest.mark.parametrize("folder", SOURCE_ROOTS)
def test_a_source_root_is_no_package(folder: str) -> None:
    """`platform` would shadow the standard library's, `kernels` the package that transformers imports."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_the_standard_librarys_platform_wins_where_python_starts_at_the_root() -> None:
    script = "import platform; assert platform.python_version(); print(platform.__file__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert str(ROOT / "platform") not in done.stdout


@pytest.mark.parametrize("name", ["kernels", "methods", "rubrics", "app", "migrations"])
def test_a_source_root_is_not_importable_by_its_own_name(name: str, tmp_path: Path) -> None:
    script = f"import {name}; print({name}.__file__ or 'a folder')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert str(ROOT) not in done.stdout and "a folder" not in done.stdout


def test_the_layers_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    if not Path(command[0]).exists():
        pytest.skip("import-linter is not installed")
    if find_spec("vivace_app") is None:
        pytest.skip("the app is not here yet")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_begins_with_a_sentence_about_itself(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if source.strip():
        docstring = ast.get_docstring(ast.parse(source))
        assert docstring and docstring.strip()[-1] in ".:?", path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in the wheel that pip builds."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed, and there is no network to fetch it from")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built).namelist()


def test_the_wheel_holds_what_runs_without_the_checkout(wheel: list[str]) -> None:
    data = {f"vivace/demo/{path.relative_to(ROOT / 'platform/vivace/demo')}" for path in demo_files()}
    migrations = {f"vivace_migrations/versions/{path.name}" for path in versions()}
    typed = {f"{package}/py.typed" for package in ("vivace", "vivace_rubrics", "vivace_methods", "vivace_kernels")}
    zoo = {f"vivace/zoo/weights/{path.relative_to(WEIGHTS)}" for path in WEIGHTS.rglob("*") if path.is_file()}
    assert data | migrations | typed | zoo <= set(wheel)
    assert "vivace/zoo/weights/moe/model.safetensors" in zoo
    assert "vivace_migrations/env.py" in wheel


def test_the_wheel_holds_nothing_else(wheel: list[str]) -> None:
    packages = ("vivace", "vivace_methods", "vivace_kernels", "vivace_rubrics", "vivace_app", "vivace_migrations")
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} <= set(packages)
    assert not [name for name in wheel if "__pycache__" in name or name.endswith((".db", ".pyc"))]


def demo_files() -> list[Path]:
    """The demo's data."""
    return [
        path
        for path in (ROOT / "platform" / "vivace" / "demo").rglob("*")
        if path.suffix in (".parquet", ".jsonl", ".yaml")
    ]


def versions() -> list[Path]:
    """The migrations."""
    return list((ROOT / "migrations" / "vivace_migrations" / "versions").glob("[0-9]*.py"))


def test_there_is_demo_data_and_there_are_migrations() -> None:
    assert len(demo_files()) >= 7 and len(versions()) >= 2
