"""A ledger keeps passes in order, completes them from what the device counted, and writes them down."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from vivace_methods.models.ledger import Ledger, Pass

EVERYTHING = Pass(
    kind="verify", tokens=3, context=7, logits=3, sequences=2, layer_tokens=(3, 2), layer_context=(7, 5),
    layer_kept=(2, 2), depths=(0, 1, 1), experts=(4, 0), routed=(6, 0), read={"layers.0.mlp.up_proj": 12}, weights=99,
)  # fmt: skip


@pytest.mark.parametrize("one", [EVERYTHING, Pass("read", 5, 0), Pass("decode", 1, 5, logits=0)])
def test_a_pass_is_read_back_from_its_record(one: Pass) -> None:
    assert Pass.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_a_record_tells_what_is_not_as_usual() -> None:
    assert Pass("decode", 1, 5).as_json() == {"kind": "decode", "tokens": 1, "context": 5}


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"kind": "decode", "tokens": 1}, "lacks one"),
        ({"kind": "guess", "tokens": 1, "context": 2}, "lacks one"),
        ({"kind": "decode", "tokens": 1, "context": 2, "heat": 3}, "no heat"),
    ],
)
def test_a_wrong_record_is_refused(written: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Pass.from_json(written)


def test_what_is_counted_during_a_pass_belongs_to_it() -> None:
    ledger, counts = Ledger(), torch.zeros(2, 3, dtype=torch.int32)

    def tell(one: Pass, counted: torch.Tensor) -> Pass:
        assert counted.shape == (2, 3)
        return replace(one, experts=tuple(counted.sum(1).tolist()))

    with ledger.counter(counts, tell):
        counts += 5
        ledger.clear()  # forgets what was counted before anything was recorded
        place = counts.data_ptr()
        for context in (3, 4):
            counts[0] += context
            ledger.record(Pass("decode", 1, context))
        assert counts.data_ptr() == place and not counts.any()
    ledger.record(Pass("decode", 1, 5))
    assert [one.experts for one in ledger.passes] == [(9, 0), (12, 0), None]
    assert ledger.passes == ledger.passes


def test_what_lies_on_the_device_is_fetched_when_passes_are_asked_for() -> None:
    ledger, length = Ledger(), torch.tensor(41)
    ledger.record(Pass("decode", 1, 0), [(length, lambda one, it: replace(one, context=int(it)))])
    ledger.amend(logits=2)
    assert ledger.passes == (Pass("decode", 1, 41, logits=2),)


def test_a_note_holds_for_one_pass() -> None:
    ledger = Ledger()
    ledger.note(layer_tokens=(9, 4))
    ledger.note(layer_kept=(3, 3))
    for context in (0, 9):
        ledger.record(Pass("read", 9, context))
    first, second = ledger.passes
    assert first == Pass("read", 9, 0, layer_tokens=(9, 4), layer_kept=(3, 3)) and second == Pass("read", 9, 9)
    ledger.note(logits=7)
    ledger.clear()
    ledger.record(Pass("read", 9, 0))
    assert ledger.passes == (Pass("read", 9, 0),)
