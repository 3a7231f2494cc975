"""Rows of one model are told apart by the settings that differ and by their run, without secrets of an address."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from support.judged import add_dataset, add_judging
from vivace.analysis.comparison import compare
from vivace.output.short_names import apart, bare_address, settings_text
from vivace.store.database import Database
from vivace.store.queries.board import BoardRow, board
from vivace.store.tables import Judging, Model, Run

PASS = [[True, True]]


def rows_of(store: Database, *systems: dict[str, Any]) -> list[BoardRow]:
    """The board of runs of models called `m` with these settings, in that order."""
    made = []
    with store.write() as session:
        dataset = add_dataset(session, 4)
        for number, system in enumerate(systems):
            address = system.pop("address", None)
            judging = add_judging(session, dataset, [PASS] * system.pop("n", 4), name="m", **system)
            run = session.get_one(Run, session.get_one(Judging, judging).run_id)
            if address is not None:
                model = session.scalars(select(Model).where(Model.id == run.model_id)).one()
                model.address, model.fingerprint = address, str(number)
            made.append(judging)
    found = {row.judging: row for row in board(store)}
    return [found[judging] for judging in made]


def test_only_settings_that_differ_are_shown_and_what_was_not_set_is_said(store: Database) -> None:
    same = {"top_p": 1}
    rows = rows_of(
        store,
        {"parameters": {**same}},
        {"parameters": {**same, "temperature": 0.7}},
        {"parameters": {**same, "temperature": 0.7, "stop": ["a"]}, "input_form": "transcript"},
    )
    assert [row.apart for row in rows] == [
        {"temperature": "default", "stop": "default", "input": "audio-16k"},
        {"temperature": "0.7", "stop": "default", "input": "audio-16k"},
        {"temperature": "0.7", "stop": '["a"]', "input": "transcript"},
    ]
    assert rows[1].as_json()["parameters"] == {"top_p": 1, "temperature": 0.7}
    assert [row.short_run for row in rows] == ["run0", "run1", "run2"]


def test_servers_are_told_apart_without_what_may_be_a_secret(store: Database) -> None:
    rows = rows_of(
        store,
        {"parameters": {"a": 1}, "address": "http://me:hunter2@one.example:8000/v1?key=abc#x"},
        {"parameters": {"a": 2}, "address": "http://two.example/v1"},
    )
    assert [row.apart["server"] for row in rows] == ["http://one.example:8000/v1", "http://two.example/v1"]
    told = str([row.as_json() for row in rows]) + str(compare(store, [row.judging for row in rows]).rows[0].as_json())
    assert "one.example" in told and "hunter2" not in told and "abc" not in told


def test_the_same_once_more_differs_in_its_run_alone(store: Database) -> None:
    rows = rows_of(store, {}, {})
    assert [(row.apart, row.short_run) for row in rows] == [({}, "run0"), ({}, "run1")]


def test_parts_of_one_size_are_told_apart_by_what_was_asked(store: Database) -> None:
    rows = rows_of(store, {"n": 1}, {"n": 2})
    assert [row.apart for row in rows] == [{}, {}], "their badges say how much was asked"
    with store.write() as session:
        session.get_one(Run, "run1").items = ["set003"]
    assert [row.apart for row in board(store)] == [{"items": "set000"}, {"items": "set003"}]


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        ("https://api.example/v1", "https://api.example/v1"),
        ("https://user@api.example:1/v1?token=x", "https://api.example:1/v1"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1"),
        ("http://[bad", "(an address that cannot be read)"),
        ("http://host:port", "(an address that cannot be read)"),
    ],
)
def test_an_address_is_shown_without_user_and_query(address: str, bare: str) -> None:
    assert bare_address(address) == bare


def test_settings_of_one_thing_alone_tell_nothing_apart() -> None:
    assert apart([{"a": "1"}]) == [{}] and apart([]) == []
    assert settings_text({"a": "1", "b": "x y"}) == "a=1, b=x y"
