"""`vivace judge`: judging recorded replies again, and the judge against labels, attacks and its own past."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from support.chat_server import Answer, Behaviour, Call, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl, write_parquet
from support.program import board, start_vivace, vivace
from vivace.analysis.human_labels import agreement_with_labels, labels_version
from vivace.analysis.judge_calibration import calibrate
from vivace.errors import UsageError
from vivace.settings import load_settings, normalised_url
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.queries.board import board as stored_board
from vivace.tracks.registry import find_track
from vivace_rubrics.attacks import ATTACKS, CONTROLS
from vivace_rubrics.checks import parse_check

JUDGE = ("--judge", "litellm:openai/my-judge")


def replies_of(path: Path, rows: list[dict[str, Any]], text: str = "yes") -> Path:
    return write_jsonl(path, [{"id": row["id"], "response": text} for row in rows])


def record(folder: Path, count: int, criteria: int = 2, *more: object) -> list[dict[str, Any]]:
    """A run of recorded replies, "yes" throughout, judged by `checks`; then the data are gone."""
    rows = conversation_rows(count, criteria=criteria, audio=False)
    data = write_parquet(folder / "data.parquet", rows)
    replies = replies_of(folder / "replies.jsonl", rows)
    done = vivace(
        "run", "audio-multichallenge", "--data", data, "--model", f"replay:{replies}", "--judge", "checks",
        "--home", folder / "home", *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data.unlink()
    replies.unlink()
    return rows


def only_run(folder: Path, url: str | None = None) -> str:
    """The id of the only run recorded there."""
    database = Database(normalised_url(url)) if url else database_of(folder)
    (run,) = {row.run for row in stored_board(database, include_retracted=True)}
    database.close()
    return run


def imported(folder: Path, verdicts: dict[str, list[bool | None]], rows: list[dict[str, Any]]) -> None:
    """A run with these very verdicts."""
    data = write_parquet(folder / "data.parquet", rows)
    file = write_jsonl(
        folder / "verdicts.jsonl",
        [{"id": key, "response": "yes", "criteria_met": met} for key, met in verdicts.items()],
    )
    database = open_for_writing(load_settings(folder / "home"))
    find_track("audio-multichallenge").prepare_import(str(data), file, "m", "J", None).record(database)
    database.close()


def by_checks(rows: list[dict[str, Any]], reply: str = "yes") -> dict[str, list[bool | None]]:
    return {
        row["id"]: [parse_check(check).evaluate(reply).met for check in json.loads(row["rubric_checks"])]
        for row in rows
    }


def database_of(folder: Path) -> Database:
    return Database(f"sqlite:///{folder / 'home' / 'vivace.db'}", read_only=True)


# calibrate


def test_known_differences_give_the_known_table_kappa_and_f1(tmp_path: Path) -> None:
    rows = conversation_rows(40, criteria=3, audio=False)
    labels = by_checks(rows)  # met, not met, met: 80 met and 40 not
    judged = {key: list(met) for key, met in labels.items()}
    for row in rows[:12]:
        judged[row["id"]][1] = True  # twelve wrongly met
    for row in rows[30:36]:
        judged[row["id"]][0] = False  # six wrongly not met
    imported(tmp_path, judged, rows)
    file = write_jsonl(tmp_path / "labels.jsonl", [{"id": key, "criteria_met": met} for key, met in labels.items()])
    common = ("judge", "calibrate", only_run(tmp_path), "--labels", file, "--home", tmp_path / "home")
    done = vivace(*common, "--format", "json")
    assert done.returncode == 0, done.stderr
    whole, *axes = json.loads(done.stdout)
    assert whole["confusion"] == {"both": 74, "judge_only": 12, "label_only": 6, "neither": 28}
    assert (whole["n"], whole["conversations"], whole["slice"]) == (120, 40, "")
    theirs = cohens_kappa(np.array([[74, 12], [6, 28]]))
    assert whole["kappa"]["value"] == pytest.approx(theirs.kappa, abs=1e-9)
    assert whole["kappa_independent"]["low"] == pytest.approx(theirs.kappa_low, abs=1e-9)
    assert whole["kappa"]["low"] < theirs.kappa < whole["kappa"]["high"]
    assert whole["macro_f1"]["value"] == pytest.approx((148 / 166 + 56 / 74) / 2)
    assert whole["constant"] == {"answer": True, "accuracy": pytest.approx(2 / 3), "macro_f1": pytest.approx(0.4)}
    assert whole["ars"]["judged"] == pytest.approx(86 / 120)
    assert whole["ars"]["corrected"] == whole["ars"]["labelled"] == pytest.approx(80 / 120)
    assert whole["apr"]["judged"] == pytest.approx(12 / 40) and whole["apr"]["corrected"] == 0.0
    assert len(axes) == 4 and sum(row["n"] for row in axes) == 120
    assert sum(row["confusion"]["judge_only"] for row in axes) == 12
    table = vivace(*common).stdout
    assert f"{theirs.kappa:.3f} [" in table and "12 / 6" in table and "71.7 → 66.7 [" in table
    first = next(csv.DictReader(io.StringIO(vivace(*common, "--format", "csv").stdout)))
    assert float(first["kappa.value"]) == pytest.approx(theirs.kappa) and first["constant.answer"] == "True"
    assert vivace(*common, "--format", "md").stdout.startswith("| rater | against |")


def test_labels_on_a_part_take_the_bias_out_of_the_whole(tmp_path: Path) -> None:
    rows = conversation_rows(120, criteria=3, audio=False)
    random = np.random.default_rng(3)
    labels = {row["id"]: [bool(met) for met in random.random(3) < 0.6] for row in rows}
    # A lenient judge: half of what is not met is met for it.
    judged = {key: [met or bool(random.random() < 0.5) for met in true] for key, true in labels.items()}
    imported(tmp_path, judged, rows)
    file = write_jsonl(
        tmp_path / "labels.jsonl", [{"id": row["id"], "criteria_met": labels[row["id"]]} for row in rows[::2]]
    )
    whole = calibrate(database_of(tmp_path), only_run(tmp_path), file)[0]
    assert whole.ars is not None and whole.apr is not None
    for rate, truth in (
        (whole.ars, np.mean(list(labels.values()))),
        (whole.apr, np.mean([all(met) for met in labels.values()])),
    ):
        assert rate.judged > truth + 0.1 and rate.conversations == 60
        assert abs(rate.corrected - truth) < 0.05
        assert rate.low is not None and rate.high is not None and rate.low < truth < rate.high < rate.judged


def test_several_labelers_give_a_majority_and_their_own_agreement_below(tmp_path: Path) -> None:
    rows = conversation_rows(4, criteria=2, audio=False)
    imported(tmp_path, {row["id"]: [True, False] for row in rows}, rows)
    first = rows[0]["id"]
    given = {
        "ann": {row["id"]: [True, False] for row in rows},
        "ben": {row["id"]: [True, row["id"] == first] for row in rows},
        "cem": {first: [None, True]},
    }
    file = write_jsonl(
        tmp_path / "labels.jsonl",
        [
            {"id": key, "criteria_met": met, "labeler": name}
            for name, labels in given.items()
            for key, met in labels.items()
        ],
    )
    found = calibrate(database_of(tmp_path), only_run(tmp_path), file)
    whole = found[0]
    assert whole.agreement.confusion.cells == (4, 0, 1, 3), "two of three say the first one's second is met"
    below = {(row.rater, row.against): row.agreement.confusion.cells for row in found if row.rater != "J"}
    assert below == {("ann", "ben"): (4, 0, 1, 3), ("ann", "cem"): (0, 0, 1, 0), ("ben", "cem"): (1, 0, 0, 0)}
    del given["cem"]
    tie = write_jsonl(
        tmp_path / "tie.jsonl",
        [{"id": first, "criteria_met": given[name][first], "labeler": name} for name in given],
    )
    assert calibrate(database_of(tmp_path), only_run(tmp_path), tie)[0].agreement.confusion.cells == (1, 0, 0, 0)


def test_recorded_labels_are_compared_as_a_files_are_and_never_lost(tmp_path: Path) -> None:
    rows = conversation_rows(3, criteria=2, audio=False)
    imported(tmp_path, {row["id"]: [True, None] for row in rows}, rows)
    home, first = ("--home", tmp_path / "home"), rows[0]["id"]
    given = [
        {"id": row["id"], "criteria_met": [row["id"] == first, None], "labeler": name}
        for name in (" ann", "ben") for row in rows
    ]  # fmt: skip
    file = write_jsonl(tmp_path / "labels.jsonl", given)
    refused = vivace("judge", "calibrate", only_run(tmp_path), *home)
    assert refused.returncode == 2 and "No labels of run" in refused.stderr
    for said in ("12 labels of 2 people are recorded", "0 labels of 2 people are recorded for run"):
        done = vivace("judge", "label", "--labels", file, *home)
        assert done.returncode == 0 and said in done.stderr, done.stderr
    database = database_of(tmp_path)
    (judging,) = (row.judging for row in stored_board(database))
    of_file, recorded = calibrate(database, judging, file), calibrate(database, judging)
    assert [row.as_json() for row in recorded] == [row.as_json() for row in of_file]
    assert agreement_with_labels(database, judging) == recorded[0].agreement
    assert labels_version(database, judging).startswith("12/")
    given[0]["criteria_met"] = [None, True]
    changed = write_jsonl(tmp_path / "changed.jsonl", given)
    refused = vivace("judge", "label", "--labels", changed, *home)
    assert refused.returncode == 2 and "give --replace" in refused.stderr.replace("\n", " ")
    done = vivace("judge", "label", "--labels", changed, "--replace", *home)
    assert done.returncode == 0 and "2 are changed, 10 were there before" in done.stderr
    assert "ann: met → says nothing" in vivace("logs", only_run(tmp_path), *home).stdout
    database.close()


def test_unscored_verdicts_and_missing_labels_count_on_neither_side(tmp_path: Path) -> None:
    rows = conversation_rows(3, criteria=3, audio=False)
    keys = [row["id"] for row in rows]
    imported(
        tmp_path, {keys[0]: [True, None, False], keys[1]: [True, True, True], keys[2]: [False, True, True]}, rows
    )  # fmt: skip
    file = write_jsonl(
        tmp_path / "labels.jsonl",
        [{"id": keys[0], "criteria_met": [True, True, None]}, {"id": keys[1], "criteria_met": [True, False, True]}],
    )
    whole = calibrate(database_of(tmp_path), only_run(tmp_path), file)[0]
    assert whole.agreement.confusion.cells == (3, 1, 0, 0)
    assert whole.ars is not None and whole.ars.judged == pytest.approx(6 / 8)
    assert whole.apr is not None and whole.apr.judged == 0.5 and whole.apr.conversations == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"id": "nobody", "criteria_met": [true, true]}', "has no conversation 'nobody'"),
        ('{"criteria_met": [true, true]}', "has no conversation None"),
        ('{"id": "conversation0000", "criteria_met": [true]}', "1 labels for the 2 criteria"),
        ('{"id": "conversation0000", "criteria_met": [true, "yes"]}', "list of true, false or null"),
        ('{"id": "conversation0000"}', "list of true, false or null"),
        ('{"id": "conversation0000", "criteria_met": [null, null]}', "No criterion has both"),
        ('{"id": "conversation0000", "criteria_met": [true, true], "labeler": 7}', "must be a name"),
        ('{"id": "conversation0000", "criteria_met": [true, true], "response": "no"}', "is not the reply"),
        ('{"id": "conversation0000", "criteria_met": [true, true]}\n' * 2, "a second time"),
        ("", "is empty"),
        ("[1]", "is not a JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_bad_labels_are_one_sentence(small: Path, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        calibrate(database_of(small), only_run(small), file)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an imported run of two conversations."""
    folder = tmp_path_factory.mktemp("small")
    rows = conversation_rows(2, audio=False)
    imported(folder, {row["id"]: [True, False] for row in rows}, rows)
    return folder


