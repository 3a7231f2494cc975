"""Keys and passwords, kept out of all that is printed or recorded: the one place that knows what to look for.

A key that stands in the environment or in `.env` is found wherever it appears, also percent-encoded, escaped, in
base64, or in part. Of keys that are not ours, and of passwords in addresses, the place where they stand tells.
"""

from __future__ import annotations

import base64
import html
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TextIO, cast
from urllib.parse import unquote

SHORTEST = 8
"""Characters of a key that is looked for everywhere; a shorter one would be found in honest words."""
LONGEST_PART = 12
"""Characters at a key's beginning or end by which a part of it is known; of short keys half of them do."""
STRIDE = 8
"""At every so many characters a part from a key's middle may begin; what stays before it is shorter."""

_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|PASS$|CREDENTIAL|AUTH$|AUTHORIZATION", re.IGNORECASE)
_NO_SECRET = re.compile(
    r"^VIVACE_(?!TOKEN$)|TOKENIZER|TOKENS$|(FILE|PATH|DIR|FOLDER|URL|URI|HOST|SOCK)$", re.IGNORECASE
)

_SECRET_PARAMETER = re.compile(
    r"(api|access|secret|private|subscription|account|auth)keys?$|passw|passphrase|secret|credential|authorization|cookie"
    r"|bearer|(api|auth|access|id|refresh|session|security|personal|hf|user)token$"
)
_SECRET_WORDS = frozenset({"auth", "key", "pass", "pwd", "token"})

_REST = r"(?:[\w*…+/=~-]|\.(?=[\w*.]))*"
"""What follows the beginning of a key and belongs to it, stars that a server puts there among it."""

