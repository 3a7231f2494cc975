"""Which number an answer states, as models write it, and what must not be taken for one."""

from __future__ import annotations

import pytest

from vivace.tasks.base import Sample
from vivace.tasks.scores.metrics import number


def right(answer: str, reference: str) -> bool:
    """Whether the metric takes the answer for the reference."""
    return number(answer, Sample("1", "?", (reference,))) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\boxed{\frac{9}{4}}", r"2\frac{1}{4}"), (r"\boxed{2 \dfrac14}", "2.25"), ("#### 2 1/4", "#### 2.25"),
        (r"\boxed{-2\frac{1}{4}}", "-9/4"), ("it takes 2¼ hours", "2.25"), (r"-\frac{7}{2}", r"\frac{-7}{2}"),
        (r"\boxed{\boxed{72}}", "72"), (r"\boxed{\text{It is }\boxed{72}}", "72"), (r"\boxed {72}", "72"),
        (r"\boxed 72", "72"), (r"Put it in \boxed{}. The answer is 4.", "4"), (r"so \boxed{4", "4"),
        (r"\boxed{\textbf{18}}", "18"), (r"\boxed{\mathbf{\frac{1}{2}}}", "0.5"), (r"\boxed{\text{Total: } 5}", "5"),
        (r"\boxed{9,\! 000,\! 001}", "9000001"), (r"\boxed{12{,}345}", "12,345"), (r"\boxed{12\,345}", "12345"),
        ("\\boxed{12\u202f345}", "12345"), (r"\boxed{12 345}", "12345"), (r"\boxed{\$18.00}", "18"), ("€ 18", "18"),
        (r"\boxed{1.5 \times 10^{3}}", "1500"), ("that makes 1.5e3", "1500"), (r"\boxed{10^{-2}}", "0.01"),
        (r"\boxed{18 \text{ dollars}}", "18"), (r"\boxed{18 dollars}", "18"), (r"\boxed{5cm}", "5"),
        (r"\boxed{70 \text{ miles per hour}}", "70"), (r"\boxed{7 \text{ cm}^3}", "7"), (r"\boxed{90^{\circ}}", "90"),
        ("**Answer:** $18", "18"), ("### Final answer\nThe result is **18** crowns for 3 days.", "18"),
        ("The answer is 18. She has 3 left.", "18"), ("Answer: the sum is 5 + 6 = 11.", "11"),
        ("answer: 3.14.", "3.14"),
        ("#### **18**", "18"), (r"#### $18$", "18"), ("#### 36 * 2 = 72", "72"), ("#### 3 apples and 4 pears", "3"),
        ("#### 1. Add\n3 + 4\n#### 2. Say it\nThe answer is 7.", "7"), ("#### 1) Add\n3 + 4 = 7\n#### 7", "7"),
        ("The answer is 72.\n\nQ: what is 2 + 3?\nA: The answer is 5.", "72"),
        ("\\boxed{72}\n\nProblem: another\n\\boxed{5}", "72"), ("#### 72\n\n### Question 2\n#### 5", "72"),
        (r"So \boxed{72}." + "\n#### Check\n9 * 8 = 72, and 3 are left", "72"), ("–3", "-3"), ("10 - 3", "3"),
        ("The answer is \\sqrt{3}.", r"\sqrt{3}"), (r"\boxed{\text{(C)}}", "(C)"),
        (r"\boxed{11\sqrt2}", r"11\sqrt{2}"),
    ],
)  # fmt: skip
def test_a_result_is_found_however_it_is_written(answer: str, reference: str) -> None:
    assert right(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\boxed{\frac{21}{4}}", r"2\frac{1}{4}"), (r"\boxed{5x}", "5"), (r"\boxed{5i}", "5"),
        (r"\boxed{5\pi}", "5"),
        (r"\boxed{5 pi}", "5"), (r"\boxed{2\sqrt{3}}", "2"), (r"\boxed{2^{10}}", "2"), (r"\boxed{2516_8}", "2516"),
        (r"\boxed{(3,4)}", "3"), (r"\boxed{3, 4}", "4"), (r"\boxed{x=3, y=4}", "4"), (r"\boxed{3 or 4}", "3"),
        (r"\boxed{5 \text{ or } 600}", "5600"), (r"\boxed{\text{no solution}}", "0"), (r"\boxed{3/0}", "3"),
        ("#### 72\n\nQuestion: what is 2 + 3?\n#### 5", "5"), (r"\boxed{10^{999999999}}", "10"), ("9e999999", "9"),
        ("", "5"), ("#### Step 1", "2"),
        ("The answer is $2^{10}$.", "2"),
        ("The answer is $2^{10}$.", "10"),
        (r"The answer is $2\sqrt{3}$.", "2"),
        (r"So it is $2\sqrt{3}$.", "3"),
        ("The answer is 3π.", "3"),
        ("The area is 12 cm^2.", "2"),
    ],
)  # fmt: skip
def test_what_is_no_such_number_is_not_taken_for_one(answer: str, reference: str) -> None:
    assert not right(answer, reference)


@pytest.mark.parametrize(
    "hostile",
    ["\n" * 20_000, "\nquestion" * 2500, "\\boxed{" * 3000, "####" * 5000, "1 " * 10_000, "answer is " * 2000,
     "1" * 20_000, "\\text{" * 3000, "answer" + "*" * 19_000, "\\boxed{1" + " " * 19_000 + "}"],
)  # fmt: skip
@pytest.mark.parametrize("reference", ["5", r"\sqrt{5}"])
def test_hostile_answers_are_wrong_and_end_soon(hostile: str, reference: str) -> None:
    assert not right(hostile, reference)
