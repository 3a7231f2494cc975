"""Reading what people wrote: files of text and YAML, in bounded time and memory, each fault as one sentence."""

from __future__ import annotations

import codecs
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from vivace.errors import UsageError
from vivace_rubrics.json_text import DEEPEST, parse_report

JSON_SUFFIXES = (".jsonl", ".json")
"""Of files with rows of JSON: lines or a list, whichever of the two names they bear."""
LONGEST_TEXT = 1_000_000
"""Bytes of a file that a person writes: a spec, a card, a prompt."""
LONGEST_ROWS = 2**29
"""Bytes of a file that a program writes: replies, labels, questions, texts without their recordings."""
MOST_VALUES = 50_000
"""Values of a YAML text once its aliases are written out: ten anchors of ten aliases each would be ten billion."""
LONGEST_PLAIN = 1_000
"""Characters of a number or a date."""


def read_text(path: Path, what: str, longest: int = LONGEST_TEXT) -> str:
    """The text of a file, without a byte order mark.

    Args:
        path: the file.
        what: what a message calls it.
        longest: in bytes.

    Raises:
        UsageError: it is missing, no file, unreadable, too long, or neither UTF-8 nor marked as UTF-16.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(longest + 1)
            is_file = stat.S_ISREG(path.stat().st_mode)
        text = _decoded(content)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The {what} '{path}' cannot be read ({reason}).") from error
    if len(content) > longest:
        size = f"has {path.stat().st_size:,} bytes" if is_file else "does not end"
        raise UsageError(f"The {what} '{path}' {size}; at most {longest:,} are read.")
    return text


def _decoded(content: bytes) -> str:
    """UTF-8 with or without a byte order mark, and UTF-16 with one, as some shells write it."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if marked else "utf-8-sig")


def json_rows(path: Path, what: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file, be they JSON lines or a JSON list, each with its place: `Line 3 of the data 'a.jsonl'`.

    Args:
        path: the file; what it is called does not matter.
        what: what a message calls it.

    Raises:
        UsageError: the file cannot be read or is empty, or one of its rows is no JSON object.
    """
    kind, values = parse_rows(read_text(path, what, LONGEST_ROWS))
    rows = []
    for number, value in values:
        place = f"{kind} {number} of the {what} '{path}'"
        if isinstance(value, ValueError):
            raise UsageError(f"{place} is not JSON ({value}).") from value
        if not isinstance(value, dict):
            raise UsageError(f"{place} is not a JSON object.")
        rows.append((place, value))
    if not rows:
        raise UsageError(f"The {what} '{path}' is empty.")
    return rows


def parse_rows(text: str) -> tuple[str, list[tuple[int, Any]]]:
    """The values of JSON lines, of a JSON list of objects, or the one of a JSON object over several lines.

    Returns:
        What a value's number counts, `Line` or `Row`, and the values by their numbers from 1. For a line that cannot
        be read there is the `ValueError` that says why; blank lines are left out.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 or text.lstrip().startswith("["):
        first = _tried(lines[0][1])
        if isinstance(first, ValueError | list):
            whole_text = _tried(text)
            if isinstance(whole_text, list) and any(isinstance(each, dict) for each in whole_text):
                return "Row", list(enumerate(whole_text, start=1))
            if isinstance(whole_text, dict):
                return "Row", [(1, whole_text)]
    return "Line", [(number, _tried(line)) for number, line in lines]


def _tried(text: str) -> Any:
    try:
        return parse_report(text)
    except ValueError as error:
        return error


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file.

    Raises:
        UsageError: it is missing, unreadable, empty or not YAML.
    """
    text = read_text(path, what)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise UsageError(f"The {what} '{path}' is not YAML ({error}).") from error
    if content is None:
        raise UsageError(f"The {what} '{path}' is empty.")
    return content


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is none, nested too deep, unfolds into too much, has a key twice, or holds what is no text,
            number or date; the message says which, to stand in brackets.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error
    except (AttributeError, LookupError, OverflowError) as error:  # what PyYAML makes of `!!timestamp soon`
        raise ValueError("a value in it is not what its tag says") from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, within bounds."""

    _depth = 0
    _values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node with all that is in it."""
        self._depth += 1
        self._values += 1
        if self._depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        if self._values > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_document(self, node: yaml.Node) -> Any:
        """The value of a text's nodes, which are looked through before anything is made of them."""
        for number, (depth, each) in enumerate(_unfolded(node)):
            if number >= MOST_VALUES or depth > DEEPEST:
                raise ValueError(f"its aliases unfold into more than {MOST_VALUES:,} values or {DEEPEST} levels")
            if isinstance(each, yaml.ScalarNode):
                _mend_scalar(each)
            elif isinstance(each, yaml.MappingNode):
                _check_keys(each)
        return super().construct_document(node)


def _unfolded(node: yaml.Node) -> Iterator[tuple[int, yaml.Node]]:
    """Every node with its depth, one that aliases point to as often as they do."""
    waiting = [(1, node)]
    while waiting:
        depth, each = waiting.pop()
        yield depth, each
        if isinstance(each, yaml.SequenceNode):
            waiting += [(depth + 1, inner) for inner in each.value]
        elif isinstance(each, yaml.MappingNode):
            waiting += [(depth + 1, inner) for pair in each.value for inner in pair]


def _check_keys(node: yaml.MappingNode) -> None:
    """See that no key stands twice, of which PyYAML would take the last without a word.

    Raises:
        ValueError: one does.
    """
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            raise ValueError(f"{key.start_mark.line + 1}. line: the key {key.value!r:.60} stands twice")
        seen.add(key.value)


def _mend_scalar(node: yaml.ScalarNode) -> None:
    """Join the two halves of characters that JSON's way of writing leaves apart.

    Raises:
        ValueError: a half has no other, or what is no text is as long as one.
    """
    if not node.tag.endswith(":str") and len(node.value) > LONGEST_PLAIN:
        raise ValueError(f"a number or date in it has {len(node.value):,} characters")
    try:
        node.value = whole(node.value)
    except ValueError as error:
        raise ValueError(f"{node.start_mark.line + 1}. line: {error}") from error


def whole(text: str) -> str:
    """A text in which the two halves that make one character are joined.

    Raises:
        ValueError: a half has no other: it could be neither printed, stored nor sent.
    """
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ValueError("there is half of a character in it") from None
