"""`vivace tasks` prints tasks and samples as data, and refuses in one sentence."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from vivace.cli.main import app
from vivace.errors import UsageError
from vivace.tasks.registry import TASKS


def printed(*arguments: str) -> list[dict[str, object]]:
    """What a command prints as JSON."""
    done = CliRunner().invoke(app, ["tasks", *arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def test_all_tasks_are_listed() -> None:
    rows = printed("list")
    assert [row["task"] for row in rows] == list(TASKS)
    assert all(row["asks"] for row in rows)


def test_samples_are_shown_as_they_are_put() -> None:
    first, second = printed("show", "sums(operation=addition)", "--samples", "2", "--seed", "4")
    assert first["prompt"] != second["prompt"] and str(first["prompt"]).startswith("Work out ")
    assert printed("show", "sums(operation=addition)", "--samples", "1", "--seed", "4") == [first]


def test_an_unknown_task_is_refused() -> None:
    done = CliRunner().invoke(app, ["tasks", "show", "nothing"])
    assert isinstance(done.exception, UsageError) and "there are sums" in str(done.exception)
