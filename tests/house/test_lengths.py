"""Functions and files are short enough to be seen whole, or say beside them why they are not.

A function that must be longer has a line `# Long because …` right above its `def` or its first decorator, a file has
one among its first lines. Docstrings don't count; migrations and kernels are what they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("platform", "methods", "rubrics", "app", "benchmarks")

FUNCTION, FILE = 60, 500
"""Lines, docstrings aside."""
HEAD = 40
"""Lines of a file that are its first."""
REASON = re.compile(r"\s*# Long because \w.+")


def too_long(source: str) -> Iterator[str]:
    """What is longer than it may be and gives no reason: `the file`, or a function's name."""
    lines, tree = source.splitlines(), ast.parse(source)
    if len(lines) - _docstrings(tree) > FILE and not any(map(REASON.fullmatch, lines[:HEAD])):
        yield "the file"
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert node.end_lineno is not None
        begins = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        is_long = node.end_lineno - node.lineno + 1 - _docstrings(node) > FUNCTION
        if is_long and not (begins > 1 and REASON.fullmatch(lines[begins - 2])):
            yield node.name


def _docstrings(tree: ast.AST) -> int:
    """Lines of texts that do nothing: docstrings, also those of attributes."""
    texts = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    return sum((text.end_lineno or text.lineno) - text.lineno + 1 for text in texts)


def test_what_is_long_says_why() -> None:
    files = [
        path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if ".cache" not in path.parts
    ]
    found = {f"{path.relative_to(ROOT)}: {name}" for path in files for name in too_long(path.read_text("utf-8"))}
    assert found == set()


def function(lines: int, above: str = "", docstring: int = 0) -> str:
    texts = ['    """', *["    words"] * docstring, '    """'] if docstring else []
    return "\n".join([above, "def long() -> None:", *texts, *["    print()"] * (lines - 1)])


def test_a_function_is_measured_without_its_docstring_and_may_give_a_reason() -> None:
    assert list(too_long(function(60, docstring=30))) == []
    assert list(too_long(function(61))) == ["long"]
    assert list(too_long(function(61, "# Long because each line is another field."))) == []
    assert list(too_long(function(61, "# Long because each line is another field.\n"))) == ["long"], "not right above"
    assert list(too_long(function(61, "# Long because\n@decorated"))) == ["long"], "no reason"
    assert list(too_long(function(61, "# Long because each line is another field.\n@decorated"))) == []


def test_a_file_is_measured_without_docstrings_and_may_give_a_reason() -> None:
    text = '"""A file.\n' + "\n" * 90 + '"""\n'
    assert list(too_long(text + "x = 1\n" * 500)) == []
    assert list(too_long(text + "x = 1\n" * 501)) == ["the file"]
    assert list(too_long("# Long because it is one table.\n" + "x = 1\n" * 501)) == []
