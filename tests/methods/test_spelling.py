"""How methods, arms and tasks are written: one parser, what it refuses, and what it writes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.files.paths import with_homes
from vivace_methods.spelling import (
    Part,
    SpellingError,
    parse,
    parse_one,
    parse_sweep,
    read_settings,
    split_list,
    write,
)


@dataclass
class Example:
    """A method's or a task's settings, of every type that there is."""

    rule: Literal["top", "share"] = "top"
    count: int = 1
    share: float = 0.5
    path: str = ""
    quick: bool = False
    limit: int | None = None


@dataclass
class Demanding:
    """A setting that has no default."""

    path: str


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("dense", (Part("dense"),)),
        (" full ( attention = eager , cache=static, ) ", (Part("full", {"attention": "eager", "cache": "static"}),)),
        ("eagle-3:zoo:moe-drafter", (Part("eagle-3", {}, "zoo:moe-drafter"),)),
        ("a(x=1):/f+b(y=2):/g", (Part("a", {"x": "1"}, "/f"), Part("b", {"y": "2"}, "/g"))),
        ("a + b : /g", (Part("a"), Part("b", {}, "/g"))),
        ("teal:/data/c++/fits", (Part("teal", {}, "/data/c++/fits"),)),
        ("teal:/data/c+++dense", (Part("teal", {}, "/data/c++"), Part("dense"))),
        ("teal:/data/a+b/fits+eagle-3:zoo:d", (Part("teal", {}, "/data/a+b/fits"), Part("eagle-3", {}, "zoo:d"))),
        ("teal:'/data/a+b'+dense", (Part("teal", {}, "/data/a+b"), Part("dense"))),
        ('teal:"/bob\'s"', (Part("teal", {}, "/bob's"),)),
        ("teal:/bob's/a(1):2", (Part("teal", {}, "/bob's/a(1):2"),)),
        ("m(rule=top(k=3,least=1),x=a:b+c)", (Part("m", {"rule": "top(k=3,least=1)", "x": "a:b+c"}),)),
        ("m(path='a,b)=''c',x=1)", (Part("m", {"path": "a,b)='c", "x": "1"}),)),
    ],
)
def test_what_is_written_is_read_part_by_part_and_written_back(text: str, parts: tuple[Part, ...]) -> None:
    assert parse(text) == parts
    assert parse(write(parts)) == parts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not written as name"),
        ("a(x=1", "opens a bracket and does not close it"),
        ("a(x=top(k=1)", "opens a bracket and does not close it"),
        ("a(x=1))", "is not written as name"),
        ("a(x=1)b", "is not written as name"),
        ("a(x)", "'x' in .* is not written as setting=value"),
        ("a(x=)", "'x=' in .* is not written as setting=value"),
        ("a(=1)", "'=1' in .* is not written as setting=value"),
        ("a(x=1,y=2,x=1)", "sets x twice"),
        ("a:", "nothing behind its colon"),
        ("a+", "is not written as name.* \\+ between methods"),
        ("+a", "is not written as name"),
        ("a++b", "is not written as name"),
        ("a:/f+b(1)/c", "'1' in"),
        ("a:/f+b(x=1)/c", "a folder with \\+ in its name is put into quotation marks, a:'FOLDER'"),
    ],
)
def test_what_is_no_arm_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(SpellingError, match=said):
        parse(text)


@pytest.mark.parametrize("text", ["a+b", "a:/folder"])
def test_a_task_or_a_method_alone_is_one_name_with_its_settings(text: str) -> None:
    with pytest.raises(SpellingError, match="with nothing after it"):
        parse_one(text)


def test_settings_become_values_of_their_types() -> None:
    part = parse_one("x(rule=share,count=3,share=1,path='a,b',quick=True,limit=none)")
    found = read_settings(Example, part, "task")
    assert found == {"rule": "share", "count": 3, "share": 1.0, "path": "a,b", "quick": True, "limit": None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x(cuont=1)", "The task x has no setting 'cuont' (did you mean 'count'?); it has rule, count, share"),
        ("x(rule=shar)", "The setting rule of x must be one of top, share, not 'shar' (did you mean 'share'?)."),
        ("x(count=1.5)", "The setting count of x must be an integer, not '1.5'."),
        ("x(count=2147483648)", "The setting count of x lies within ±2,147,483,647, and not at 2,147,483,648."),
        ("x(share=nan)", "The setting share of x must be a number, not nan."),
        ("x(quick=1)", "The setting quick of x must be true or false, not '1'."),
        ("x(limit=all)", "The setting limit of x must be an integer or none, not 'all'."),
    ],
)
def test_a_wrong_setting_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(SpellingError) as refusal:
        read_settings(Example, parse_one(text), "task")
    assert said in str(refusal.value)


def test_a_setting_without_a_default_must_be_given() -> None:
    with pytest.raises(SpellingError, match="The task x needs its setting path"):
        read_settings(Demanding, Part("x"), "task")


def test_lists_and_sweeps_are_cut_outside_of_brackets_and_quotation_marks() -> None:
    assert split_list(" a(x=1,y=2):/f, b:'/c,d',, e(r=t(k=1,l=2)) ") == [
        "a(x=1,y=2):/f",
        "b:'/c,d'",
        "e(r=t(k=1,l=2))",
    ]
    assert parse_sweep("budget = 8, 16") == ("budget", ["8", "16"])
    assert parse_sweep("rule=top(k=1,l=2),'a,b'") == ("rule", ["top(k=1,l=2)", "a,b"])
    for text in ("budget", "=8", "budget=", "budget=,"):
        with pytest.raises(SpellingError, match="is not written as setting=value,value"):
            parse_sweep(text)


def test_a_home_folder_is_found_also_in_quotation_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert with_homes("teal:'~/a+b'") == "teal:'/home/someone/a+b'"


TEXTS = st.text("ab+:,()='\"/ .", max_size=8)
PARTS = st.builds(
    Part,
    st.sampled_from(["dense", "eagle-3", "word_counts"]),
    st.dictionaries(st.sampled_from(["x", "path"]), TEXTS),
    st.none() | TEXTS.filter(bool),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=3))
def test_any_parts_are_read_as_they_were_written_also_in_a_list(parts: list[Part]) -> None:
    written = write(parts)
    assert parse(written) == tuple(parts)
    assert split_list(f"{written}, dense,{written}") == [written, "dense", written]
