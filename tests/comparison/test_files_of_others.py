"""Logs of inspect and samples of lm-eval are compared in pairs of what was asked, and never by their numbers."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from support.program import vivace
from vivace.analysis.file_comparison import compare_files
from vivace.errors import UsageError
from vivace.interchange.inspect_logs import outcome_of, read_inspect_log
from vivace.interchange.lm_eval_samples import read_lm_eval_samples
from vivace.interchange.zip_members import archive
from vivace.statistics.paired import mean_difference, rate_difference
from vivace.statistics.permutation import sign_flip_p_value

LOGS = Path(__file__).parent / "inspect_logs"
"""Two logs that inspect_ai 0.3.285 wrote: six sums, shuffled apart, two epochs, no answers and one off its menu."""


def sample(id: object, question: Any, target: str = "t", epoch: int = 1, **scores: Any) -> dict[str, Any]:
    """A sample as inspect writes it."""
    return {
        "id": id, "epoch": epoch, "input": question, "target": target, "messages": [],
        "scores": {name: {"value": value, "history": []} for name, value in scores.items()},
    }  # fmt: skip


def log(path: Path, samples: Sequence[Mapping[str, Any]], method: int = zipfile.ZIP_STORED, **header: Any) -> Path:
    """A `.eval` archive."""
    whole = {"version": 2, "status": "success", "eval": {"task": "t", "model": path.stem}, **header}
    with zipfile.ZipFile(path, "w", method) as opened:
        opened.writestr("header.json", json.dumps(whole))
        for each in samples:
            opened.writestr(f"samples/{each['id']}_epoch_{each['epoch']}.json", json.dumps(each))
    return path


def test_real_logs_shuffled_apart_compare_to_a_hand_computation() -> None:
    found = compare_files([LOGS / "first.eval", LOGS / "second.eval"])
    ours, counted = found.rows
    # Sums by i: first 0 right twice, 1 no answer twice, 2 off the menu and right, 3 without a score, 4 right and
    # wrong, 5 wrong twice; second right in 0, 1, 2 and 5, wrong in 3, and in 4 half right and wrong.
    first, second = {0: 1, 2: 1, 4: 0.5, 5: 0}, {0: 1, 2: 1, 4: 0.25, 5: 1}
    assert ours.difference.n == 4
    assert ours.difference.a == pytest.approx(sum(first.values()) / 4)
    assert ours.difference.b == pytest.approx(sum(second.values()) / 4)
    assert (ours.difference.gained, ours.difference.lost, ours.difference.p_value) == (1, 1, 1.0)
    assert {flip["text"] for flip in ours.flips} == {"What is 4+4?", "What is 5+5?"}
    assert counted.score == "as inspect counts it"
    assert counted.difference.a == pytest.approx(found.files[0].reported["accuracy"]) == pytest.approx(0.4)
    assert found.files[0].unscored == {"no answer": 2, "off the menu": 1, "no score": 2}
    assert any("4 samples have other ids" in note for note in found.notes)


def test_errors_unscored_samples_and_two_epochs_compare_to_a_hand_computation(tmp_path: Path) -> None:
    values = {0: "CC", 1: "CI", 2: "IN", 3: "E!", 4: "PC", 5: "NN", 6: "IE", 7: "CP"}  # E failed, ! is unscored
    second = {0: "CI", 1: "II", 2: "CC", 3: "CC", 4: "CC", 5: "CI", 6: "IC", 7: "II"}

    def tries(id: int, question: int, letters: str) -> list[dict[str, Any]]:
        found = []
        for epoch, letter in enumerate(letters, start=1):
            made = sample(id, f"q{question}", epoch=epoch, s=letter)
            if letter in "E!":
                made["scores"] = {}
            found.append({**made, "error": {"message": "it broke"}} if letter == "E" else made)
        return found

    a = log(tmp_path / "a.eval", [one for n, letters in values.items() for one in tries(n, n, letters)])
    b = log(tmp_path / "b.eval", [one for n, letters in second.items() for one in tries(7 - n, n, letters)])
    found = compare_files([a, b])
    ours, counted = found.rows
    # Scored in both: 0, 1, 2, 4, 6, 7 (3 and 5 are never scored in a), each the mean of its scored tries.
    mine, others = [1, 0.5, 0, 0.75, 0, 0.75], [0.5, 0, 1, 1, 0.5, 0]
    assert ours.difference.n == 6
    assert (ours.difference.a, ours.difference.b) == (pytest.approx(sum(mine) / 6), pytest.approx(sum(others) / 6))
    differences = [y - x for x, y in zip(mine, others, strict=True)]  # −½ −½ 1 ¼ ½ −¾: their sum is 0
    assert sum(differences) == 0 and ours.difference.p_value == 1.0
    assert (ours.difference.gained, ours.difference.lost) == (3, 3)
    assert found.files[0].unscored == {"no answer": 3, "error": 2, "no score": 1}
    # inspect counts no answer as 0 and leaves errors out: 5 comes in as 0, and 2 stays 0.
    assert counted.difference.n == 7
    assert counted.difference.a == pytest.approx(sum(mine) / 7)
    assert counted.difference.b == pytest.approx((sum(others) + 0.5) / 7)


def test_one_try_of_right_or_wrong_is_compared_exactly(tmp_path: Path) -> None:
    a = log(tmp_path / "a.eval", [sample(i, f"q{i}", s="C" if i < 5 else "I") for i in range(12)])
    b = log(tmp_path / "b.eval", [sample(11 - i, f"q{i}", s="C" if i > 2 else "I") for i in range(12)])
    (row,) = compare_files([a, b]).rows
    assert (row.kind, row.test) == ("binary", "exact McNemar")
    assert (row.difference.gained, row.difference.lost, row.difference.n) == (7, 3, 12)
    assert row.difference.p_value == pytest.approx(0.34375)  # 2 · P(at most 3 of 10 fair coins)


def test_different_things_under_one_id_are_refused_and_what_is_alike_can_be_forced(tmp_path: Path) -> None:
    a = log(tmp_path / "a.eval", [sample(i, f"q{i}", s="C") for i in range(4)])
    b = log(tmp_path / "b.eval", [sample(i, f"q{i}" if i else "else", s="C") for i in range(4)])
    targets = log(tmp_path / "c.eval", [sample(i, f"q{i}", target="t" if i else "u", s="C") for i in range(4)])
    for other in (b, targets):
        with pytest.raises(UsageError, match=r"different things under the same id.* 1 of 4 samples \(id 0\)"):
            compare_files([a, other])
        assert compare_files([a, other], force=True).rows[0].difference.n == 3
    nothing = log(tmp_path / "d.eval", [sample(10 + i, f"z{i}", s="C") for i in range(4)])
    with pytest.raises(UsageError, match="nothing in common"):
        compare_files([a, nothing])


def test_a_part_of_the_questions_is_compared_and_said(tmp_path: Path) -> None:
    a = log(tmp_path / "a.eval", [sample(i, f"q{i}", s=1) for i in range(4)])
    b = log(tmp_path / "b.eval", [sample(i, f"q{i}", s=1) for i in range(3)], status="cancelled")
    found = compare_files([a, b])
    assert found.rows[0].difference.n == 3
    assert [note for note in found.notes if "1 samples of a.eval are not in the other" in note]
    assert [note for note in found.notes if "status is cancelled" in note]


def test_messages_and_attachments_are_read_as_what_was_said(tmp_path: Path) -> None:
    plain = sample(1, "hello", s=1)
    messages = sample(1, [{"id": "x9", "role": "user", "content": [{"type": "text", "text": "attachment://k"}]}], s=0)
    a = log(tmp_path / "a.eval", [plain])
    b = log(tmp_path / "b.eval", [{**messages, "attachments": {"k": "hello"}}])
    assert compare_files([a, b]).rows[0].difference.n == 1


def test_samples_in_pieces_are_what_they_are_in_one(tmp_path: Path) -> None:
    samples = [sample(1, "hello", s="C"), sample(2, [{"role": "user", "content": "long words"}], s="I")]
    whole = log(tmp_path / "a.eval", samples)
    pieces = tmp_path / "b.eval"
    shell = {**samples[1], "input": [{"role": "user", "content": "attachment://3"}]}
    with zipfile.ZipFile(pieces, "w") as opened:
        opened.writestr("header.json", json.dumps({"version": 2, "status": "success", "eval": {"task": "t"}}))
        opened.writestr("samples/1_epoch_1.json", json.dumps(samples[0]))
        opened.writestr("samples/2_epoch_1/sample.json", json.dumps(shell))
        opened.writestr("samples/2_epoch_1/messages/0.json", "[not read")
        opened.writestr("samples/2_epoch_1/attachments/0.json", '["a", "b"]')
        opened.writestr("samples/2_epoch_1/attachments/2.json", '["c", "long words"]')
    assert read_inspect_log(pieces).samples == read_inspect_log(whole).samples
    with zipfile.ZipFile(pieces, "a") as opened:
        opened.writestr("samples/2_epoch_1/attachments/4.json", "{}")
    with pytest.raises(UsageError, match="are no lists"):
        read_inspect_log(pieces)


def test_a_score_is_asked_for_where_there_are_several(tmp_path: Path) -> None:
    path = log(tmp_path / "a.eval", [sample(1, "q", one="C", two={"x": 1, "y": 0.5}, three=[1, 2])])
    with pytest.raises(UsageError, match=r"several scores \(one, two, three\): choose one with --score"):
        read_inspect_log(path)
    with pytest.raises(UsageError, match=r"several values: choose with --score one of two\.x, two\.y"):
        read_inspect_log(path, "two")
    with pytest.raises(UsageError, match="no score 'on'"):
        read_inspect_log(path, "on")
    with pytest.raises(UsageError, match="no value 'z'"):
        read_inspect_log(path, "two.z")
    with pytest.raises(UsageError, match="are lists"):
        read_inspect_log(path, "three")
    assert read_inspect_log(path, "two.y").samples["1"].value == 0.5
    headline = log(tmp_path / "b.eval", [sample(1, "q", one="C", two=0)], results={"headline": {"score": "two"}})
    assert read_inspect_log(headline).score == "two"


@pytest.mark.parametrize(
    "value, scored, counted, unscored",
    [
        ("C", 1.0, 1.0, None), ("I", 0.0, 0.0, None), ("P", 0.5, 0.5, None), ("N", None, 0.0, "no answer"),
        ("maybe", None, 0.0, "off the menu"), ("Yes", 1.0, 1.0, None), ("0.25", 0.25, 0.25, None),
        (True, 1.0, 1.0, None), (3, 3.0, 3.0, None), (None, None, None, "no score"),
        ("nan", None, 0.0, "off the menu"),
        (float("nan"), None, None, "not a number"), (10**400, None, None, "not a number"),
        (float("inf"), None, None, "not a number"),
    ],
)  # fmt: skip
def test_values_of_inspect_have_three_forms(
    value: Any, scored: float | None, counted: float | None, unscored: str | None
) -> None:
    found = outcome_of(value)
    assert (found.value, found.counted, found.unscored) == (scored, counted, unscored)


def test_members_packed_with_zstandard_are_read_and_damage_is_named(tmp_path: Path) -> None:
    packed = zstandard.ZstdCompressor().compress(b'{"a": NaN}')
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("a.json", packed)
        opened.writestr("cut.json", packed[:-3])
    marked = bytearray(path.read_bytes())
    for name in (b"a.json", b"cut.json"):  # the method stands in the local header and in the directory
        local = marked.index(b"PK\x03\x04" + marked[marked.index(name) - 26 : marked.index(name)])
        marked[local + 8 : local + 10] = (93).to_bytes(2, "little")
        listed = marked.rindex(name) - 46
        marked[listed + 10 : listed + 12] = (93).to_bytes(2, "little")
    path.write_bytes(marked)
    with archive(path) as opened_again:
        assert opened_again.read("a.json") == b'{"a": NaN}'
        assert opened_again.read("cut.json") != b'{"a": NaN}'  # and so is no JSON
    path.write_bytes(marked[:40])
    with pytest.raises(UsageError, match="cannot be read as a zip archive"), archive(path):
        pass


def line(id: int, question: str, value: Any, filter: str = "none", metric: str = "acc") -> dict[str, Any]:
    """A line of lm-eval's."""
    return {
        "doc_id": id, "doc": {"q": question}, "target": "t", "doc_hash": f"hash of {question}", "target_hash": "t",
        "filter": filter, "metrics": [metric], metric: value,
    }  # fmt: skip


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A file of samples."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_samples_of_lm_eval_are_paired_by_document_and_its_hash(tmp_path: Path) -> None:
    date = "2026-01-02T03-04-05.678"
    a = lines(tmp_path / "a" / f"samples_sums_{date}.jsonl", [line(i, f"q{i}", float(i > 2)) for i in range(8)])
    b = lines(tmp_path / "b" / f"samples_sums_{date}.jsonl", [line(i, f"q{i}", 1.0) for i in range(8)])
    results = {
        "model_name": "m",
        "results": {"sums": {"acc,none": 0.625}},
        "higher_is_better": {"sums": {"acc": False}},
    }
    (tmp_path / "a" / f"results_{date}.json").write_text(json.dumps(results))
    (row,) = compare_files([a, b]).rows
    assert (row.a.task, row.a.model, row.a.reported) == ("sums", "m", {"acc,none": 0.625})
    assert (row.difference.gained, row.difference.lost) == (0, 3)  # less is better
    assert row.difference.value == pytest.approx(0.375)
    changed = lines(tmp_path / "c" / f"samples_sums_{date}.jsonl", [line(i, f"r{i}", 1.0) for i in range(8)])
    with pytest.raises(UsageError, match="different things under the same id"):
        compare_files([a, changed])
    other = lines(tmp_path / "c" / f"samples_stories_{date}.jsonl", [line(i, f"q{i}", 1.0) for i in range(8)])
    with pytest.raises(UsageError, match="differ in task sums and stories"):
        compare_files([a, other])


