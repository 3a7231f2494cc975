"""`vivace compare` and `vivace plan` on runs whose differences are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.datasets import conversation_rows, write_jsonl
from support.program import board, vivace


def imported(folder: Path, name: str, verdicts: dict[str, list[bool | None]], judge: str = "J") -> str:
    """Import verdicts as a system of this name, and return its judging's id."""
    lines = [json.dumps({"id": key, "response": "x", "criteria_met": met}) for key, met in verdicts.items()]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    done = vivace(
        "import", "audio-multichallenge", "--data", folder / "data.jsonl", "--verdicts", folder / f"{name}.jsonl",
        "--model", name, "--judge-name", judge, "--home", folder / "home", "--format", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)[0]["judging"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of 40 conversations of two criteria, text only."""
    folder = tmp_path_factory.mktemp("compare")
    write_jsonl(folder / "data.jsonl", conversation_rows(40, audio=False))
    return folder


@pytest.fixture(scope="module")
def judgings(folder: Path) -> dict[str, str]:
    """Three systems: `weak` passes 10, `strong` passes 30, of which 2 are not among weak's; `same` is `weak`."""
    keys = [row["id"] for row in conversation_rows(40, audio=False)]
    weak = {key: [number < 10, True] for number, key in enumerate(keys)}
    strong = {key: [number < 31 and number != 3, True] for number, key in enumerate(keys)}
    part: dict[str, list[bool | None]] = {key: [met[0], None] for key, met in weak.items()}
    return {
        "weak": imported(folder, "weak", weak),
        "strong": imported(folder, "strong", strong),
        "same": imported(folder, "same", weak),
        "part": imported(folder, "part", part),
        "other judge": imported(folder, "other", weak, judge="K"),
    }


def compared(folder: Path, *arguments: object) -> dict[str, Any]:
    """What `vivace compare` finds."""
    done = vivace("compare", *arguments, "--home", folder / "home", "--format", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_known_difference(folder: Path, judgings: dict[str, str]) -> None:
    found = compared(folder, judgings["weak"], judgings["strong"])
    apr = next(row for row in found["rows"] if (row["metric"], row["slice"]) == ("apr", ""))
    assert (apr["value_a"], apr["value_b"], apr["n"]) == (10 / 40, 30 / 40, 40)
    assert (apr["gained"], apr["lost"]) == (21, 1)
    # Of 22 flips one the other way: 2 · (1 + 22) / 2^22.
    assert apr["p_value"] == pytest.approx(2 * 23 / 2**22, rel=1e-12)
    assert apr["p_value"] <= apr["p_adjusted"] <= 10 * apr["p_value"]
    assert apr["low"] < 0.5 < apr["high"] and apr["low"] > 0.25
    assert len(found["flips"]) == 22
    assert sum(flip["better"] == "weak" for flip in found["flips"]) == 1
    assert sum(flip["direction"] == "lost" for flip in found["flips"]) == 1
    assert {(flip["a"], flip["b"]) for flip in found["flips"]} == {("weak", "strong")}
    assert {row["slice"] for row in found["rows"]} == {
        "", "INFERENCE_MEMORY", "INSTRUCTION_RETENTION", "SELF_COHERENCE", "VOICE_EDITING",
    }  # fmt: skip


def test_equal_systems_do_not_differ(folder: Path, judgings: dict[str, str]) -> None:
    found = compared(folder, judgings["weak"], judgings["same"])
    assert all(row["difference"] == 0 and row["p_adjusted"] == 1 for row in found["rows"])
    assert found["flips"] == []


def test_unscored_criteria_count_on_neither_side(folder: Path, judgings: dict[str, str]) -> None:
    found = compared(folder, judgings["part"], judgings["strong"])
    assert not [row for row in found["rows"] if row["metric"] == "apr"], "no conversation is wholly scored in both"
    ars = next(row for row in found["rows"] if row["slice"] == "")
    assert (ars["value_a"], ars["value_b"]) == (10 / 40, 30 / 40)


def test_other_judges_are_refused_unless_forced(folder: Path, judgings: dict[str, str]) -> None:
    refused = vivace("compare", judgings["weak"], judgings["other judge"], "--home", folder / "home")
    assert refused.returncode == 2 and "judges differ" in refused.stderr
    assert compared(folder, judgings["weak"], judgings["other judge"], "--force")["caveats"]


@pytest.mark.parametrize("arguments", [["nothing"], ["nothing", "at all"], ["SAME", "SAME"]])
def test_bad_input_is_one_sentence(folder: Path, judgings: dict[str, str], arguments: list[str]) -> None:
    chosen = [judgings["weak"] if argument == "SAME" else argument for argument in arguments]
    done = vivace("compare", *chosen, "--home", folder / "home")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_plan_asks_for_more_conversations_for_a_smaller_difference(folder: Path, judgings: dict[str, str]) -> None:
    needed = []
    for difference in ("0.2", "0.1"):
        done = vivace(
            "plan", judgings["weak"], judgings["strong"], "--difference", difference,
            "--home", folder / "home", "--format", "json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        needed.append({row["metric"]: row["conversations_needed"] for row in json.loads(done.stdout)}["apr"])
    assert needed[1] == pytest.approx(4 * needed[0], rel=0.1)


def test_the_board_is_what_is_compared(folder: Path, judgings: dict[str, str]) -> None:
    rates = {row["judging"]: row["apr"] for row in board("--home", folder / "home")}
    apr = next(
        row
        for row in compared(folder, judgings["weak"], judgings["strong"])["rows"]
        if (row["metric"], row["slice"]) == ("apr", "")
    )
    assert (apr["value_a"], apr["value_b"]) == (rates[judgings["weak"]], rates[judgings["strong"]])
