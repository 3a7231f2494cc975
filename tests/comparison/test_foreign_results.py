"""What other tools measured comes in with its figures, its unscored samples and its dates, or not at all."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from comparison.test_files_of_others import LOGS, line, lines, log, sample
from support.judged import add_dataset, add_judging
from support.program import vivace
from vivace.analysis.human_labels import record_labels
from vivace.engine.access.retractions import restore, retract
from vivace.engine.access.withholding import set_private
from vivace.errors import UsageError
from vivace.interchange.every_eval_ever import write_records
from vivace.interchange.foreign_results import import_results, read_results
from vivace.interchange.forms import Form
from vivace.interchange.judged import judged_of
from vivace.output.foreign_texts import remarks
from vivace.output.printable import json_text
from vivace.store.database import Database
from vivace.store.migrate import upgrade
from vivace.store.queries.board import board
from vivace.store.queries.conversation import LabelView, conversation, item_rows
from vivace.store.queries.foreign import ForeignRow, foreign_board, foreign_items
from vivace.store.visibility import NOBODY, OPERATOR, Ownership, Viewer
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.taking_in.exported_items import read_items

DATE = "2026-01-02T03-04-05.678"
RESULTS: dict[str, Any] = {
    "results": {
        "sums": {"alias": "sums", "acc,none": 0.625, "acc_stderr,none": 0.18, "sample_len": 8},
        "text": {"alias": "text", "word_perplexity,none": 9.5, "word_perplexity_stderr,none": "N/A"},
        "all": {"alias": "all", "acc,none": 0.625},
    },
    "groups": {"all": {"acc,none": 0.625}},
    "configs": {"sums": {"dataset_path": "owner/sums", "test_split": "test"}, "text": {}},
    "versions": {"sums": 2.0}, "n-shot": {"sums": 5}, "n-samples": {"sums": {"original": 99, "effective": 8}},
    "higher_is_better": {"sums": {"acc": True}, "text": {"word_perplexity": False}},
    "config": {"model": "hf", "limit": 8, "gen_kwargs": {}}, "lm_eval_version": "0.4.13", "model_name": "org/model",
    "date": 1767323045.0,
}  # fmt: skip
"""As lm-eval 0.4.13 writes it, cut down."""


def results(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """A file of results."""
    folder.mkdir(exist_ok=True)
    path = folder / f"results_{DATE}.json"
    path.write_text(json.dumps({**RESULTS, **(changes or {})}))
    return path


def imported(database: Database, form: Form, *paths: Path, model: str | None = None) -> list[ForeignRow]:
    """What is on the board after an import."""
    import_results(database, read_results(form, paths, model))
    return foreign_board(database)


def told(row: ForeignRow) -> dict[str, Any]:
    """All that a row says but for where and when it came in."""
    return {key: value for key, value in vars(row).items() if key not in ("source", "imported_at")}


def test_results_of_lm_eval_stand_with_tool_task_and_samples(store: Database, tmp_path: Path) -> None:
    rows = [line(i, f"q{i}", float(i > 2)) for i in range(7)]  # the eighth is not in the file
    perplexities = [line(i, f"q{i}", [-1.5, 4], metric="word_perplexity") for i in range(3)]
    path = results(tmp_path / "out")
    lines(path.with_name(f"samples_sums_{DATE}.jsonl"), [*rows[:2], {**rows[2], "acc": float("nan")}, *rows[3:]])
    lines(path.with_name(f"samples_text_{DATE}.jsonl"), perplexities)
    group, sums, text = imported(store, Form.LM_EVAL, path.parent)
    assert (sums.tool, sums.tool_version, sums.task, sums.task_version) == ("lm-eval", "0.4.13", "sums", "2.0")
    assert (sums.model, sums.data, sums.score, sums.more_is_better) == ("org/model", "owner/sums", "acc,none", True)
    assert sums.reported == {"acc": 0.625, "stderr": 0.18}
    assert sums.settings == {"model": "hf", "limit": "8", "shots": "5", "split": "test", "documents": "99"}
    assert (sums.scored, sums.unscored, sums.planned) == (6, {"not a number": 1, "not in the file": 1}, 8)
    assert sums.value == pytest.approx(4 / 6)
    assert (sums.minimum, sums.maximum) == (pytest.approx(4 / 8), pytest.approx(6 / 8))
    assert sums.made_at is not None and sums.made_at.year == 2026
    assert (group.score, group.samples, group.value, group.notes) == ("acc,none", 0, None, ["a group of tasks"])
    assert (text.value, text.more_is_better) == (None, False) and "adds this one up" in text.notes[0]
    assert not board(store)  # never among own rows


def test_logs_of_inspect_keep_what_is_unscored_and_every_score(store: Database, tmp_path: Path) -> None:
    (first,) = imported(store, Form.INSPECT, LOGS / "first.eval")
    assert first.unscored == {"no answer": 2, "off the menu": 1, "no score": 2} and first.scored == 7
    assert first.reported["accuracy"] == pytest.approx(0.4)
    samples = [sample(1, "q", epoch=epoch, s="C", several={"x": 1, "y": 0.5 * epoch}, three=[1]) for epoch in (1, 2)]
    broken = {**sample(2, "r"), "error": {"message": "x"}, "scores": None}
    path = log(tmp_path / "more.eval", [*samples, broken], eval={
        "task": "t", "model": "m", "config": {"epochs": 2}, "dataset": {"sample_ids": [1, 2]},
    })  # fmt: skip
    found = {row.score: row for row in imported(store, Form.INSPECT, path) if row.task == "t"}
    assert found.keys() == {"s", "several.x", "several.y"}
    assert found["several.y"].value == 0.75
    assert {row.scored for row in found.values()} == {2}
    assert found["s"].unscored == {"error": 1, "not in the file": 1}
    assert any("three are lists" in note for note in found["s"].notes)


def test_what_is_exported_comes_in_again_with_the_same_figures_and_counts(store: Database, tmp_path: Path) -> None:
    path = results(tmp_path / "out")
    lines(path.with_name(f"samples_sums_{DATE}.jsonl"), [line(i, f"q{i}\n=1", i / 7) for i in range(7)])
    before = [*imported(store, Form.LM_EVAL, path.parent), *imported(store, Form.INSPECT, LOGS / "second.eval")]
    files = []
    for row in before:
        file = tmp_path / f"{row.result}.jsonl"
        items = foreign_items(store, row.result[:9])
        assert items is not None
        file.write_text("".join(json_text(each) + "\n" for each in items))
        files.append(file)
    once = import_results(store, read_results(Form.ITEMS, files))
    assert (once.new, set(once.ids)) == (0, {row.result for row in before})  # they are there already
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    upgrade(other)
    again = imported(other, Form.ITEMS, *files)
    assert [told(row) for row in again] == [told(row) for row in foreign_board(store)]
    twice = files[[row.samples > 0 for row in before].index(True)]
    twice.write_text(twice.read_text() * 2)
    with pytest.raises(UsageError, match="comes again"):
        read_results(Form.ITEMS, files)
    other.close()


def test_a_judgings_items_come_in_again_as_they_were(store: Database, tmp_path: Path) -> None:
    data = [
        {
            "id": f"c{n}",
            "axis": "SELF_COHERENCE",
            "user_turn_1_transcript": "q",
            "rubric": json.dumps(["One.", "Two."]),
        }
        for n in range(5)
    ]
    set_file = tmp_path / "set.jsonl"
    set_file.write_text("".join(json.dumps(row) + "\n" for row in data))
    given = [[True, True], [True, None], [False, True], None]  # of four; the fifth is never recorded
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.write_text("".join(
        json.dumps({"id": f"c{n}", "response": "r", **({} if met is None else {"criteria_met": met})}) + "\n"
        for n, met in enumerate(given)
    ))  # fmt: skip
    home = ("--database", store.url)
    importing = ("import", "audio-multichallenge", *home, "--format", "json", "--data", set_file, "--verdicts")
    first = vivace(*importing, verdicts, "--model", "m", "--judge-name", "people")
    (row,) = json.loads(first.stdout)
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"id": "c1", "criteria_met": [false, null], "labeler": "ann"}\n')
    record_labels(store, row["judging"], labels)
    items = tmp_path / "items.jsonl"
    exported = vivace("export", row["judging"], *home, "--output", items)
    assert exported.returncode == 0, exported.stderr
    again = vivace(
        "import", "audio-multichallenge", "--data", set_file, "--verdicts", items, *home, "--format", "json"
    )
    assert again.returncode == 0, again.stderr
    (other,) = json.loads(again.stdout)
    of_the_row = {"run", "short_run", "judging", "date", "rank", "tied", "apart"}
    assert {key: row[key] for key in row.keys() - of_the_row} == {
        key: other[key] for key in other.keys() - of_the_row
    }
    assert other["run"] != row["run"]
    found = conversation(store, other["judging"], "c1")
    assert found is not None
    assert [verdict.labels for verdict in found.verdicts] == [(LabelView("ann", False),), (LabelView("ann", None),)]
    for change, said in (
        (lambda text: text[: text.rindex("\n", 0, -1) + 1], "was not written to its end"),
        (lambda text: text + text[: text.index("\n") + 1], "comes again"),
        (lambda text: text.replace("One.", "Three.", 1), "is another one in these data"),
        (lambda text: text.replace('"met": true', '"met": "yes"', 1), "neither true, false nor null"),
        (lambda text: text.replace('{"ann": false}', '{"ann": 1}'), '"labels" must be an object'),
    ):
        changed = tmp_path / "changed.jsonl"
        changed.write_text(change(items.read_text()))
        refused = vivace(*importing, changed)
        assert refused.returncode == 2 and said in refused.stderr.replace("\n", " "), refused.stderr


def test_repeats_votes_and_parts_come_in_again(store: Database, tmp_path: Path) -> None:
    data = [
        {"id": f"set00{n}", "axis": "A", "user_turn_1_transcript": "q", "rubric": '["Criterion 0", "Criterion 1"]'}
        for n in range(3)
    ]
    set_file = tmp_path / "set.jsonl"
    set_file.write_text("".join(json.dumps(row) + "\n" for row in data))
    with store.write() as session:
        dataset = add_dataset(session, 3)
        outcomes = [[[True, True], [True, False]], [[True, None], [False, False]]]
        judging = add_judging(session, dataset, outcomes, votes={(0, 0, 0): [True, True, False]})
    rows = [(f"Line {n}", row) for n, row in enumerate(item_rows(store, judging))]
    known = {one.id: one for one in open_conversations(str(set_file)).conversations}
    found = read_items(rows, known)
    assert (found.repeats, found.votes, set(found.replies)) == (
        2, 3, {(f"set00{n}", repeat) for n in range(2) for repeat in range(2)},
    )  # fmt: skip
    assert [one.met for one in found.replies["set000", 0].verdicts if one.criterion == 0] == [True, True, True, False]


def test_records_of_every_eval_ever_come_in_with_the_same_counts(store: Database, tmp_path: Path) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 4)
        outcomes = [[[True, True]], [[True, False]], [[True, None]], [[False, False]]]
        judged = add_judging(session, dataset, outcomes, name="org/model x")
    of_it = judged_of(store, judged)
    write_records(of_it, tmp_path / "records")
    rows = {row.score: row for row in imported(store, Form.EVERY_EVAL_EVER, tmp_path / "records")}
    apr, ars = rows["audio-multichallenge APR"], rows["audio-multichallenge ARS"]
    assert apr.value == apr.first_reported == of_it.row.figures.apr
    assert ars.value == pytest.approx(of_it.row.figures.ars)
    assert (apr.scored, apr.unscored, apr.planned) == (3, {"not in the file": 1}, 4)
    assert (ars.scored, ars.planned, sum(ars.unscored.values())) == (7, 8, 1)
    assert "not in the file" not in ars.unscored  # it came with its reason
    assert (apr.reported["low"], apr.low) == (of_it.row.figures.apr_low, None)
    by_axis = [row for name, row in rows.items() if name not in (apr.score, ars.score)]
    assert by_axis and sum((row.planned or 0) for row in by_axis if " ARS " in row.score) == 8
    assert sum(sum(row.unscored.values()) for row in by_axis if " ARS " in row.score) == 1
    alone = next((tmp_path / "records").rglob("*_samples.jsonl"))
    with pytest.raises(UsageError, match="is of no result in the records"):
        read_results(Form.EVERY_EVAL_EVER, [alone])


def test_the_hubs_yaml_comes_in_under_a_models_name(store: Database, tmp_path: Path) -> None:
    entry = {
        "dataset": {"id": "owner/set", "task_id": "apr"},
        "value": 0.25,
        "date": "2026-03-01",
        "notes": "no tools",
    }
    path = tmp_path / "results.yaml"
    path.write_text(yaml.safe_dump([entry]))
    (row,) = imported(store, Form.EVAL_RESULTS, path, model="org/model")
    assert (row.model, row.task, row.score, row.reported) == ("org/model", "owner/set", "apr", {"value": 0.25})
    assert row.settings == {"notes": "no tools"}
    with pytest.raises(UsageError, match="say with --model"):
        read_results(Form.EVAL_RESULTS, [path])
    path.write_text(yaml.safe_dump([entry, {**entry, "value": 0.5}]))
    with pytest.raises(UsageError, match="two values for apr"):
        read_results(Form.EVAL_RESULTS, [path], "m")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"results": {"t": {"acc,none": float("nan")}}}, "is nan, and no number"),
        ({"results": {"t": {"acc,none": float("inf")}}}, "is inf, and no number"),
        ({"results": {"t": {"acc,none": 10**400}}}, "no number"),
        ({"results": {"t": {"acc,none": True}}}, "no number"),
        ({"results": {"t": 1}}, "no figures of the task 't'"),
        ({"results": []}, "it has no `results`"),
        ({"date": "soon"}, "none in ISO 8601"),
        ({"date": 99999999999}, "no evaluation can be of that day"),
        ({"date": 3}, "no evaluation can be of that day"),
    ],
)  # fmt: skip
def test_a_figure_or_date_that_is_none_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_results(Form.LM_EVAL, [results(tmp_path, changes)])


@pytest.mark.parametrize(("name", "said"), [(" \n", "does not say which"), ("x" * 2_001, "longer than 2,000")])
def test_a_name_of_nothing_and_one_without_end_are_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_results(Form.LM_EVAL, [results(tmp_path, {"model_name": name})])


def test_hostile_files_are_refused_in_a_sentence_and_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.interchange.zip_members.LONGEST_MEMBER", 100_000)
    monkeypatch.setattr("vivace.interchange.provenance.MOST_VALUES", 20_000)
    header = ("header.json", json.dumps({"version": 2, "eval": {"task": "t", "model": "m"}}))
    one = json.dumps(sample(1, "q", s="C"))
    for members, said in (
        ([("samples/1_epoch_1.json", " " * 100_001)], "is longer than 100,000 bytes"),
        ([("samples/1_epoch_1.json", "[" + "0," * 20_001 + "0]")], "more than 20,000 values"),
        ([("samples/1_epoch_1.json", "[" * 15_000)], "is nested deeper|is not JSON"),
        ([("samples/1_epoch_1.json", one), ("samples/a_epoch_1.json", one)], "epoch 1 of sample 1 comes again"),
        ([("samples/../../../etc/passwd_epoch_1.json", one), ("../escaped.json", one)], "has no samples"),
        ([("samples/1_epoch_1.json", one[:-9])], "is not JSON"),
    ):
        path = tmp_path / "hostile.eval"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr(*header)
            for name, text in members:
                opened.writestr(name, text)
        with pytest.raises(UsageError, match=said):
            read_results(Form.INSPECT, [path])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UsageError, match="cannot be read as a zip archive"):
        read_results(Form.INSPECT, [path])
    assert [each.name for each in tmp_path.iterdir()] == ["hostile.eval"]
    assert not (tmp_path.parent / "escaped.json").exists()


def test_a_date_may_be_odd_in_a_comparison_and_not_on_a_board(tmp_path: Path) -> None:
    evaluation = {"task": "t", "model": "m", "created": "2999-01-01"}
    path = log(tmp_path / "a.eval", [sample(1, "q", s="C")], eval=evaluation)
    with pytest.raises(UsageError, match="no evaluation can be of that day"):
        read_results(Form.INSPECT, [path])


def test_the_verb_writes_nothing_where_a_file_is_refused_and_shows_its_board(tmp_path: Path) -> None:
    home = ("--home", tmp_path / "home")
    bad = results(tmp_path / "bad", {"date": "soon"})
    refused = vivace("import", "--from", "lm-eval", bad, *home)
    assert refused.returncode == 2 and not (tmp_path / "home").exists()
    done = vivace("import", "--from", "lm-eval", results(tmp_path / "good"), *home)
    assert done.returncode == 0 and "3 results are recorded" in done.stderr, done.stderr
    again = vivace("import", "--from", "lm-eval", tmp_path / "good", *home)
    assert "0 results are recorded, 3 were before" in again.stderr
    shown = vivace("leaderboard", "--foreign", *home)
    assert "lm-eval 0.4.13" in shown.stdout and "not ranked" in shown.stderr
    assert "lm-eval" not in vivace("leaderboard", *home).stdout
    id = json.loads(vivace("leaderboard", "--foreign", "--format", "json", *home).stdout)[0]["result"]
    assert json.loads(vivace("export", id, *home).stdout.splitlines()[0])["result"] == id
    for words, said in (
        (["--from", "lm-eval", bad, "--model", "m"], "--model goes with --from eval-results"),
        (["--from", "lm-eval", bad, "--data", "demo"], "are of a track's verdicts"),
        (["audio-multichallenge", "speculation", "--data", "demo"], "files of other tools take --from"),
        (["audio-multichallenge"], "takes --data and --verdicts"),
        (["--from", "inspect", tmp_path / "none.eval"], "cannot be read"),
    ):
        refused = vivace("import", *words, *home)
        assert refused.returncode == 2 and said in refused.stderr.replace("\n", " "), refused.stderr


def test_a_private_result_is_its_owners_and_the_operators_alone(store: Database) -> None:
    files = read_results(Form.INSPECT, [LOGS / "first.eval"])
    (id,) = import_results(store, files, Ownership("ann", private=True)).ids
    import_results(store, files)  # what is there stays as it is

    def seen() -> list[bool]:
        views = [store.seen_by(viewer) for viewer in (NOBODY, Viewer("ben"), Viewer("ann"), OPERATOR)]
        boards = [bool(foreign_board(view)) for view in views]
        assert boards == [bool(foreign_items(view, id)) for view in views]
        return boards

    assert seen() == [False, False, True, True]
    assert set_private(store, id[:8], private=True, owner="ben").endswith("is private: ben sees it.")
    assert seen() == [False, True, False, True]
    (row,) = foreign_board(store)
    assert remarks(row.as_json())[0] == "private"
    set_private(store, id, private=False)
    assert seen() == [True] * 4


def test_a_result_is_retracted_with_its_reason_and_brought_back(store: Database) -> None:
    (row,) = imported(store, Form.INSPECT, LOGS / "first.eval")
    retract(store, row.result[:8], "the wrong model")
    assert not foreign_board(store)
    assert [one.retracted for one in foreign_board(store, include_retracted=True)] == ["the wrong model"]
    for id, said in ((row.result, "already"), ("x0000", "There is no run")):
        with pytest.raises(UsageError, match=said):
            retract(store, id, "again")
    restore(store, row.result)
    assert [told(one) for one in foreign_board(store)] == [told(row)]
    with pytest.raises(UsageError, match="is not retracted"):
        restore(store, row.result)
