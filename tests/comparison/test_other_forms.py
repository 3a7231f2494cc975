"""A judging in the forms of other tools: what is unscored is none of their verdicts, and counted in all of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResultEntry

from support.judged import add_dataset, add_judging
from support.program import vivace
from vivace.errors import UsageError
from vivace.interchange.eval_results import check_entry, eval_results_yaml, read_eval_results
from vivace.interchange.every_eval_ever import write_records
from vivace.interchange.judged import Judged, judged_of
from vivace.store import tables
from vivace.store.columns import now
from vivace.store.database import Database


@pytest.fixture
def judged(store: Database) -> Judged:
    """Four conversations of two criteria: met, half met, unscored in part, and not met."""
    with store.write() as session:
        dataset = add_dataset(session, 4)
        outcomes = [[[True, True]], [[True, False]], [[True, None]], [[False, False]]]
        judging = add_judging(session, dataset, outcomes, name="org/model x")
    return judged_of(store, judging)


def test_the_hubs_classes_read_what_is_written_and_every_rate_is_there(judged: Judged) -> None:
    row = replace(judged.row, standing="ranked")
    entries = read_eval_results(eval_results_yaml(row, "owner/set", "https://example.org/board"))
    values = {entry.task_id: entry.value for entry in entries}
    assert values["apr"] == row.figures.apr == pytest.approx(1 / 3)
    assert values["ars"] == row.figures.ars == pytest.approx(4 / 7)
    assert {f"{metric}_{axis.lower()}" for axis in row.axes for metric in ("ars",)} <= values.keys()
    assert all("7 of 8 criteria scored; data " in entry.notes for entry in entries if entry.task_id in ("apr", "ars"))
    assert {entry.source_url for entry in entries} == {"https://example.org/board"}


def test_what_stands_apart_or_has_no_place_on_the_hub_is_refused(judged: Judged) -> None:
    with pytest.raises(UsageError, match=r"stands apart on the board \((part|incomplete)\)"):
        eval_results_yaml(judged.row, "owner/set")
    with pytest.raises(UsageError, match="'set' is no dataset of the hub; name the benchmark's with --dataset-id"):
        eval_results_yaml(replace(judged.row, standing="ranked"))


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"value": "high"}, "no number"), ({"value": float("nan")}, "no number"), ({"value": True}, "no number"),
        ({"date": "soon"}, "none in ISO 8601"), ({"dataset_id": "set"}, "no id of a dataset"),
        ({"task_id": "A task"}, "no id of a task"), ({"source_url": "javascript:x"}, "no address of a page"),
    ],
)  # fmt: skip
def test_entries_hold_what_their_fields_are_for(fields: dict[str, object], said: str) -> None:
    entry = EvalResultEntry(dataset_id="owner/set", task_id="apr", value=0.5)
    check_entry(entry)
    with pytest.raises(UsageError, match=said):
        check_entry(replace(entry, **fields))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no results of the hub's form"):
        read_eval_results(yaml.safe_dump({"dataset": "x"}))


def test_a_private_run_is_passed_on_to_nobody_and_hidden_items_are_blank(store: Database, tmp_path: Path) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 2)
        judging = add_judging(session, dataset, [[[True, True]]] * 2, name="org/m", private_since=now())
    home = ("--database", store.url)
    refused = vivace("export", judging, "--as", "every-eval-ever", "--output", tmp_path / "private", *home)
    assert refused.returncode == 2 and "of a private run" in refused.stderr and not (tmp_path / "private").exists()
    assert vivace("export", judging, *home).returncode == 0  # the operator's own
    with store.write() as session:
        session.get_one(tables.Run, "run0").private_since = None
        session.get_one(tables.Dataset, dataset).hidden_since = now()
    done = vivace("export", judging, "--as", "every-eval-ever", "--output", tmp_path / "hidden", *home)
    assert done.returncode == 0, done.stderr
    texts = "".join(path.read_text() for path in (tmp_path / "hidden").rglob("*_samples.jsonl"))
    assert texts and "Hello." not in texts and "Criterion 0" not in texts


def test_records_have_a_line_for_each_verdict_and_the_rest_with_its_reason(judged: Judged, tmp_path: Path) -> None:
    whole, samples, left = write_records(judged, tmp_path)
    assert whole.relative_to(tmp_path).parts[:4] == ("data", "audio-multichallenge", "org", "model_x")
    record = json.loads(whole.read_text())
    detailed = record["detailed_evaluation_results"]
    assert hashlib.sha256(samples.read_bytes()).hexdigest() == detailed["checksum"]
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(lines) == detailed["total_rows"]
    results = {result["evaluation_result_id"]: result for result in record["evaluation_results"]}
    assert {line["evaluation_result_id"] for line in lines} <= results.keys()
    for metric, n in (("apr", 3), ("ars", 7)):
        its = [line["evaluation"] for line in lines if line["evaluation_result_id"].endswith(metric)]
        score = results[f"{judged.row.judging}/{metric}"]["score_details"]
        assert len(its) == n
        assert sum(each["score"] for each in its) / n == pytest.approx(score["score"])
        assert score["details"]["unscored_criteria"] == "1"
    assert [json.loads(line)["criterion"] for line in left.read_text().splitlines()] == [1]
    assert write_records(judged, tmp_path) == [whole, samples, left]  # the same names each time
    details = [result["score_details"]["details"] for result in results.values()]
    assert all(isinstance(value, str) for each in details for value in each.values())
