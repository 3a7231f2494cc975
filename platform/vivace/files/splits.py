"""Which split of a dataset a file belongs to, told by its name and those of its folders, as datasets are laid out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vivace.errors import UsageError

SPLITS = {
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "train": "train",
    "training": "train",
}
"""The words that name a split, and the split."""


def data_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files of a folder that end so, in the order of their names; hidden ones are none of them."""
    found = (each for each in folder.rglob("*") if each.suffix.lower() in set(suffixes) and each.is_file())
    return sorted(each for each in found if not any(part[0] == "." for part in each.relative_to(folder).parts))


def files_of_split(folder: Path, files: Sequence[Path], split: str) -> list[Path]:
    """Those of a folder's files that belong to a split: all of them where none names one.

    A file belongs to the split that its name has a word for (`test-00000-of-00001`, `Valid.jsonl`), else to the one
    that its nearest folder has (`train/0000.parquet`).

    Args:
        folder: what is named; its own name does not count.
        files: in it.
        split: one of the words of `SPLITS`. Where words for the same split stand beside each other, as `dev` and
            `validation`, it is that very one.

    Raises:
        UsageError: no file belongs to it, or which do cannot be told.
    """
    words = {file: _words_of(file.relative_to(folder)) for file in files}
    named = [file for file in files if words[file]]
    if not named:
        return list(files)
    for file in files:
        if not words[file]:
            raise UsageError(
                f"'{file}' names no split, while '{named[0]}' names {_listed(words[named[0]])}: which of both are "
                "meant cannot be told. Give the file or the folder that is meant."
            )
        if len({SPLITS[word] for word in words[file]}) > 1:
            raise UsageError(f"'{file}' names the splits {_listed(words[file])}; give the file that is meant itself.")
    found = [file for file in named if {SPLITS[word] for word in words[file]} == {SPLITS[split]}]
    spellings = {word for file in found for word in words[file]}
    if len(spellings) > 1 and split in spellings:
        found = [file for file in found if split in words[file]]
    elif len(spellings) > 1:
        raise UsageError(f"'{folder}' holds {_listed(spellings)}; give the folder or file that is meant.")
    if not found:
        there = _listed({word for file in named for word in words[file]})
        raise UsageError(f"There is no {split} split at '{folder}' (split {split}), but {there}; give what is meant.")
    return found


def patterns_of_others(split: str) -> list[str]:
    """What the names of other splits' files look like, whole or in a folder, for those who list what not to fetch."""
    patterns = []
    for word in (word for word, other in SPLITS.items() if other != SPLITS[split]):
        spelled = "".join(f"[{letter}{letter.upper()}]" for letter in word)
        patterns += [f"{folder}{spelled}{rest}" for folder in ("", "*/") for rest in ("[-_. 0-9]*", "/*")]
    return patterns


def _words_of(path: Path) -> set[str]:
    """The words for splits in a file's name, else in that of its nearest folder that has one."""
    for part in (path.stem, *reversed(path.parent.parts)):
        found = set(re.findall(r"[a-z]+", part.lower())) & set(SPLITS)
        if found:
            return found
    return set()


def _listed(words: Iterable[str]) -> str:
    return " and ".join(sorted(words))
