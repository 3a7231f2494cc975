"""Comparing what other tools recorded: two evaluations of the same questions, paired by what was asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vivace.analysis.comparison import Correction, adjusted_p_values
from vivace.errors import UsageError
from vivace.interchange.inspect_logs import read_inspect_log
from vivace.interchange.lm_eval_samples import read_lm_eval_samples
from vivace.interchange.samples import SampleFile, TriedSample
from vivace.output.short_names import distinct
from vivace.statistics.paired import Difference, exact_flips, mean_difference, rate_difference
from vivace.statistics.permutation import sign_flip_p_value

READERS: dict[str, Callable[[Path, str | None], SampleFile]] = {
    ".eval": read_inspect_log,
    ".json": read_inspect_log,
    ".jsonl": read_lm_eval_samples,
}
"""How a file is called → who reads it."""
MOST_NAMED = 3
"""Samples that a message names."""


@dataclass(frozen=True)
class FileRow:
    """One file against the first.

    Attributes:
        score: what was compared: the score, or the same as the tool itself counts it.
        kind: `binary` (each value 0 or 1, one try), `rate` (0 to 1) or `number`.
        difference: with `test`'s p-value.
        test: `exact McNemar` or `permutation`.
        flips: samples that came out differently, those that differ most first.
    """

    a: SampleFile
    b: SampleFile
    name_a: str
    name_b: str
    score: str
    kind: str
    difference: Difference
    test: str
    flips: list[dict[str, Any]]
    p_adjusted: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The row, flat."""
        figures = {key: value for key, value in vars(self.difference).items() if key not in ("a", "b")}
        return {
            "a": self.name_a,
            "b": self.name_b,
            "file_a": str(self.a.path),
            "file_b": str(self.b.path),
            "score": self.score,
            "kind": self.kind,
            "value_a": self.difference.a,
            "value_b": self.difference.b,
            "difference": self.difference.value,
            **figures,
            "p_adjusted": self.p_adjusted,
            "test": self.test,
        }


@dataclass(frozen=True)
class FileComparison:
    """Files compared with the first of them.

    Attributes:
        rows: one for each further file, and one more where the tool itself counts otherwise.
        files: what is in each, in the order in which they were given.
        notes: what was left out, and why.
    """

    rows: list[FileRow]
    files: list[SampleFile]
    notes: list[str] = field(default_factory=list)


def is_sample_file(argument: str) -> bool:
    """Whether an argument of `compare` is a file of another tool's, and no judging."""
    return Path(argument).suffix in READERS or Path(argument).is_file()


def compare_files(
    paths: Sequence[Path],
    *,
    score: str | None = None,
    more_is_better: bool | None = None,
    correction: Correction = "holm",
    force: bool = False,
) -> FileComparison:
    """Each further file against the first, on the samples that both scored.

    Samples are paired by what was asked: tools number them after shuffling. One that was tried several times counts
    as the mean of its tries.

    Args:
        paths: of files of one tool, at least two.
        score: as the tool names it; None where there is only one.
        more_is_better: None for what the files say; where they say nothing, more is better.
        correction: of the p-values, which are one family.
        force: compare what was asked alike although other samples of the same id differ, or the scores do.

    Raises:
        UsageError: fewer than two files, one that cannot be read, files of different tools, tasks or scores, or that
            ask different things under one id, or nothing in common.
    """
    if len(paths) < 2:
        raise UsageError("A comparison takes two or more files.")
    files = [_read(path, score) for path in paths]
    first, *others = files
    _check_alike(files, force)
    names = distinct(
        [each.model or each.path.stem for each in files],
        ([each.task for each in files], [each.path.stem for each in files], [str(each.path) for each in files]),
    )
    sign = -1 if more_is_better is False or (more_is_better is None and first.more_is_better is False) else 1
    rows, notes = [], [f"{each.path.name}: {note}" for each in files for note in each.notes]
    for other, name in zip(others, names[1:], strict=True):
        matched, said = _matched(first, other, force)
        notes += said
        row = _row(first, other, names[0], name, matched, sign)
        rows.append(row)
        counted = _as_counted(matched)
        if counted:
            rows.append(
                replace(_row(first, other, names[0], name, counted, sign), score=f"as {first.tool} counts it")
            )
    adjusted = adjusted_p_values([row.difference for row in rows], correction)
    rows = [replace(row, p_adjusted=p) for row, p in zip(rows, adjusted, strict=True)]
    return FileComparison(rows, files, notes)


def _read(path: Path, score: str | None) -> SampleFile:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise UsageError(
            f"'{path}' is no file that can be compared: logs of inspect end in .eval or .json, samples of lm-eval in "
            ".jsonl."
        )
    if not path.is_file():
        raise UsageError(f"There is no file '{path}'.")
    return reader(path, score)


