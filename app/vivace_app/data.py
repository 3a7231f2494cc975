"""Where the pages get their data: one read-only engine, and answers kept until the data changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import streamlit as st

from vivace.analysis.breakdown import BreakdownRow, By
from vivace.analysis.breakdown import breakdown as break_down
from vivace.analysis.comparison import Correction, JudgingComparison, compare
from vivace.analysis.gaps import Gap
from vivace.analysis.gaps import gaps as find_gaps
from vivace.analysis.human_labels import agreement_with_labels, labels_version
from vivace.audio.convert import AudioError
from vivace.audio.waveform import waveform
from vivace.errors import VivaceError
from vivace.settings import Settings, load_settings
from vivace.statistics.agreement import RaterAgreement
from vivace.store import migrate
from vivace.store.artifacts import open_artifacts
from vivace.store.database import Database
from vivace.store.queries import efficiency, explorer
from vivace.store.queries.board import BoardRow, data_version
from vivace.store.queries.board import board as board_rows
from vivace.store.queries.conversation import CallView, ConversationView
from vivace.store.queries.conversation import calls as conversation_calls
from vivace.store.queries.conversation import conversation as one_conversation
from vivace.store.queries.explorer import Page, Wanted
from vivace.store.queries.foreign import ForeignRow, foreign_board
from vivace.store.queries.labels import labels as run_labels
from vivace.store.queries.log import LogLine, log
from vivace.store.queries.regressions import JobView
from vivace.store.queries.regressions import jobs as regression_jobs
from vivace.store.queries.runs import Failure, RunView, WorkerView, failures, manifest, runs, workers
from vivace.store.queries.submissions import SubmissionView, submissions
from vivace_app.viewer import viewer
from vivace_methods.diagnosis import Diagnosis


def settings() -> Settings:
    """The settings from `VIVACE_HOME`, `VIVACE_DATABASE` and `.env`."""
    return load_settings()


def database() -> Database | None:
    """The results database, opened read-only, as whoever looks may see it; None where there is nothing yet.

    Raises:
        UsageError: it cannot be opened, or is old, newer than this code or not one of ours.
    """
    url = settings().database_url
    path = _path(url)
    if path is None:
        identity = url
    elif path.exists():
        # Another file put in its place is another database; an engine would keep reading the old one.
        status = path.stat()
        identity = f"{status.st_dev}:{status.st_ino}"
    else:
        return None
    try:
        return _open(url, identity).seen_by(viewer())
    except _NothingYet:
        return None


class _NothingYet(Exception):
    """Raised so that the cache keeps nothing: the next look may find a database."""


@st.cache_resource(show_spinner=False, max_entries=4)
def _path(url: str) -> Path | None:
    return Database(url, read_only=True).path


@st.cache_resource(show_spinner=False, max_entries=4)
def _open(url: str, identity: str) -> Database:
    found = migrate.open_for_reading(settings())
    if found is None:
        raise _NothingYet
    return found


_VERSIONS: WeakKeyDictionary[Database, str] = WeakKeyDictionary()


def _version(database: Database) -> str:
    """`data_version`, asked once for each drawing of a page, for which `database` makes an object of its own."""
    if database not in _VERSIONS:
        _VERSIONS[database] = data_version(database)
    return _VERSIONS[database]


def board(database: Database, *, official_only: bool = False) -> list[BoardRow]:
    """The board's rows, retracted ones left out, so that they take nobody's rank."""
    return _board(database, database.url, _version(database), official_only, False)


def retracted(database: Database, *, official_only: bool = False) -> list[BoardRow]:
    """The retracted rows alone."""
    rows = _board(database, database.url, _version(database), official_only, True)
    return [row for row in rows if row.retracted is not None]


@st.cache_data(show_spinner=False, max_entries=16)
def _board(
    _database: Database, url: str, version: str, official_only: bool, include_retracted: bool
) -> list[BoardRow]:
    return board_rows(_database, official_only=official_only, include_retracted=include_retracted)


def arms(database: Database) -> list[efficiency.ArmRow]:
    """The rows of the efficiency tracks, retracted ones among them."""
    return _arms(database, database.url, _version(database))


@st.cache_data(show_spinner=False, max_entries=4)
def _arms(_database: Database, url: str, version: str) -> list[efficiency.ArmRow]:
    return efficiency.arm_board(_database, include_retracted=True)


def page_of(database: Database, judgings: Sequence[str], wanted: Wanted, opened: str | None) -> Page:
    """The page of matching conversations on which one stands; judgings are of the same data."""
    return _page_of(database, database.url, _version(database), tuple(judgings), wanted, opened)


@st.cache_data(show_spinner=False, max_entries=256)
def _page_of(
    _database: Database, url: str, version: str, judgings: tuple[str, ...], wanted: Wanted, opened: str | None
) -> Page:
    return explorer.page_of(_database, judgings, wanted, opened)


def conversation(database: Database, judging: str, conversation_id: str, repeat: int = 0) -> ConversationView | None:
    """One reply to one conversation under one judging."""
    return one_conversation(database, judging, conversation_id, repeat)


def calls(database: Database, judging: str, conversation_id: str, most: int) -> list[CallView]:
    """The calls behind one conversation's replies and their verdicts."""
    return conversation_calls(database, judging, conversation_id, most)


