"""No file imports itself by way of others, whenever the import is executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

PACKAGES = ("vivace", "vivace_methods", "vivace_kernels", "vivace_rubrics", "vivace_app", "vivace_migrations")


def circles(imports: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The groups of files of which each imports every other, directly or not.

    Args:
        imports: file → those that it imports.
    """
    reached = {name: _reached(name, imports) for name in imports}
    found = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in imports}
    return sorted(list(group) for group in found if group)


def _reached(start: str, imports: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(imports[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(imports[name])
    return found


def test_no_file_imports_itself_by_way_of_others() -> None:
    """All imports count: those inside functions, and those for type checkers alone."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert circles(imports) == []


def test_a_circle_is_found_by_any_way_round() -> None:
    imports = {"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a", "e"], "e": ["d"], "f": ["f"]}
    assert circles(imports) == [["b", "c"], ["d", "e"], ["f"]]