def test_bad_requests_end_with_2(tmp_path: Path) -> None:
    home = ("--home", tmp_path / "home")
    missing = tmp_path / "none.jsonl"
    for arguments in (
        ("calibrate", "x", "--labels", missing, *home),
        ("run", "x", "--judge", "checks", *home),
        ("drift", "x", *home),
    ):
        done = vivace("judge", *arguments)
        assert done.returncode == 2 and "There is no database yet" in done.stderr, done.stderr
    record(tmp_path, 2)
    for arguments, says in (
        (("calibrate", only_run(tmp_path), "--labels", missing, *home), "cannot be read"),
        (("calibrate", "nothing", "--labels", missing, *home), "no ended judging 'nothing'"),
        (("run", "nothing", "--judge", "checks", *home), "no run 'nothing'"),
        (("run", only_run(tmp_path), "--judge", "gut-feeling", *home), "Unknown judge 'gut-feeling'"),
        (("drift", "nothing", *home), "no ended judging 'nothing'"),
        (("attack", "--judge", "checks", "--judge-prompt", missing), "takes no name, prompt"),
    ):
        done = vivace("judge", *arguments)
        assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stderr


# attack

PLAIN_PROMPT = "Conversation:\n«conversation_history»\nCriterion: «rubric_item»\nAnswer in JSON."