def agreement(database: Database, judging: str) -> RaterAgreement:
    """How a judging agrees with what people say of the same replies."""
    return _agreement(database, database.url, _version(database), judging, labels_version(database, judging))


@st.cache_data(show_spinner=False, max_entries=64)
def _agreement(_database: Database, url: str, version: str, judging: str, labels: str) -> RaterAgreement:
    return agreement_with_labels(_database, judging)


def breakdown(database: Database, judging: str, by: By, axis: str | None) -> list[BreakdownRow]:
    """A judging's scores in parts, of one axis or all.

    Raises:
        UsageError: the store does not know what they are to be broken down by.
    """
    return _breakdown(database, database.url, _version(database), judging, by, axis)


@st.cache_data(show_spinner=False, max_entries=64)
def _breakdown(
    _database: Database, url: str, version: str, judging: str, by: By, axis: str | None
) -> list[BreakdownRow]:
    return break_down(_database, judging, by, axis)


def gaps(database: Database) -> list[Gap]:
    """What hearing and speaking cost each model that was run both ways."""
    return _gaps(database, database.url, _version(database))


@st.cache_data(show_spinner="Pairing runs …", max_entries=4)
def _gaps(_database: Database, url: str, version: str) -> list[Gap]:
    return find_gaps(_database)


def comparison(database: Database, judgings: Sequence[str], by: By, correction: Correction) -> JudgingComparison:
    """Some judgings against the first of them.

    Raises:
        UsageError: they cannot be compared, or not in these parts.
    """
    return _comparison(database, database.url, _version(database), tuple(judgings), by, correction)


@st.cache_data(show_spinner="Pairing conversations …", max_entries=64)
def _comparison(
    _database: Database, url: str, version: str, judgings: tuple[str, ...], by: By, correction: Correction
) -> JudgingComparison:
    return compare(_database, judgings, by=by, correction=correction)


def audio(sha256: str) -> bytes | str:
    """A recording's bytes, or a sentence that says why they cannot be had."""
    try:
        return open_artifacts(settings()).get(sha256)
    except (VivaceError, OSError) as error:
        return str(error)


@st.cache_data(show_spinner=False, max_entries=512)
def shape(sha256: str, parts: int) -> tuple[list[float], float] | None:
    """The waveform of a recording and its seconds, as `waveform` gives them; None where it cannot be drawn."""
    recording = audio(sha256)
    try:
        return None if isinstance(recording, str) else waveform(recording, parts)
    except AudioError:
        return None


def diagnoses(database: Database, runs: Iterable[str]) -> dict[tuple[str, str], list[Diagnosis]]:
    """Run and arm → all that is known of what the arm does in each layer, of every arm of some runs."""
    return _diagnoses(database, database.url, _version(database), tuple(sorted(set(runs))))


@st.cache_data(show_spinner=False, max_entries=64)
def _diagnoses(
    _database: Database, url: str, version: str, runs: tuple[str, ...]
) -> dict[tuple[str, str], list[Diagnosis]]:
    return efficiency.diagnoses_of_runs(_database, runs)


def jobs(database: Database) -> list[JobView]:
    """The regression jobs as they stand now: a night changes them without ending any judging."""
    return regression_jobs(database)


def labels(database: Database) -> dict[str, list[str]]:
    """Run → the labels that people gave it, as they are now."""
    return run_labels(database)


def foreign(database: Database) -> list[ForeignRow]:
    """What other tools measured, retracted ones left out."""
    return foreign_board(database)


def live(database: Database) -> tuple[list[SubmissionView], list[WorkerView]]:
    """What waits and what is worked on, and who works, as it is now: never kept."""
    return submissions(database, live=True), workers(database)


def newest_runs(database: Database) -> list[RunView]:
    """The newest runs, as they are now."""
    return runs(database)


def what_failed(database: Database, run: str) -> list[Failure]:
    """What failed in a run."""
    return failures(database, run)


def run_log(database: Database, run: str, newest: int) -> list[LogLine]:
    """The newest lines of a run's log, the oldest of them first."""
    return log(database, run, newest)


def run_manifest(database: Database, run: str) -> dict[str, str]:
    """What made a run, flat."""
    return manifest(database, run)
