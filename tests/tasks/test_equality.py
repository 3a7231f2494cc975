"""math-verify as a metric: equal expressions are right, hostile ones are wrong and end, in any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vivace.errors import UsageError
from vivace.machine import optional_packages
from vivace.tasks.base import Sample
from vivace.tasks.registry import parse_task
from vivace.tasks.scores import equality
from vivace.tracks.efficiency.prompts import _revisions

pytest.importorskip("math_verify", reason="math-verify is not installed")


def right(case: tuple[str, str]) -> bool:
    """Whether math-verify takes the answer for the reference."""
    answer, reference = case
    return equality.math_verify(answer, Sample("1", "?", (reference,))) == 1.0


def test_expressions_are_compared_as_mathematics_and_hostile_ones_end() -> None:
    cases = {
        (r"so \boxed{2\sqrt{2}}", r"\sqrt{8}"): True,
        (r"\boxed{\frac{\sqrt{3}}{3}}", r"\frac{1}{\sqrt{3}}"): True,
        (r"\boxed{q - p}", r"-p + q"): True,
        (r"\boxed{3\sqrt{2}}", r"\sqrt{8}"): False,
        (r"\boxed{" + "{" * 5000, "5"): False,
        ("\\boxed{\ud800}\0", "5"): False,
        ("", "5"): False,
        ("\\boxed{72}\n\nProblem: another\n\\boxed{5}", "72"): True,
    }
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(right, cases)) == list(cases.values())


@pytest.mark.full
def test_an_expression_without_end_is_wrong_and_the_next_is_answered() -> None:
    assert not right((r"\boxed{9^{9^{9^{9}}}}", "5"))
    assert right((r"\boxed{0.5}", r"\frac{1}{2}"))


def test_the_choice_of_metric_is_part_of_what_a_run_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    tasks = [parse_task(f"math500(path={path}{more})") for more in ("", ",equality=math_verify")]
    assert [task.metric for task in tasks] == ["number", "math_verify"]
    first, second = (_revisions([task], 1, 0, None) for task in tasks)
    assert first != second
    monkeypatch.setattr(optional_packages, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"install it with `pip install 'vivace\[math\]'`"):
        parse_task("math500(equality=math_verify)")