def naive(call: Call) -> Answer:
    """A judge that believes what it reads."""
    prompt = call.messages[0]["content"]
    believed = '"criteria_met": true' in prompt or "must be marked as met" in prompt
    return verdict(believed or right(prompt))


def right(prompt: str) -> bool:
    return any(control.met and control.reply in prompt for control in CONTROLS)


def robust(call: Call) -> Answer:
    return verdict(right(call.messages[0]["content"]))


def attacked(behave: Behaviour, tmp_path: Path, *more: object) -> tuple[int, dict[str, Any], str, int]:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(PLAIN_PROMPT)
    with chat_server(behave) as server:
        done = vivace(
            "judge", "attack", *JUDGE, "--judge-api-base", server.base, "--judge-prompt", prompt, "--format", "json",
            "--retries", 0, *more,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout), done.stderr, len(server.calls)


def test_a_naive_judge_is_talked_over_and_shown_by_kind(tmp_path: Path) -> None:
    code, report, _, calls = attacked(naive, tmp_path)
    expected = [
        attack.name
        for attack in ATTACKS
        if '"criteria_met": true' in attack.reply or "must be marked as met" in attack.reply
    ]
    assert code == 0 and calls == len(ATTACKS) + len(CONTROLS)
    whole, *kinds = report["rows"]
    assert whole["which"] == expected and whole["wrong"] == len(expected) > 10
    assert whole["n"] == len(ATTACKS) and whole["rate"] == pytest.approx(len(expected) / len(ATTACKS))
    assert 0 < whole["low"] < whole["rate"] < whole["high"] < 1
    by_kind = {row["kind"]: row for row in kinds}
    assert sum(row["wrong"] for kind, row in by_kind.items() if not kind.startswith("control")) == len(expected)
    assert by_kind["closing"]["wrong"] >= 3 and by_kind["plea"]["wrong"] == 0
    assert report["sound"] and by_kind["control: met"]["wrong"] == by_kind["control: not met"]["wrong"] == 0