_PLACES = (
    # The password of an address as it should be written, then one with characters that it should not hold.
    (re.compile(r"(?<=://)([^\s/?#'\"@:]{0,99}:)[^\s/?#'\"@]{1,300}(?=@)"), r"\1***"),
    (re.compile(r"(?<=://)([^\s/?#'\"@:]{1,99}:)(?!\d{1,5}(?:[/?#]|$))[^\s'\"]{1,300}(?=@)"), r"\1***"),
    (re.compile(r"(?<=://)[^\s/?#'\"@:]{20,300}(?=@)"), "***"),  # a token before the host, without a name
    (
        re.compile(
            r"(?<![\w-])((?:ssl)?pass(?:word|wd)|pwd|(?:x[-_])?(?:api|access|secret|subscription)[-_]?key|(?:access|auth)"
            r"[-_]?token|client[-_]?secret)([\"']?\s*[=:]\s*)"
            r"(\[\w+\]|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&,;'\"})\]]+)",
            re.IGNORECASE,
        ),
        r"\1\2***",
    ),
    (re.compile(r"\b(authorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?)[\w.~+/=-]{8,}", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(bearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), r"\1***"),
    (re.compile(r"\bvivace_[\w-]{40,}"), "[token]"),
    (re.compile(r"\bsk-[A-Za-z0-9_*-]{6,}"), "[key]"),
    (re.compile(r"\b(?:gsk_|xai-|hf_|ghp_|github_pat_|glpat-|AIza|AKIA)(?=\w*\d)[\w-]{12,}"), "[key]"),
)
"""Where secrets stand that are in no variable, with what is put there."""

_PLAIN_WORD = re.compile(r"[a-z]{1,15}|[A-Z]{1,15}")
"""What is given as a key to a server that asks for none (`placeholder`): no secret, and found in honest words."""

_noted: set[str] = set()
"""Passwords that came another way than in a variable of their own: in an address."""


def masked(text: str) -> str:
    """A message without keys and passwords, known ones and those that only look like it."""
    text = without_keys(text)
    for pattern, mask in _PLACES:
        text = pattern.sub(mask, text)
    return text


def without_keys(text: str) -> str:
    """A text without any key that this process knows, each replaced by its variable's name in brackets.

    What a model or a person wrote stays as it is but for that.
    """
    if len(text) < SHORTEST:
        return text
    return _masker(_known())(text)


def without_keys_inside(value: Any) -> Any:
    """A value as JSON can hold it, its texts without any key that this process knows."""
    if isinstance(value, str):
        return without_keys(value)
    if isinstance(value, dict):
        return {without_keys_inside(key): without_keys_inside(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_keys_inside(each) for each in value]
    return value


def is_named_like_secret(name: str) -> bool:
    """Whether a parameter's name says that it holds a key or password."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return plain in _SECRET_WORDS or _SECRET_PARAMETER.search(plain) is not None


def note_password(password: str | None, *beside: str | None) -> None:
    """Look for this password, too, from now on.

    Args:
        password: as it stands in an address, decoded.
        beside: the names that stand with it; a password that is one of them hides nothing.
    """
    if password and len(password) >= SHORTEST and password not in beside:
        _noted.add(password)


def _known() -> tuple[tuple[str, str], ...]:
    """Variable and value of each key, from the environment and `.env`."""
    found = dict.fromkeys(_noted, "password")
    given = [(name, os.environ[name]) for name in os.environ if _is_secret(name)]
    for name, value in (*_in_file(), *given):
        value = value.strip().strip("\"'").strip()
        if len(value) >= SHORTEST and "://" not in value and not _PLAIN_WORD.fullmatch(value):
            found[value] = name
    return tuple(sorted((name, value) for value, name in found.items()))


@cache
def _is_secret(name: str) -> bool:
    return _NAME.search(name) is not None and _NO_SECRET.search(name) is None


def _in_file() -> tuple[tuple[str, str], ...]:
    try:
        status = os.stat(".env")  # noqa: PTH116 -- at every text that is recorded, and a Path costs more than the call
    except OSError:
        return ()
    return _keys_of_file(str(Path(".env").absolute()), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _keys_of_file(path: str, changed: int, size: int) -> tuple[tuple[str, str], ...]:
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple((name, value) for name, value in values.items() if value and _is_secret(name))


@lru_cache(maxsize=8)
def _masker(known: tuple[tuple[str, str], ...]) -> Callable[[str], str]:
    """What replaces these keys in a text."""
    forms = [_forms(value) for _, value in known]
    # A key's forms begin with one of these words, and looking for words is a hundred times faster than for patterns.
    words = tuple({word for each in forms for word in each})
    patterns = [
        "|".join(re.escape(word) + rest for word, rest in sorted(each.items(), key=lambda form: -len(form[0])))
        for each in forms
    ]
    pattern = re.compile("|".join(f"(?P<k{place}>{each})" for place, each in enumerate(patterns)))

    def mask(found: re.Match[str]) -> str:
        return f"[{known[int(str(found.lastgroup)[1:])][0]}]"

    def plainly(text: str) -> str:
        return pattern.sub(mask, text) if any(word in text for word in words) else text

    def decoded(word: re.Match[str]) -> str:
        for decode in (_percent_decoded, _unescaped, html.unescape):
            plain = decode(word[0])
            if plain != word[0] and (found := plainly(plain)) != plain:
                return found
        return word[0]

    def apply(text: str) -> str:
        return plainly(re.sub(r"\S+", decoded, text) if words and _ENCODED.search(text) else text)

    return apply


def _forms(key: str) -> dict[str, str]:
    """How a key can stand in a text: whole, a part of it, and what base64 makes of it at any place.

    Returns:
        For each form the word by which it begins, and an expression for what follows.
    """
    part = min(LONGEST_PART, max(SHORTEST, len(key) // 2))
    forms = {key: "", key[:part]: _REST, key[-part:]: ""}
    if not re.search(r"\s", key):  # a file that stands in a variable has ordinary words in its middle
        forms |= {key[place : place + part]: _REST for place in range(STRIDE, len(key) - part, STRIDE)}
    content = key.encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + content).decode()
        core = encoded[-(-before * 8 // 6) : (before + len(content)) * 8 // 6]
        forms |= {core: "", core.replace("+", "-").replace("/", "_"): ""}
    return forms


def _percent_decoded(text: str) -> str:
    for _ in range(3):  # a text that was encoded and then sent in an address
        text = unquote(text)
    return text


def _unescaped(text: str) -> str:
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), text)
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda code: chr(int(code[1], 16)), text).replace("\\", "")


_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}|\\[\\/\"ux]|&#?\w{1,8};")
"""What a text that is written in other characters holds."""


@contextmanager
def masked_output() -> Iterator[None]:
    """While the context lasts, nothing is printed with keys or passwords in it, whoever prints."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _MaskedStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _MaskedStream:
    """A stream of text as the one that it stands before, but for what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Print a text."""
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Print texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
