"""Whole runs of the efficiency tracks through the program, on a model of the zoo."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import func, select

from engine.lab import opened, wait_until
from support.preloaded import ALL_PAIRS, NEEDED
from support.program import PROGRAM, board, start_vivace, vivace
from vivace.store.database import Database
from vivace.store.tables import Arm, Run, Trial

pytestmark = pytest.mark.usefixtures("models_start_at_once")

ARM = "eagle-3(depth=2):zoo:moe-drafter"
RUN = ("run", "speculation", "--model", "zoo:moe", "--arms", ARM, "--tasks", "sums,code")


def trials(url: str) -> list[tuple[str, str, int, str]]:
    """Arm, prompt, repetition and session of all that is recorded."""
    with opened(url) as database, database.read() as session:
        query = select(Arm.name, Trial.prompt, Trial.repetition, Trial.measurements).join(Arm)
        return [(*row[:3], row[3]["trial"]["session"]) for row in session.execute(query)]


def count(url: str) -> int:
    """How many trials are recorded; 0 where there is no database yet."""
    try:
        with opened(url) as database:
            return recorded(database)
    except Exception:
        return 0


def recorded(database: Database) -> int:
    """How many trials are recorded."""
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Trial)) or 0


def test_a_run_is_measured_shown_and_found_done(tmp_path: Path) -> None:
    where = ("--home", tmp_path / "home")
    options = (*RUN, "--limit", 1, "--repeats", 2, *where)
    done = vivace(*options, "--format", "json")
    assert done.returncode == 0, done.stderr
    baseline, arm = json.loads(done.stdout)
    assert (baseline["arm"], baseline["baseline"], arm["arm"]) == ("autoregressive", True, ARM)
    assert arm["settings"]["depth"] == 2 and arm["fitted"] == "zoo:moe-drafter"
    for row in (baseline, arm):
        assert row["synthetic"] and not row["official"]
        assert row["figures"]["quality"]["value"] == 1.0 and row["figures"]["quality"]["n"] == 2
        assert row["figures"]["trials"]["n"] == 4
        assert row["figures"]["floor_s"]["value"] < row["figures"]["total_s"]["value"]
        assert set(row["tasks"]) == {"sums", "code"}
        assert row["floor"]["read_bytes_per_s"] > 1e8
        assert row["hardware_details"]["threads"] == 1
    assert arm["figures"]["agreement"]["value"] == 1.0
    assert 2 < arm["figures"]["figure_tau"]["value"] <= 3
    assert arm["figures"]["flops_ratio"]["value"] > 1, "drafts that are thrown away were computed"
    assert arm["cost_axis"] == "bytes_ratio"

    again = vivace(*options, "--format", "json")
    assert json.loads(again.stdout) == json.loads(done.stdout)
    shown = vivace("leaderboard", "speculation", *where)
    assert "★" in shown.stdout and ARM in shown.stdout and "synthetic" in shown.stdout
    assert [row["arm"] for row in board("speculation", *where)] == ["autoregressive", ARM]
    assert board("sparsity", *where) == []
    status = json.loads(vivace("status", "--format", "json", *where).stdout)
    assert [(row["unit"], row["items_done"], row["items_planned"]) for row in status] == [("trials", 8, 8)]

    run = baseline["run"]
    exported = [json.loads(line) for line in vivace("export", run, *where).stdout.splitlines()]
    assert Counter(row["arm"] for row in exported) == {"autoregressive": 4, ARM: 4}
    assert all(row["quality"] == 1.0 and len(row["tokens"]) == row["output_tokens"] for row in exported)
    file = tmp_path / "trials.parquet"
    assert vivace("export", run, "--format", "parquet", "--output", file, *where).returncode == 0
    table = pyarrow.parquet.read_table(file).to_pylist()
    assert [json.loads(row["tokens"]) for row in table] == [row["tokens"] for row in exported]
    csv = vivace("export", run, "--format", "csv", *where).stdout.splitlines()
    assert len(csv) >= 9 and csv[0].startswith("run,arm,prompt,repetition")

    assert vivace("retract", run, "--reason", "a trial of it", *where).returncode == 0
    assert board("speculation", *where) == []
    assert {row["retracted"] for row in board("speculation", "--retracted", *where)} == {"a trial of it"}
    refused = vivace(*options)
    assert refused.returncode == 2 and "was retracted" in refused.stderr


def test_what_was_timed_before_a_kill_stays_and_rounds_are_never_mixed(postgres_url: str, tmp_path: Path) -> None:
    database_url = postgres_url  # the other tests are on SQLite
    where = ("--home", tmp_path / "home", "--database", database_url)
    options = (*RUN, "--limit", 4, "--repeats", 2, "--most-tokens", 16, *where)
    planned = 2 * 8 * 2
    with opened(database_url) as database:  # once: to connect for every look would take as long as a trial
        killed = start_vivace(*options)
        wait_until(lambda: recorded(database) >= 5, "some trials")
        killed.kill()
        killed.communicate()
        before = trials(database_url)
        assert 5 <= len(before) < planned

        stopped = start_vivace(*options)
        wait_until(lambda: recorded(database) >= len(before) + 3, "some more")
    stopped.send_signal(signal.SIGINT)
    _, talk = stopped.communicate(timeout=300)
    if stopped.returncode == 130:  # else it was through before it heard
        assert "the same command goes on" in talk
        done = vivace(*options)
        assert done.returncode == 0, done.stderr
    after = trials(database_url)
    assert len(after) == len({row[:3] for row in after}) == planned
    rounds: dict[tuple[str, int], list[str]] = {}
    for _, prompt, repetition, session in after:
        rounds.setdefault((prompt, repetition), []).append(session)
    assert all(len(sessions) == 2 and len(set(sessions)) == 1 for sessions in rounds.values())
    kept = Counter(row[3] for row in after)
    assert kept[before[0][3]] >= len(before) - 1, "only the round that was cut is timed again"
    with opened(database_url) as database, database.read() as session:
        run = session.scalars(select(Run)).one()
        assert run.status == "generated" and run.measured is not None and run.measured["sessions"]


def test_nothing_is_left_running_when_the_program_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(sys, "executable", PROGRAM[0])
    url = f"sqlite:///{tmp_path / 'home' / 'vivace.db'}"
    small = ("run", "sparsity", "--model", "zoo:dense", "--arms", "dense", "--tasks", "sums", "--most-tokens", 8)
    killed = start_vivace(*small, "--limit", 200, "--home", tmp_path / "home")  # for longer than the test takes
    wait_until(lambda: count(url) >= 1, "a trial")
    children = psutil.Process(killed.pid).children(recursive=True)
    assert children, "trials are timed in a process of their own"
    killed.kill()
    killed.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_a_suite_runs_one_spec_after_the_other_and_a_worker_takes_one(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "limit: 1\nrepeats: 1\nmost_tokens: 16\nmodel: zoo:dense\ntasks: [sums]\n"
        "runs:\n  - {track: sparsity, arms: [dense(cache=static)]}\n"
        "  - {track: prefill, arms: [full(attention=eager)]}\n"
    )
    where = ("--home", tmp_path / "home")
    plan = vivace("run", "--config", suite, "--dry-run", "--format", "json", *where)
    assert [row["trials"] for row in json.loads(plan.stdout)] == [2, 2], plan.stderr
    assert not (tmp_path / "home").exists()
    assert vivace("submit", suite, *where).returncode == 0
    worker = vivace("worker", "--until-empty", *where, **NEEDED)
    assert worker.returncode == 0, worker.stderr
    rows = board(*where)
    assert [(row["track"], row["arm"]) for row in rows] == [
        ("sparsity", "dense"),
        ("sparsity", "dense(cache=static)"),
        ("prefill", "full"),
        ("prefill", "full(attention=eager)"),
    ]
    for row in rows:
        assert row["figures"]["perplexity"]["value"] == pytest.approx(1.0, abs=0.05), "it knows its sums by heart"
        if not row["baseline"]:
            assert row["figures"]["agreement"]["value"] == 1.0
            assert row["figures"]["kl_per_token"]["value"] == pytest.approx(0.0, abs=1e-6)


def test_an_arm_that_cannot_be_applied_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    options = ("run", "speculation", "--model", "zoo:dense", "--arms", "eagle-3:zoo:moe-drafter", "--tasks", "sums")
    done = vivace(*options, "--limit", 1, "--home", tmp_path / "home")
    assert done.returncode == 2
    assert "it belongs to another model" in done.stderr and "Traceback" not in done.stderr


def test_a_checkpoint_is_timed_and_each_arm_takes_its_memory_alone(tmp_path: Path) -> None:
    from vivace.zoo.shipped import folder_of

    where = ("--home", tmp_path / "home")
    options = ("--model", f"local:{folder_of('moe')}", "--arms", ARM, "--tasks", "code", "--limit", 1, "--repeats", 1)
    done = vivace("run", "speculation", *options, *where, "--format", "json", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "The baseline is autoregressive" in done.stderr
    rows = json.loads(done.stdout)
    assert [row["method"] for row in rows] == ["autoregressive", "eagle-3"] and rows[0]["baseline"]
    for row in rows:
        assert row["adapter"] == "local" and row["cost_axis"] == "speed_ratio"
        assert 1e8 < row["figures"]["peak_bytes_process"]["value"] < 4e9
    assert "synthetic" not in vivace("leaderboard", *where).stdout
    again = vivace("run", "speculation", *options, *where, "--format", "json", "--threads", 1)
    assert json.loads(again.stdout) == rows


def test_random_models_are_timed_on_token_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALL_PAIRS, "1")  # answers are short, and audited as a user's are
    options: tuple[Any, ...] = (
        "run", "prefill", "--model", "random:olmoe", "--seed", 3, "--tasks",
        "tokens(length=64,vocabulary=199)", "--limit", 2, "--repeats", 1, "--most-tokens", 4, "--dtype", "bfloat16",
        "--threads", 1,
        "--arms", "full(attention=eager)", "--baseline", "full", "--home", tmp_path / "home",
    )  # fmt: skip
    done = vivace(*options, "--format", "json")
    assert done.returncode == 0, done.stderr
    baseline, arm = json.loads(done.stdout)
    assert baseline["model"] == "olmoe" and baseline["adapter"] == "random"
    assert "quality" not in arm["figures"] and not arm["frontier"]
    assert arm["cost_axis"] == "ttft_ratio" and arm["figures"]["ttft_ratio"]["value"] > 0
    assert "random weights: the answers mean nothing" in arm["unofficial_reasons"]
    assert arm["figures"]["peak_bytes_process"]["value"] > 1e8
    large = vivace(*options[:3], "random:allenai/OLMoE-1B-7B-0125", "--layers", 2, *options[4:], "--dry-run")
    assert large.returncode == 0 and "OLMoE-1B-7B-0125" in large.stdout
    words = vivace(*options[:7], "sums", *options[8:])
    assert words.returncode == 2 and "give it the task tokens" in words.stderr


def test_a_longbench_prompt_that_the_model_does_not_hold_is_cut_and_that_is_said(tmp_path: Path) -> None:
    rows = [
        {"dataset": "trec", "input": "type :", "context": " ".join(map(str, range(length))), "answers": ["loop"],
         "all_classes": ["loop", "sum"], "_id": f"{length}"}
        for length in (9, 400)
    ]  # fmt: skip
    (tmp_path / "trec.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = ("--home", tmp_path / "home")
    options: tuple[Any, ...] = (
        "run", "prefill", "--model", "zoo:moe", "--tasks", f"longbench(path={tmp_path / 'trec.jsonl'},subset=trec)",
        "--repeats", 1, *where,
    )  # fmt: skip
    done = vivace(*options, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 prompts are longer than the model holds" in done.stderr
    (row,) = json.loads(done.stdout)
    with opened(f"sqlite:///{tmp_path / 'home' / 'vivace.db'}") as database, database.read() as session:
        told = session.execute(select(Trial.prompt, Trial.measurements)).all()
    lengths = {prompt.rpartition("/")[2]: measurements["prompt_tokens"] for prompt, measurements in told}
    assert lengths["400"] == 256 - 64 and lengths["9"] < 100
    assert "left out of their middle" in vivace("logs", row["run"], *where).stdout