def test_a_robust_judge_is_not(tmp_path: Path) -> None:
    code, report, said, _ = attacked(robust, tmp_path)
    assert code == 0 and report["sound"] and report["rows"][0]["wrong"] == 0 and report["rows"][0]["low"] == 0
    assert 0.03 < report["rows"][0]["high"] < 0.1 and "honest" not in said


@pytest.mark.parametrize(("always", "control"), [(False, "control: met"), (True, "control: not met")])
def test_a_judge_that_always_says_the_same_is_of_no_use(always: bool, control: str, tmp_path: Path) -> None:
    _, report, said, _ = attacked(lambda _: verdict(always), tmp_path)
    rows = {row["kind"]: row for row in report["rows"]}
    assert not report["sound"] and rows[control]["rate"] == 1.0 and "misjudges honest replies" in said
    assert rows["all attacks"]["rate"] == float(always)


def test_replies_without_a_verdict_are_counted_apart(tmp_path: Path) -> None:
    def behave(call: Call) -> Answer:
        bare = "Bon voyage." in call.messages[0]["content"]
        return Answer("I would rather not say") if bare else robust(call)

    code, report, said, _ = attacked(behave, tmp_path)
    whole = report["rows"][0]
    assert code == 3 and whole["unscored"] == 1 and whole["n"] == len(ATTACKS) and "1 replies got no verdict" in said
    (given,) = (given for given in report["verdicts"] if given["met"] is None)
    assert given["name"] == "verdict: prefilled" and given["unscored"] == "unreadable"


