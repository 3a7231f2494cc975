"""Metrics give the published values, and stay shares whatever a model writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tasks.scores.metrics import METRICS, find_metric, score

SPECIFIC = {
    "rouge_l", "multiple_choice", "number", "first_line_f1", "first_line_rouge_l", "classification", "numbers_share",
    "code_line", "math_verify",
}  # fmt: skip
"""Metrics that look at a part of a text: at words, numbers, choices or a line."""
ABCD = ("a cat", "a dog", "a newt", "a fox")


def of(metric: str, answer: str, *references: str, choices: tuple[str, ...] = ()) -> float:
    """The metric of an answer."""
    return find_metric(metric)(answer, Sample("1", "?", references, choices=choices))


@pytest.mark.parametrize(
    ("metric", "answer", "references", "value"),
    [
        ("exact_match", " x =  1\n", ("x = 1",), 1.0),
        ("exact_match", "X = 1", ("x = 1",), 0.0),
        ("exact_match", "cafe\u0301", ("caf\u00e9",), 1.0),
        ("exact_match", "", (), 0.0),
        ("token_f1", "The cat sat.", ("a cat sat",), 1.0),
        ("token_f1", "cat", ("the cat sat down",), 0.5),
        ("token_f1", "cat cat cat", ("cat",), 0.5),
        ("token_f1", "dog", ("cat", "dog"), 1.0),
        ("token_f1", "", ("the",), 1.0),
        ("rouge_l", "police kill the gunman", ("police killed the gunman",), 0.75),
        ("rouge_l", "the gunman kill police", ("police killed the gunman",), 0.5),
        ("rouge_l", "", ("x",), 0.0),
        ("edit_similarity", "kitten", ("sitting",), 1 - 3 / 7),
        ("edit_similarity", "", ("",), 1.0),
        ("edit_similarity", "", ("abcd",), 0.0),
        ("number", "So 3 * 4 = 12.\n#### 1,234", ("... #### 1234",), 1.0),
        ("number", "first 7, then the total is $1,080.50.", ("1080.5",), 1.0),
        ("number", r"thus \boxed{\frac{3}{4}} as 9 showed", (r"\frac{3}{4}",), 1.0),
        ("number", r"\boxed{0.75}", ("3/4",), 1.0),
        ("number", "−5", ("-5",), 1.0),
        ("number", "it is 5", ("-5",), 0.0),
        ("number", "1/0", ("5",), 0.0),
        ("number", r"\boxed{x^{2}+y}", (r"\boxed{x^{2}+y}",), 1.0),
        ("number", r"\boxed{\text{east}}", (r"\text{west}",), 0.0),
        ("number", "none", ("3",), 0.0),
        ("number", r"\boxed{2}", (r"\frac{\sqrt{3}}{2}",), 0.0),
        ("number", r"so \boxed{\dfrac{\sqrt{3}}{2}}", (r"\frac{\sqrt{3}}{2}",), 1.0),
        ("number", "5", (r"2\sqrt{5}",), 0.0),
        ("number", r"\boxed{(9,5)}", ("(3,5)",), 0.0),
        ("number", r"\boxed{\left( 3, 5 \right)}", ("(3,5)",), 1.0),
        ("number", r"\boxed{(-\infty,5)}", ("[2,5)",), 0.0),
        ("number", r"\boxed{5\text{ cm}^2}", ("5",), 1.0),
        ("number", r"\boxed{\frac12}", (r"\frac{1}{2}",), 1.0),
        ("number", r"\boxed{x = 5}", ("5",), 1.0),
        ("number", r"\boxed{5 \text{ or } 6}", ("6",), 0.0),
        ("number", r"\boxed{90^\circ}", ("90",), 1.0),
        ("number", r"\boxed{10\%}", ("10",), 1.0),
        ("number", r"\boxed{\$32,348}", ("32348",), 1.0),
        ("number", "#### 5 apples", ("the sum is #### 5",), 1.0),
        ("number", "in 2020-12", ("12",), 1.0),
        ("number", "5 - 3 = 2", ("2",), 1.0),
        ("contains_all", "I saw Alpha and beta.", ("alpha", "BETA", "gamma"), 2 / 3),
        ("contains_any", "I saw Alpha.", ("gamma", "alpha"), 1.0),
        ("contains_any", "I saw nothing.", ("gamma",), 0.0),
        ("contains_any", "I saw nothing.", ("",), 0.0),
        ("first_line_f1", "\n\nParis\nQuestion: where?", ("Paris",), 1.0),
        ("first_line_f1", "The city\nParis", ("Paris",), 0.0),
        ("first_line_rouge_l", "\nshe went home\nDialogue: hi", ("she went home",), 1.0),
        ("first_line_rouge_l", "hi\nshe went home", ("she went home",), 0.0),
        ("numbers_share", "Paragraph 17", ("Paragraph 17",), 1.0),
        ("numbers_share", "17 or 18, not 7 or 170", ("Paragraph 17",), 0.25),
        ("numbers_share", "the first", ("Paragraph 1",), 0.0),
        ("numbers_share", "12 different ones", ("12",), 1.0),
        ("code_line", "\n```python\n# comment\n    return x", ("    return x",), 1.0),
        ("code_line", "return y\nreturn x", ("return x",), 14 / 16),
        ("code_line", "// nothing", ("return x",), 0.0),
        ("code_line", "kitten", ("sitting",), 8 / 13),
    ],
)
def test_known_values(metric: str, answer: str, references: tuple[str, ...], value: float) -> None:
    assert of(metric, answer, *references) == pytest.approx(value)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("B", 1.0), ("(B)", 1.0), ("b) because", 1.0), ("The answer is B.", 1.0), ("a dog", 1.0), ("A Dog ", 1.0),
        ("The answer is B. (A) is wrong.", 1.0), ("The answer is A. (B) is wrong.", 0.0),
        ("Answer: (b)", 1.0), ("A", 0.0), ("(A) or (B)", 0.0), ("a cat or a dog", 0.0), ("", 0.0), ("Z", 0.0),
        ("I would say a dog", 0.0),
    ],
)  # fmt: skip
def test_a_choice_is_named_by_letter_or_text(answer: str, value: float) -> None:
    for reference in ("B", "a dog"):
        assert of("multiple_choice", answer, reference, choices=ABCD) == value


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("Type: City", 1.0),
        ("City or Date", 0.5),
        ("Other location", 1.0),  # the class "location" is only a part of the reference's name
        ("location", 0.0),
        ("city", 0.0),
        ("Date\nCity", 0.0),
        ("", 0.0),
    ],
)
def test_a_class_is_named_among_few(answer: str, value: float) -> None:
    choices = ("City", "Date", "location", "Other location")
    reference = "Other location" if "location" in answer else "City"
    assert of("classification", answer, reference, choices=choices) == value


def test_a_distance_is_that_of_the_textbook_table() -> None:
    """Against the plain dynamic programme, on random words of a small alphabet."""
    import random

    chance = random.Random(5)
    for _ in range(300):
        first, second = ("".join(chance.choices("abc", k=chance.randint(0, 90))) for _ in range(2))
        row = list(range(len(second) + 1))
        for number, one in enumerate(first, start=1):
            earlier, row[0] = row[0], number
            for place, other in enumerate(second, start=1):
                earlier, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, earlier + (one != other))
        longer = max(len(first), len(second), 1)
        assert of("edit_similarity", first, second) == pytest.approx(1 - row[-1] / longer)


def test_a_common_subsequence_is_that_of_the_textbook_table() -> None:
    import random

    chance = random.Random(6)
    for _ in range(300):
        first, second = (chance.choices(["x", "y", "z"], k=chance.randint(1, 80)) for _ in range(2))
        row = [0] * (len(second) + 1)
        for one in first:
            earlier = 0
            for place, other in enumerate(second, start=1):
                earlier, row[place] = row[place], earlier + 1 if one == other else max(row[place], row[place - 1])
        expected = 2 * row[-1] / (len(first) + len(second))
        assert of("rouge_l", " ".join(first), " ".join(second)) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "math_verify"])  # asks another process
@given(answer=st.text(), reference=st.text(), other=st.text())
def test_a_metric_is_a_share_and_a_further_reference_never_harms(
    metric: str, answer: str, reference: str, other: str
) -> None:
    one = of(metric, answer, reference)
    assert 0.0 <= one <= 1.0
    if metric != "contains_all":
        assert of(metric, answer, reference, other) >= one


@pytest.mark.parametrize("metric", sorted(METRICS.keys() - SPECIFIC))
@given(text=st.text(min_size=1))
def test_a_reference_is_its_own_best_answer(metric: str, text: str) -> None:
    assert of(metric, text, text) == 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_a_huge_answer_is_scored_all_the_same(metric: str) -> None:
    assert 0.0 <= of(metric, "word 12 (B) " * 100_000, "word 12 " * 3000) <= 1.0


def test_what_has_no_reference_has_no_score() -> None:
    assert score("x", "exact_match", Sample("1", "?", ())) is None
    assert score("x", "", Sample("1", "?", ("x",))) is None
    assert score("x", "exact_match", Sample("1", "?", ("x",))) == 1.0


def test_an_unknown_metric_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="no metric 'bleu'; there are exact_match"):
        find_metric("bleu")
