"""Results of other tools into the store: read in whichever form, checked, and recorded once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.interchange.eval_results import read_hub_results
from vivace.interchange.every_eval_ever_records import read_every_eval_ever
from vivace.interchange.foreign_items import read_foreign_items
from vivace.interchange.forms import Form
from vivace.interchange.inspect_logs import read_inspect_scores
from vivace.interchange.lm_eval_results import read_lm_eval_results
from vivace.interchange.provenance import moment
from vivace.interchange.samples import SampleFile
from vivace.output.printable import json_text
from vivace.statistics.intervals import clustered_ratio, mean_interval, wilson
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.identifiers import FOREIGN
from vivace.store.records import insert_new
from vivace.store.tables import ForeignOutcome, ForeignResult
from vivace.store.visibility import THE_OPERATORS, Ownership

READERS: dict[Form, Callable[[Sequence[Path], str | None], list[SampleFile]]] = {
    Form.LM_EVAL: lambda paths, _: read_lm_eval_results(paths),
    Form.INSPECT: lambda paths, _: [score for path in paths for score in read_inspect_scores(path)],
    Form.EVERY_EVAL_EVER: lambda paths, _: read_every_eval_ever(paths),
    Form.EVAL_RESULTS: lambda paths, model: [score for path in paths for score in read_hub_results(path, model)],
    Form.ITEMS: lambda paths, _: [score for path in paths for score in read_foreign_items(path)],
}
"""Form → what reads its files; `eval-results` name no model."""
MOST_TRIES = 5_000_000
"""Rows that one import may make: a log may hold millions of samples under many scores."""
LONGEST_NAME = 2_000
"""Characters of the name of a model or task; a longer one would push all others off their board."""
SUFFIXES = (".json", ".jsonl", ".eval", ".yaml", ".yml")


@dataclass(frozen=True)
class Imported:
    """What an import came to.

    Attributes:
        ids: of all results that were read, in the order of the files.
        new: how many of them were not there before.
    """

    ids: list[str]
    new: int


def import_results(database: Database, files: Sequence[SampleFile], ownership: Ownership = THE_OPERATORS) -> Imported:
    """Record what was read, all or none; what is there already stays as it is.

    Args:
        database: to write to.
        files: of `read_results`.
        ownership: whose new results are.
    """
    ids, new = [], 0
    with database.write() as session:
        for file in files:
            id = _identity(file)
            ids.append(id)
            if session.get(ForeignResult, id) is None:
                new += 1
                _record(session, id, file, ownership)
    return Imported(list(dict.fromkeys(ids)), new)


def read_results(form: Form, paths: Sequence[Path], model: str | None = None) -> list[SampleFile]:
    """Read files of another tool and check them.

    Args:
        form: of the files.
        paths: of files, or of folders with such files in them.
        model: whose results they are, where the form does not say.

    Raises:
        UsageError: a file that cannot be read or is none of this form, or holds a value or date that is none.
    """
    if (model is None) == (form is Form.EVAL_RESULTS):
        raise UsageError(
            "These results name no model; say with --model whose they are."
            if model is None
            else "--model goes with --from eval-results; the other forms say themselves whose results they are."
        )
    files = READERS[form]([file for path in paths for file in _files(path)], model)
    tries = sum(len(file.outcomes) for file in files)
    if tries > MOST_TRIES:
        raise UsageError(f"These files hold {tries:,} tries; at most {MOST_TRIES:,} are taken at once.")
    for file in files:
        if not file.task.strip() or not file.model.strip():
            raise UsageError(f"'{file.path}' does not say which task and model its results are of.")
        if max(len(file.task), len(file.model)) > LONGEST_NAME:
            raise UsageError(
                f"The name of the task or of the model in '{file.path}' is longer than {LONGEST_NAME:,} characters."
            )
        if file.origin.made_at is not None:
            moment(file.origin.made_at, f"The date in '{file.path}'")
    return files


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file())
    if not found:
        raise UsageError(f"The folder '{path}' holds no results.")
    return found


def _identity(file: SampleFile) -> str:
    """The id of all that is recorded of a score, whichever file it came in."""
    hashed = hashlib.sha256(json_text(_columns(file)).encode())
    for sample in sorted(file.samples.values(), key=lambda sample: sample.id):
        tries = [[each.value, each.unscored, each.counted] for each in sample.outcomes]
        hashed.update(json_text([sample.id, sample.asked, tries]).encode())
    return FOREIGN + hashed.hexdigest()[: 32 - len(FOREIGN)]


def _columns(file: SampleFile) -> dict[str, Any]:
    """What a score is and what its tool says of it; dates as texts."""
    origin = file.origin
    made_at = None if origin.made_at is None else moment(origin.made_at, "The date")
    return {
        "tool": file.tool,
        "tool_version": origin.version,
        "task": file.task,
        "task_version": origin.task_version,
        "data": origin.data,
        "model": file.model,
        "score": file.score,
        "more_is_better": file.more_is_better,
        "made_at": None if made_at is None else made_at.isoformat(),
        "settings": dict(origin.settings),
        "reported": dict(file.reported),
        "planned": origin.planned if not file.samples else max(origin.planned or 0, len(file.outcomes)),
        "scored": _scored(file),
        "independent": origin.independent,
    }


def _scored(file: SampleFile) -> int | None:
    return sum(each.value is not None for each in file.outcomes) if file.samples else file.origin.scored


def _record(session: Session, id: str, file: SampleFile, ownership: Ownership) -> None:
    columns = _columns(file)
    made_at = columns.pop("made_at")
    session.add(
        ForeignResult(
            id=id,
            **columns,
            made_at=None if made_at is None else moment(made_at, "The date"),
            unscored=file.unscored,
            notes=list(dict.fromkeys([*file.notes, *_remarks(file)])),
            samples=len(file.samples),
            source=file.path.name,
            owner=ownership.owner,
            private_since=now() if ownership.private else None,
            **_figures(file),
        )
    )
    session.flush()
    insert_new(
        session,
        ForeignOutcome,
        [
            {
                "result_id": id,
                "sample": sample.id,
                "attempt": number,
                "asked": sample.asked,
                "text": sample.text,
                "value": outcome.value,
                "unscored_reason": outcome.unscored,
                "counted": outcome.counted,
            }
            for sample in file.samples.values()
            for number, outcome in enumerate(sample.outcomes)
        ],
    )


def _figures(file: SampleFile) -> dict[str, float | None]:
    """The mean over samples with its interval, and where it could lie."""
    values = [sample.value for sample in file.samples.values() if sample.value is not None]
    found: dict[str, float | None] = dict.fromkeys(("value", "low", "high", "minimum", "maximum"))
    if not values:
        return found
    found["value"] = math.fsum(values) / len(values)
    scored = [each.value for each in file.outcomes if each.value is not None]
    is_rate = all(0 <= value <= 1 for value in scored)
    if is_rate:
        unscored = sum(file.unscored.values())
        planned = len(scored) + unscored
        found["minimum"], found["maximum"] = math.fsum(scored) / planned, (math.fsum(scored) + unscored) / planned
    if file.origin.independent:
        found["low"], found["high"] = _interval(file, values, is_rate)
    return found


def _interval(file: SampleFile, values: Sequence[float], is_rate: bool) -> tuple[float | None, float | None]:
    if is_rate:
        once = all(len(sample.outcomes) == 1 for sample in file.samples.values()) and set(values) <= {0.0, 1.0}
        interval = wilson(sum(values), len(values)) if once else clustered_ratio([(value, 1.0) for value in values])
        return (None, None) if interval is None else (interval.low, interval.high)
    interval = mean_interval(values)
    return (None, None) if interval is None else (interval.low, interval.high)


def _remarks(file: SampleFile) -> list[str]:
    """What does not fit together in a file."""
    first = next(iter(file.reported.values()), None)
    counted = [sample.counted for sample in file.samples.values() if sample.counted is not None]
    if first is None or not counted:
        return []
    mean = math.fsum(counted) / len(counted)
    if math.isclose(mean, first, rel_tol=1e-6, abs_tol=1e-6):
        return []
    return [f"its samples have a mean of {mean:.4g} as {file.tool} counts them, and it reports {first:.4g}"]
