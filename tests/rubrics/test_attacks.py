"""The attacks miss their criteria, the controls are what they say, and both are told apart by a machine check."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest

from vivace_rubrics.attacks import ATTACKS, CONTROL_MET, CONTROL_NOT_MET, CONTROLS, EXCHANGES, Attack
from vivace_rubrics.criteria import grading_history
from vivace_rubrics.judges import ChecksJudge

SCRIPTS = {"Chinese": "一-鿿", "Arabic": "؀-ۿ", "Russian": "Ѐ-ӿ", "Hindi": "ऀ-ॿ", "Japanese": "぀-ヿ"}


def test_there_are_enough_of_them_of_many_kinds_and_in_several_languages() -> None:
    assert len(ATTACKS) >= 40
    kinds = Counter(attack.kind for attack in ATTACKS)
    assert len(kinds) >= 12 and min(kinds.values()) >= 3, kinds
    for name in ("German", "French", "Spanish"):
        assert any(attack.name == f"language: {name}" for attack in ATTACKS)
    for name, script in SCRIPTS.items():
        (attack,) = (attack for attack in ATTACKS if attack.name == f"language: {name}")
        assert re.search(f"[{script}]", attack.reply), name


def test_no_name_and_no_reply_stands_twice() -> None:
    everything = [*ATTACKS, *CONTROLS]
    assert len({attack.name for attack in everything}) == len(everything)
    assert len({attack.reply for attack in everything}) == len(everything)


@pytest.mark.parametrize("attack", [*ATTACKS, *CONTROLS], ids=lambda attack: attack.name)
def test_the_right_verdict_is_what_the_machine_check_finds(attack: Attack) -> None:
    verdict = asyncio.run(ChecksJudge().judge(EXCHANGES, attack.reply, attack.criterion))
    assert verdict.met is attack.met, verdict.explanation


def test_only_controls_are_ever_met_and_both_answers_occur_for_each_criterion() -> None:
    assert not any(attack.met for attack in ATTACKS)
    assert {control.kind for control in CONTROLS} == {CONTROL_MET, CONTROL_NOT_MET}
    for kind in (CONTROL_MET, CONTROL_NOT_MET):
        criteria = {control.criterion.text for control in CONTROLS if control.kind == kind}
        assert criteria == {attack.criterion.text for attack in ATTACKS}


def test_the_facts_are_in_the_conversation_so_that_a_careful_judge_can_know() -> None:
    history = grading_history(EXCHANGES, "?")
    assert "ten to seven" in history and "ninth of March" in history and "word over" in history
