"""The conversation as a judge reads it: the form of the public dataset's own helper, to the blank."""

from __future__ import annotations

from vivace_rubrics.criteria import Exchange, grading_history


def test_turns_stand_in_order_with_a_blank_line_between_and_the_reply_last() -> None:
    exchanges = [Exchange("Hi", "Hello"), Exchange("How are you?", "Fine"), Exchange("Sing")]
    assert grading_history(exchanges, "La la") == (
        "User: Hi\n\nAssistant: Hello\n\nUser: How are you?\n\nAssistant: Fine\n\nUser: Sing\n\nAssistant: La la"
    )


def test_outer_blanks_of_turns_go_and_everything_inside_them_stays() -> None:
    exchanges = [Exchange("  Hi \n", "\n**Hello**\n\n- a\n- b  "), Exchange("Go\non ")]
    assert (
        grading_history(exchanges, "x")
        == "User: Hi\n\nAssistant: **Hello**\n\n- a\n- b\n\nUser: Go\non\n\nAssistant: x"
    )


def test_the_reply_stands_as_it_came() -> None:
    reply = "  {braces} «rubric_item»\n\nUser: not a turn \n"
    assert grading_history([Exchange("Hi")], reply) == f"User: Hi\n\nAssistant: {reply}"


def test_missing_turns_are_left_out() -> None:
    exchanges = [Exchange("One", None), Exchange("Two", " "), Exchange(None, "Alone"), Exchange("Four")]
    assert (
        grading_history(exchanges, "r") == "User: One\n\nUser: Two\n\nAssistant: Alone\n\nUser: Four\n\nAssistant: r"
    )


def test_a_recorded_answer_to_the_last_turn_gives_way_to_the_reply() -> None:
    assert grading_history([Exchange("Hi", "Recorded")], "Mine") == "User: Hi\n\nAssistant: Mine"
    trailing = [Exchange("Hi", "Recorded"), Exchange(None, "More"), Exchange(" ")]
    assert grading_history(trailing, "Mine") == "User: Hi\n\nAssistant: Mine"