def _check_alike(files: Sequence[SampleFile], force: bool) -> None:
    first = files[0]
    for other in files[1:]:
        if other.tool != first.tool:
            raise UsageError(
                f"'{first.path}' is of {first.tool} and '{other.path}' of {other.tool}: they score apart."
            )
        differing = [
            f"{what} {getattr(first, what)} and {getattr(other, what)}"
            for what in (("score",) if first.tool == "inspect" else ("task", "score"))
            if getattr(first, what) != getattr(other, what)
        ]
        if differing and not force:
            raise UsageError(
                f"'{first.path}' and '{other.path}' differ in {'; '.join(differing)}: name the score with --score, "
                "or compare them all the same with --force."
            )


def _matched(a: SampleFile, b: SampleFile, force: bool) -> tuple[list[tuple[TriedSample, TriedSample]], list[str]]:
    """Samples of both files that asked the same, and what was left out.

    Raises:
        UsageError: files that ask different things under one id, or have nothing in common.
    """
    first, second = _by_question(a), _by_question(b)
    foreign = [
        id
        for id in a.samples.keys() & b.samples.keys()
        if a.samples[id].asked != b.samples[id].asked
        and (a.samples[id].asked not in second or b.samples[id].asked not in first)
    ]
    if foreign and not force:
        named = ", ".join(sorted(foreign)[:MOST_NAMED])
        raise UsageError(
            f"'{a.path}' and '{b.path}' ask different things under the same id, or expect other answers, in "
            f"{len(foreign)} of {len(a.samples)} samples (id {named}); --force compares those that both ask alike."
        )
    common = [asked for asked in first if asked in second]
    if not common:
        raise UsageError(f"'{a.path}' and '{b.path}' ask nothing in common.")
    notes = []
    renumbered = sum(first[asked].id != second[asked].id for asked in common)
    if renumbered:
        notes.append(f"{renumbered} samples have other ids in {b.path.name}; they are paired by what was asked")
    for file, its, other in ((a, first, second), (b, second, first)):
        alone = len(its.keys() - other.keys())
        again = len(file.samples) - len(its)
        if alone:
            notes.append(f"{alone} samples of {file.path.name} are not in the other file, and are left out")
        if again:
            notes.append(f"{again} samples of {file.path.name} ask what another one asks, and count as its tries")
    pairs = [(first[asked], second[asked]) for asked in common]
    scored = [(one, other) for one, other in pairs if one.value is not None and other.value is not None]
    if not scored:
        raise UsageError(f"No sample is scored in both '{a.path}' and '{b.path}'.")
    if len(scored) < len(pairs):
        notes.append(f"{len(pairs) - len(scored)} samples have no score in {a.path.name} or {b.path.name}")
    return pairs, notes


def _by_question(file: SampleFile) -> dict[str, TriedSample]:
    """What was asked → its sample, those that ask the same joined as tries of one."""
    found: dict[str, list[TriedSample]] = defaultdict(list)
    for sample in file.samples.values():
        found[sample.asked].append(sample)
    return {
        asked: alike[0]
        if len(alike) == 1
        else replace(alike[0], outcomes=tuple(outcome for each in alike for outcome in each.outcomes))
        for asked, alike in found.items()
    }


def _as_counted(pairs: Sequence[tuple[TriedSample, TriedSample]]) -> list[tuple[TriedSample, TriedSample]]:
    """The samples with the values that the tool itself counts, where these are others."""

    def counted(sample: TriedSample) -> TriedSample:
        return replace(sample, outcomes=tuple(replace(each, value=each.counted) for each in sample.outcomes))

    changed = [(counted(one), counted(other)) for one, other in pairs]
    return changed if changed != list(pairs) else []


def _row(
    a: SampleFile,
    b: SampleFile,
    name_a: str,
    name_b: str,
    pairs: Sequence[tuple[TriedSample, TriedSample]],
    sign: int,
) -> FileRow:
    scored = [(one, other) for one, other in pairs if one.value is not None and other.value is not None]
    values = [(one.value or 0.0, other.value or 0.0) for one, other in scored]
    tries = Counter(sum(each.value is not None for each in sample.outcomes) for pair in scored for sample in pair)
    is_rate = all(0 <= value <= 1 for pair in values for value in pair)
    is_binary = is_rate and set(tries) == {1} and all(value in (0, 1) for pair in values for value in pair)
    test = exact_flips if is_binary else sign_flip_p_value
    found = rate_difference(values, test) if is_rate else mean_difference(values, test)
    assert found is not None  # there is a sample
    if sign < 0:
        found = replace(found, gained=found.lost, lost=found.gained)
    flips = [
        {"a": one.id, "b": other.id, "value_a": value_a, "value_b": value_b, "text": one.text}
        for (one, other), (value_a, value_b) in zip(scored, values, strict=True)
        if value_a != value_b
    ]
    return FileRow(
        a, b, name_a, name_b, a.score, "binary" if is_binary else "rate" if is_rate else "number", found,
        "exact McNemar" if is_binary else "permutation",
        sorted(flips, key=lambda flip: -abs(flip["value_b"] - flip["value_a"])),
    )  # fmt: skip