def test_filters_of_lm_eval_are_asked_for(tmp_path: Path) -> None:
    rows = [line(i, f"q{i}", 1.0, filter) for i, filter in product(range(2), ("strict", "loose"))]
    path = lines(tmp_path / "samples.jsonl", rows)
    with pytest.raises(UsageError, match="several scores"):
        read_lm_eval_samples(path)
    with pytest.raises(UsageError, match="it has acc,strict; acc,loose"):
        read_lm_eval_samples(path, "f1")
    (tmp_path / "results.json").write_text('{"lm_eval_version": "0.4", "results": {}}')
    with pytest.raises(UsageError, match="give the samples beside it"):
        compare_files([path, tmp_path / "results.json"], score="acc,loose")
    assert len(read_lm_eval_samples(path, "acc,loose").samples) == 2
    with pytest.raises(UsageError, match="comes again"):
        read_lm_eval_samples(lines(path, [*rows, rows[0]]), "acc,strict")
    with pytest.raises(UsageError, match="is no number"):
        read_lm_eval_samples(lines(path, [line(1, "q", [1, 2])]))
    with pytest.raises(UsageError, match="is no sample of lm-eval"):
        read_lm_eval_samples(lines(path, [{"id": 1}]))


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=9))
def test_the_permutation_test_counts_all_signs(differences: list[float]) -> None:
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in product((-1, 1), repeat=len(differences))]  # fmt: skip
    exact = sum(each >= abs(sum(differences)) - 1e-12 for each in sums) / len(sums)
    assert sign_flip_p_value(differences) == pytest.approx(exact)


