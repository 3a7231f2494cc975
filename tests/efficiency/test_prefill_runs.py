"""The prefill track through the program: boards say what was kept, and rankings stand beside the oracle's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.lab import opened
from support.program import board, vivace
from vivace.store.queries.efficiency import diagnoses

pytestmark = pytest.mark.usefixtures("models_start_at_once")

TASK = "needles(length=128,keys=1)"


@pytest.mark.full
def test_rankings_are_diagnosed_and_recorded(tmp_path: Path) -> None:
    where = ("--home", tmp_path / "home")
    told = vivace("methods", "diagnose", "prefill", "--model", "zoo:retrieval", "--tasks", TASK, "--limit", 1,
                  "--keep", 0.4, "--draft", "zoo:retrieval", *where, "--format", "json")  # fmt: skip
    assert told.returncode == 0, told.stderr
    rows = json.loads(told.stdout)
    measures = {row["kind"] for row in rows}
    assert measures == {"rank_correlation", "oracle_recall", "oracle_jaccard", "evidence_recall"}
    assert {row["layer"] for row in rows if row["setting"] == "fastkv"} == set("012345")
    assert {row["value"] for row in rows if row["setting"] == "oracle"} == {1.0}, "all of the note answers"
    # The draft is the model once more, whose first eight tokens are the whole answer.
    drafted = {row["kind"]: row["value"] for row in rows if row["setting"].startswith("spec-prefill")}
    assert set(drafted) == measures and drafted["evidence_recall"] == 1.0 and drafted["rank_correlation"] > 0.5
    rows_of = {row["method"]: row for row in board("prefill", *where)}
    assert set(rows_of) == {"full", "oracle", "spec-prefill"}
    oracle = rows_of["oracle"]
    figures = {name: figure["value"] for name, figure in oracle["figures"].items()}
    assert figures["quality"] == figures["agreement"] == figures["figure_evidence_share"] == 1.0
    assert figures["figure_kept_share"] == pytest.approx(0.4, abs=0.01) and figures["figure_prune_layer"] == 3
    assert figures["flops_ratio"] > 1, "it reads the prompt twice"
    with opened(f"sqlite:///{tmp_path / 'home' / 'vivace.db'}") as database:
        kept = {
            row.layer: row.value
            for row in diagnoses(database, oracle["run"], oracle["arm"])
            if row.kind == "kept_tokens"
        }
    assert [kept[str(layer)] for layer in range(4)] == [1.0] * 4
    assert kept["4"] == kept["5"] == pytest.approx(figures["figure_kept_share"])


def test_what_cannot_be_pruned_ends_with_a_sentence_before_anything_is_timed(tmp_path: Path) -> None:
    where = ("--home", tmp_path / "home")
    refused = {
        ("methods", "diagnose", "sparsity", "--model", "zoo:dense"): "none on 'sparsity'",
        ("methods", "diagnose", "prefill", "--model", "zoo:retrieval", "--tasks", TASK, "--keep", 0): "above 0",
        (
            "methods",
            "diagnose",
            "prefill",
            "--model",
            "zoo:retrieval",
            "--tasks",
            TASK,
            "--draft",
            "zoo:dense",
        ): "another tokenizer",
        ("run", "prefill", "--model", "zoo:retrieval", "--tasks", TASK, "--arms", "claa(layer=6)"): "layers 0 to 5",
        ("run", "prefill", "--model", "zoo:retrieval", "--tasks", TASK, "--arms", "spec-prefill"): "needs a drafter",
    }
    for command, sentence in refused.items():
        done = vivace(*command, *where)
        assert done.returncode == 2 and sentence in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert board("prefill", *where) == []
