"""`vivace plan speculation`: what is tried, what is proposed from half of the prompts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.program import vivace
from vivace.analysis.speculation.planning import plan_speculation
from vivace.analysis.speculation.sweep import PLAIN, Answers, DraftForm, agreement, forms_of
from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tracks.efficiency.prompts import PlannedPrompt
from vivace_methods.speculation.prospects.answers import Answer
from vivace_methods.timing import floor

CHAIN, TREE, TIGHT = DraftForm(4, False), DraftForm(16, True), DraftForm(16, True, 8)


def answer(given: int, step: float, tokens: tuple[int, ...] = (1, 2, 3, 4), experts: float = 4.0) -> Answer:
    return Answer(tokens, (given,) * 6, (step,) * 6, (0.9 * step,) * 6, (given,) * 6, (experts,) * 6, 1.0, 0.6)


def prompts(count: int, references: tuple[str, ...] = ()) -> list[PlannedPrompt]:
    return [PlannedPrompt(f"p{n}", "t", "exact_match", 9, Sample(str(n), "?", references)) for n in range(count)]


def answers_of(**arms: Answer) -> Answers:
    return {name: {f"p{n}": its for n in range(12)} for name, its in arms.items()}


def test_forms_are_written_as_arms_take_them() -> None:
    forms = forms_of([3, 1], [16], [8, 4], experts=32, chosen=4)
    assert [form.name for form in forms] == [
        "chain of 1", "chain of 1, B=8", "chain of 1, B=4", "chain of 3", "chain of 3, B=8", "chain of 3, B=4",
        "tree of 16", "tree of 16, B=8", "tree of 16, B=4",
    ]  # fmt: skip
    assert forms[3].arm("zoo:d") == "eagle-3(depth=3):zoo:d"
    assert forms[7].arm("zoo:d") == "moe-spec(budget=8,depth=6,tokens=16):zoo:d"
    assert DraftForm(4, True).arm("zoo:d") == "eagle-3(depth=3,tokens=4):zoo:d"
    assert forms_of([1], [], [32], 32, 4) == [DraftForm(2, False)]  # a budget of all is none


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (([0], [], [], 8, 2), "at least 1 token"),
        (([], [1], [], 8, 2), "at least 2 with its root"),
        (([], [], [], 8, 2), "give one of either"),
        (([1], [], [1], 8, 2), "from 2 to 8"),
        (([1], [], [9], 8, 2), "budget of 9 experts"),
        (([1], [], [4], 0, 0), "leave --budgets out"),
        (([300], [], [], 8, 2), "drafts at most 64 tokens"),
        (([], [8, 600], [], 8, 2), "has at most 512"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(asked: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        forms_of(*asked)


def test_plain_decoding_wins_where_passes_cost_more_than_they_bring() -> None:
    answers = answers_of(**{PLAIN: answer(1, 1.0), CHAIN.name: answer(2, 2.5), TREE.name: answer(3, 6.0)})
    plan = plan_speculation(answers, [CHAIN, TREE], prompts(12), None, 0.02)
    assert plan.here is None and plan.judged is None
    assert plan.sentences[0].startswith("Plain decoding wins here")
    assert (
        "chain of 3, at 0.80" in plan.sentences[0] and "takes 2.50 of its steps and gives 2.00" in plan.sentences[0]
    )
    assert [row["form"] for row in plan.rows] == ["chain of 3", "tree of 16"]


def test_a_proposal_keeps_within_the_tolerance_and_is_judged_on_prompts_that_it_has_not_seen() -> None:
    answers = answers_of(
        **{
            PLAIN: answer(1, 1.0),
            CHAIN.name: answer(2, 1.5),
            TREE.name: answer(3, 2.0, experts=16.0),
            TIGHT.name: answer(3, 1.2, tokens=(1, 2, 9, 9), experts=8.0),
        }
    )
    # On the other half, every other prompt, the tree brings nothing.
    for number in range(1, 12, 2):
        answers[TREE.name][f"p{number}"] = answer(1, 2.0, experts=16.0)
    forms = [CHAIN, TREE, TIGHT]
    plan = plan_speculation(answers, forms, prompts(12), None, 0.02)
    assert plan.here == "tree of 16" and plan.judged is not None
    assert plan.judged.speed.value == pytest.approx(0.5)
    assert "is not shown to be faster" in plan.sentences[1] and "tolerance holds" in plan.sentences[1]
    assert plan.at_floor == "tree of 16" and plan.judged_at_floor is not None
    assert plan.judged_at_floor.speed.value == pytest.approx(1.0)
    assert "times as fast as counted" in plan.sentences[3]
    loose = plan_speculation(answers, forms, prompts(12), None, 0.6)
    assert loose.here == "tree of 16, B=8" and loose.judged is not None and loose.judged.lost.value == 0.5
    assert plan.pass_rows == [
        {"tokens": 2, "experts": 4, "pass_s": pytest.approx(1.35)},
        {"tokens": 3, "experts": 8, "pass_s": pytest.approx(1.08)},
        {"tokens": 3, "experts": 16, "pass_s": pytest.approx(1.8)},
    ]
    with pytest.raises(UsageError, match="at least 10 prompts"):
        plan_speculation(answers, forms, prompts(9), None, 0.02)


def test_where_plain_decoding_gets_nothing_right_agreement_with_it_is_what_counts() -> None:
    """Else a budget that ruins everything would lose nothing, and be proposed."""

    class Words:
        def decode(self, tokens: tuple[int, ...], **named: Any) -> str:
            return " ".join(map(str, tokens))

    tight = answer(3, 1.2, tokens=(9, 9, 9, 9), experts=8.0)
    answers = answers_of(**{PLAIN: answer(1, 1.0), CHAIN.name: answer(2, 1.5), TIGHT.name: tight})
    asked = prompts(12, references=("nothing like it",))
    plan = plan_speculation(answers, [CHAIN, TIGHT], asked, Words(), 0.02)
    assert plan.here == CHAIN.name and "got no task right" in plan.sentences[0]
    lost = {row["form"]: row["lost"] for row in plan.rows}
    assert lost == {CHAIN.name: 0.0, TIGHT.name: 1.0}


def test_agreement_ends_at_the_first_other_token() -> None:
    usual = answer(1, 1.0, tokens=(1, 2, 3, 4))
    assert agreement(answer(1, 1.0, tokens=(1, 2, 9, 4)), usual) == 0.5
    assert agreement(usual, usual) == 1.0
    assert agreement(answer(1, 1.0, tokens=(1, 2, 3, 4, 5, 6, 7, 8)), usual) == 0.5


def test_a_model_of_the_zoo_is_planned_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small budget is tried on it, and all that the plan was made from is in its JSON."""
    monkeypatch.setattr(floor, "CPU_READS", (2**16,))
    monkeypatch.setattr(floor, "CPU_SIDES", (16,))
    found = vivace(
        "plan", "speculation", "--model", "zoo:moe", "--drafter", "zoo:moe-drafter", "--home", str(tmp_path),
        "--tasks", "sums", "--limit", "10", "--most-tokens", "8", "--chains", "2", "--trees", "",
        "--budgets", "4", "--format", "json",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    said = json.loads(found.stdout)
    forms = {row["form"]: row for row in said["forms"]}
    assert set(forms) == {"chain of 2", "chain of 2, B=4"}
    assert forms["chain of 2"]["lost"] == 0 and forms["chain of 2, B=4"]["experts"] == 4
    assert 1 <= forms["chain of 2"]["tau"] <= 3 and forms["chain of 2"]["experts"] > 4
    assert {row["tokens"] for row in said["passes"]} >= {3}
    assert "other half" in found.stderr or "Plain decoding wins here" in found.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--drafter": "nowhere"}, "no folder 'nowhere'"),
        ({"--model": "zoo:moe-drafter"}, "is a drafter"),
        ({"--chains": "two"}, "--chains takes whole numbers"),
        ({"--limit": "2"}, "at least 10 prompts"),
        ({"--tasks": ","}, "names no task"),
        ({"--dtype": "int8"}, "--dtype takes"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    given = {"--model": "zoo:moe", "--drafter": "zoo:moe-drafter", "--tasks": "sums", "--home": str(tmp_path)}
    words = [word for option in ({**given, **changed}).items() for word in option]
    found = vivace("plan", "speculation", *words)
    assert found.returncode == 2 and said in found.stderr and "Traceback" not in found.stderr