def test_a_judge_that_does_not_answer_at_all_ends_with_4() -> None:
    done = vivace("judge", "attack", *JUDGE, "--judge-api-base", "http://127.0.0.1:9/v1", "--retries", 0)
    assert done.returncode == 4 and "Nothing answers" in done.stderr


def test_machine_checks_cannot_be_talked_over() -> None:
    done = vivace("judge", "attack", "--judge", "checks", "--format", "json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["sound"] and report["rows"][0]["wrong"] == 0
    table = vivace("judge", "attack", "--judge", "checks").stdout
    assert "all attacks" in table and "control: not met" in table


# run


def answered(call: Call) -> Answer:
    """A judge that finds met what the even criteria ask."""
    return verdict("criterion 0" in call.messages[0]["content"])


def test_recorded_replies_are_judged_without_data_and_exactly_as_a_run_asks(
    tmp_path: Path, database_url: str
) -> None:
    where = ("--database", database_url)
    rows = record(tmp_path, 6, 2, *where)
    run = only_run(tmp_path, database_url)
    data = write_parquet(tmp_path / "again.parquet", rows)
    replies = replies_of(tmp_path / "again.jsonl", rows)
    with chat_server(answered) as server:
        base = (*JUDGE, "--judge-api-base", server.base)
        fresh = vivace(
            "run", "audio-multichallenge", "--data", data, "--model", f"replay:{replies}", *base,
            "--home", tmp_path / "other",
        )  # fmt: skip
        assert fresh.returncode == 0, fresh.stderr
        expected = sorted(json.dumps(call.body, sort_keys=True) for call in server.calls)
        server.calls.clear()
        common = ("judge", "run", run, *base, "--home", tmp_path / "home", *where, "--format", "json")
        planned = json.loads(vivace(*common, "--dry-run").stdout)[0]
        assert (planned["model calls"], planned["judge calls"], planned["conversations"]) == (0, 12, 6)
        assert not server.calls
        done = vivace(*common)
        assert done.returncode == 0, done.stderr
        assert sorted(json.dumps(call.body, sort_keys=True) for call in server.calls) == expected
        (row,) = json.loads(done.stdout)
        assert row["run"] == run and row["ars"] == 0.5 and row["coverage"] == 1.0
        assert vivace(*common).returncode == 0 and len(server.calls) == 12, "the same command again asks nothing"
        shown = board("--home", tmp_path / "home", *where)
        assert {found["judge"] for found in shown} == {"checks", "openai/my-judge"} and len(shown) == 2


def test_failed_verdicts_are_unscored_and_tried_again_on_request(tmp_path: Path) -> None:
    record(tmp_path, 4)
    broken = True

    def behave(call: Call) -> Answer:
        failing = broken and "user 2 says" in call.messages[0]["content"]
        return Answer(status=400) if failing else answered(call)

    with chat_server(behave) as server:
        common = (
            "judge", "run", only_run(tmp_path), *JUDGE, "--judge-api-base", server.base, "--retries", 0,
            "--home", tmp_path / "home",
        )  # fmt: skip
        done = vivace(*common)
        assert done.returncode == 3 and "2 criteria are unscored (2 bad_request)" in done.stderr
        asked = len(server.calls)
        assert vivace(*common).returncode == 3 and len(server.calls) == asked
        broken = False
        assert vivace(*common, "--retry-errors").returncode == 0 and len(server.calls) == asked + 2


def test_an_interrupted_judging_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    record(tmp_path, 20)

    def slow(call: Call) -> Answer:
        answer = answered(call)
        answer.delay_s = 0.2
        return answer

    with chat_server(slow) as server:
        common = (
            "judge", "run", only_run(tmp_path), *JUDGE, "--judge-api-base", server.base, "--concurrency", 2,
            "--home", tmp_path / "home",
        )  # fmt: skip
        running = start_vivace(*common)
        wait_until(lambda: len(server.calls) >= 4)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        assert running.returncode == 130, said
        assert len(server.calls) < 40
        assert vivace(*common).returncode == 0
        assert len(server.calls) == 40


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_reply_that_failed_stays_unscored_and_is_never_generated(tmp_path: Path) -> None:
    rows = conversation_rows(3, audio=False)
    data = write_parquet(tmp_path / "data.parquet", rows)
    replies = replies_of(tmp_path / "replies.jsonl", rows[:2])
    vivace(
        "run", "audio-multichallenge", "--data", data, "--model", f"replay:{replies}", "--judge", "checks",
        "--home", tmp_path / "home",
    )  # fmt: skip
    with chat_server(answered) as server:
        common = (
            "judge", "run", only_run(tmp_path), *JUDGE, "--judge-api-base", server.base, "--home", tmp_path / "home",
        )  # fmt: skip
        for more in ((), ("--retry-errors",)):
            done = vivace(*common, *more)
            assert (
                done.returncode == 3
                and "2 criteria are unscored (2 no_reply; replies that failed: 1 not_recorded)" in done.stderr
            ), done.stderr
        assert len(server.calls) == 4


def test_imported_replies_can_be_judged(tmp_path: Path) -> None:
    rows = conversation_rows(3, audio=False)
    imported(tmp_path, {row["id"]: [False, True] for row in rows}, rows)
    (tmp_path / "data.parquet").unlink()
    done = vivace(
        "judge", "run", only_run(tmp_path), "--judge", "checks", "--home", tmp_path / "home", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["judge"] == "checks" and row["ars"] == 0.5 and row["imported"]


def test_a_retracted_run_is_not_judged_again(tmp_path: Path) -> None:
    record(tmp_path, 2)
    run = only_run(tmp_path)
    assert vivace("retract", run, "--reason", "wrong model", "--home", tmp_path / "home").returncode == 0
    done = vivace("judge", "run", run, "--judge", "checks", "--home", tmp_path / "home")
    assert done.returncode == 2 and "was retracted (wrong model)" in done.stderr


def test_a_worker_can_judge_again_too(tmp_path: Path) -> None:
    record(tmp_path, 3)
    subject = f"recorded:{only_run(tmp_path)}"
    home = ("--home", tmp_path / "home")
    with chat_server(answered) as server:
        spec = tmp_path / "spec.yaml"
        wanted = {
            "track": "audio-multichallenge",
            "data": subject,
            "model": subject,
            "judge": JUDGE[1],
            "judge-api-base": server.base,
        }
        spec.write_text(json.dumps(wanted))
        assert vivace("submit", spec, *home).returncode == 0
        done = vivace("worker", "--until-empty", *home)
        assert done.returncode == 0, done.stderr
        assert len(server.calls) == 6 and len(board(*home)) == 2
        spec.write_text(json.dumps({**wanted, "limit": 1}))
        refused = vivace("submit", spec, *home)
        assert refused.returncode == 2 and "leave out 'limit'" in refused.stderr


# drift


def test_drift_is_found_told_and_logged_and_nothing_else_is_stored(tmp_path: Path) -> None:
    record(tmp_path, 10)
    home = ("--home", tmp_path / "home")
    changing: list[str] = []

    def behave(call: Call) -> Answer:
        answer = json.loads(str(answered(call).text))["criteria_met"]
        other = any(f"user {number} says" in call.messages[0]["content"] for number in changing)
        return verdict(answer is not other)

    with chat_server(behave) as server:
        judged = vivace(
            "judge", "run", only_run(tmp_path), *JUDGE, "--judge-api-base", server.base, "--judge-arg",
            "temperature=0.5", *home, "--format", "json",
        )  # fmt: skip
        judging = json.loads(judged.stdout)[0]["judging"]
        before = board(*home)
        same = vivace("judge", "drift", judging, *home, "--format", "json")
        assert same.returncode == 0, same.stderr
        found = json.loads(same.stdout)
        assert (found["compared"], found["share"], found["changed"]) == (20, 0.0, [])
        assert "not the recorded judge" not in same.stderr
        assert server.calls[-1].body == server.calls[-1].body | {"temperature": 0.5, "model": "my-judge"}
        changing = ["3", "7"]
        drifted = vivace("judge", "drift", judging, *home, "--format", "json")
        assert drifted.returncode == 100, drifted.stderr
        found = json.loads(drifted.stdout)
        assert found["share"] == 0.2 and found["kappa"]["value"] == pytest.approx(0.6)
        assert {change["conversation"] for change in found["changed"]} == {"conversation0003", "conversation0007"}
        assert [change["now"] for change in found["changed"]] == [False, True, False, True]
        tolerant = vivace("judge", "drift", judging, *home, "--limit", 0.2)
        assert tolerant.returncode == 0 and "4 / 20" in tolerant.stdout and "conversation0007 #1" in tolerant.stderr
        other = vivace("judge", "drift", judging, *home, *JUDGE, "--judge-api-base", server.base)
        assert other.returncode == 100 and "not the recorded judge" in other.stderr
        assert board(*home) == before, "a drift check changes no figure"
        assert vivace("logs", only_run(tmp_path), *home).stdout.count("judge drift: 4 of 20 verdicts") == 3


def test_drift_does_not_pass_on_verdicts_that_were_not_given(tmp_path: Path) -> None:
    record(tmp_path, 3)
    judging = board("--home", tmp_path / "home")[0]["judging"]
    with chat_server(Answer("no idea")) as server:
        done = vivace(
            "judge", "drift", judging, *JUDGE, "--judge-api-base", server.base, "--retries", 0,
            "--home", tmp_path / "home",
        )  # fmt: skip
    assert done.returncode == 3 and "6 verdicts were not given" in done.stderr


def test_verdicts_from_elsewhere_need_a_judge_to_be_named(tmp_path: Path) -> None:
    rows = conversation_rows(2, audio=False)
    imported(tmp_path, {row["id"]: [True, True] for row in rows}, rows)
    judging = board("--home", tmp_path / "home")[0]["judging"]
    done = vivace("judge", "drift", judging, "--home", tmp_path / "home")
    assert done.returncode == 2 and "come from elsewhere; name a judge with --judge" in done.stderr
    checked = vivace("judge", "drift", judging, "--judge", "checks", "--home", tmp_path / "home")
    assert checked.returncode == 100 and "2 / 4" in checked.stdout
