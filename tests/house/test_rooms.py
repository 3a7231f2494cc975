"""No folder of the source has grown past what one sees at a glance, or it says here why."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("platform", "methods", "kernels", "rubrics", "app", "migrations", "benchmarks")

MOST = 15
"""Python files side by side, `__init__.py` among them."""
REASONS = {
    "benchmarks": "each is a command that docs and results name; what they share is in rooms beside them",
    "migrations/vivace_migrations/versions": "the history of the schema, in order: nobody looks for a room in it",
}


def test_a_folder_past_fifteen_files_is_parted() -> None:
    files = [
        path.relative_to(ROOT)
        for each in FOLDERS
        for path in (ROOT / each).rglob("*.py")
        if ".cache" not in path.parts
    ]
    folders = {path.parent for path in files}
    crowded = {str(folder) for folder in folders if sum(path.parent == folder for path in files) > MOST}
    assert crowded == set(REASONS), "part it by what a newcomer would look for, or write the reason here"
