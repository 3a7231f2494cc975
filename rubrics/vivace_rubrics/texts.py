"""What counts as text: what a database can hold, what a reader can see, and a reply without its writer's thoughts."""

from __future__ import annotations

import re
import unicodedata

_THOUGHT_TAG = re.compile(r"<(?P<closes>/)?think(?:ing)?>|\[(?P<bracket>/)?THINK\]", re.IGNORECASE)
_LOOKS_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\ufffd") | {
    chr(number) for first, last in ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF)) for number in range(first, last + 1)
}
"""Letters and marks of Unicode that show nothing (fillers, joiners, variation selectors), and the character that
stands where none could be read."""


def storable(text: str) -> str:
    """The text without what no database takes: halves of characters and NUL become the replacement character.

    JSON can spell both, and servers that cut a stream in the middle of an emoji do; the two halves of one
    are joined again.
    """
    if text.isascii() and "\x00" not in text:
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return joined.replace("\x00", "\ufffd")


def is_blank(text: str) -> bool:
    """Whether a reader would see nothing: no characters, or only blanks, controls and invisible ones."""
    return not any(map(_is_visible, text))


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in ("Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Cn") and (
        character not in _LOOKS_BLANK
    )


def without_thoughts(text: str) -> str:
    """What a model says, without what it wrote down to think before.

    While a text begins with `<think>`, or a `</think>` comes before any `<think>` (chat templates put the opening
    one into the prompt), everything up to that `</think>` is thought. One that is never closed is thought to the
    end, and a `<think>` after the first words belongs to what is said. `<thinking>` and `[THINK]` are the same, in
    upper or lower case. A text without thoughts stays as it is.
    """
    start = 0
    while (tag := _THOUGHT_TAG.search(text, start)) is not None:
        if not _closes(tag):
            if not is_blank(text[start : tag.start()]):
                break
            closing = (found for found in _THOUGHT_TAG.finditer(text, tag.end()) if _closes(found))
            tag = next(closing, None)
            if tag is None:
                return ""
        start = tag.end()
    return text[start:].strip() if start else text


def _closes(tag: re.Match[str]) -> bool:
    return tag["closes"] is not None or tag["bracket"] is not None
