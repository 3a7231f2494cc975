"""One word for one thing: no two public classes bear one name, but for those that mean one thing in two places."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

CLASS = re.compile(r"^ *class (?!_)(\w+)", re.MULTILINE)
ROOT = Path(__file__).parents[2]
PACKAGES = (
    "platform/vivace",
    "methods/vivace_methods",
    "kernels/vivace_kernels",
    "rubrics/vivace_rubrics",
    "app/vivace_app",
)
TABLES = "platform/vivace/store/tables/"
"""A table bears the name of what its rows hold."""
ANSWERED = "platform/vivace/api/"
"""What the API takes and gives bears the name of what it shows, and never meets it in one file."""


def test_no_two_classes_have_one_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in (each for package in PACKAGES for each in (ROOT / package).rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        for name in CLASS.findall(path.read_text(encoding="utf-8")):
            found[name].append(place)
    for name, places in found.items():
        apart = [place for place in places if not place.startswith((TABLES, ANSWERED))]
        assert len(apart) < 2, f"{name} is the name of several things: {', '.join(apart)}"


def test_no_two_modules_of_the_methods_have_one_name() -> None:
    """But for a method and its drafter, and what each room calls its common ground, its settings and its registry."""
    shared = {"__init__.py", "base.py", "registry.py", "settings.py", "eagle3.py"}
    found: dict[str, list[str]] = defaultdict(list)
    for path in (ROOT / "methods").rglob("*.py"):
        found[path.name].append(path.relative_to(ROOT).as_posix())
    assert not {name: places for name, places in found.items() if len(places) > 1 and name not in shared}