def test_an_interval_never_leaves_0_out_where_the_test_does_not() -> None:
    values = [(0.0, 0.1 * i) for i in range(1, 5)]
    for found in (rate_difference(values, lambda d: 0.5), mean_difference(values, lambda d: 0.5)):
        assert found is not None and found.low is not None and found.low <= 0
    alike = mean_difference([(0.0, 3.0)] * 5, sign_flip_p_value)
    assert alike is not None and alike.low is None  # no spread seen is not no spread


def test_the_verb_prints_differences_files_and_flips_and_takes_no_mixture(tmp_path: Path) -> None:
    files = [LOGS / "first.eval", LOGS / "second.eval"]
    done = vivace("compare", *files, "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"rows", "files", "flips", "notes"} == json.loads(done.stdout).keys()
    shown = vivace("compare", *files, cwd=tmp_path)
    assert "What is 5+5?" in shown.stderr and "2 no answer" in shown.stderr and "+18.8" in shown.stdout
    assert not list(tmp_path.iterdir())  # no database is made
    for words, said in (
        ([files[0], "0123abcd"], "'0123abcd' is no file that can be compared"),
        ([files[0]], "takes two or more files"),
        ([files[0], tmp_path / "gone.eval"], "There is no file"),
        (["0123abcd", "4567", "--score", "x"], "--score and --less-is-better are of files"),
    ):
        refused = vivace("compare", *words, cwd=tmp_path)
        assert refused.returncode == 2 and said in refused.stderr.replace("\n", " "), refused.stderr
