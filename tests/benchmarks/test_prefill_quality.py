"""The benchmark of pruned prefill's quality: lower layers that are read once give what methods give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from pruning.arms import FULL, Label, Part, arms, whole_methods
from pruning.prompts import KINDS, Asked, prompts
from pruning.reading import Reading, measured, read
from pruning.records import Records, by_layer, mean, table
from pruning.tables import markdown
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vivace.tasks.base import Sample
from vivace_methods.decoding.joined import applied
from vivace_methods.models.anatomy import anatomy
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.prefill.claa import Claa
from vivace_methods.prefill.controls import RandomTokens, RecentTokens, UniformTokens
from vivace_methods.prefill.fastkv import FastKv
from vivace_methods.prefill.oracle import Oracle
from vivace_methods.prefill.pruned import PrunedPrefill
from vivace_methods.prefill.reading.asked_passes import asking
from vivace_methods.prefill.reading.attention import showing_attention
from vivace_methods.protocol import Request
from vivace_methods.registry import parse_method

LENGTH, MOST = 60, 6


@pytest.fixture(scope="module")
def model() -> Any:
    configuration = tiny_configuration("llama")
    configuration.num_hidden_layers = 6
    return random_model(configuration)


@pytest.fixture(scope="module")
def reading(model: Any) -> Iterator[Reading]:
    """A random prompt, read whole."""
    ids = torch.randint(3, model.config.vocab_size, (LENGTH,), generator=torch.Generator().manual_seed(3))
    asked = Asked("p", "one key", tuple(ids.tolist()), MOST, (10, 11, 12), (12,), Sample("", "", ()))
    found = anatomy(model)
    with ExitStack() as contexts:
        contexts.enter_context(showing_attention(found.decoder, "sdpa"))
        yield read(model, found, contexts.enter_context(asking(found)), asked, (1, 2, 3), frozenset())


def test_the_answer_is_the_models_own(model: Any, reading: Reading) -> None:
    tokens: list[int] = []
    with applied(parse_method("full"), model) as generator:
        generator.generate(Request(torch.tensor([reading.asked.ids]), MOST), tokens.extend)
    assert reading.answer == tokens and len(reading.nats) == MOST


METHODS: list[PrunedPrefill] = [
    Claa(keep=0.4, layer=3, window=4, kv="full"),
    Claa(keep=0.3, layer=2, window=5, layers=2, heads="sum", norm="zscore", kv="full"),
    FastKv(keep=0.3, layer=2, window=4, kv="full"),
    RandomTokens(keep=0.3, layer=1, kv="full", seed=5),
    UniformTokens(keep=0.3, layer=1, kv="full"),
    RecentTokens(keep=0.3, layer=1, kv="full", first=3),
    Oracle(keep=0.3, layer=2, most=MOST, kv="full"),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_layers_that_are_read_once_give_what_the_method_gives(
    model: Any, reading: Reading, method: PrunedPrefill
) -> None:
    """Also side by side with arms that keep as many other tokens."""
    (layer,) = method.pruning(6).plan.stops
    other = RandomTokens(keep=method.keep, layer=layer, kv="full", seed=9)
    mine = measured(anatomy(model), reading, {"mine": method, "other": other})["mine"]
    request = Request(torch.tensor([reading.asked.ids]), MOST)
    with applied(method, model) as generator:
        logits = generator.logits(request, reading.answer)
    assert logits is not None
    chances = logits.double().log_softmax(-1)
    assert mine.nats == pytest.approx(-float(chances[range(MOST), reading.answer].mean()), abs=1e-5)
    assert mine.exact == (chances.argmax(-1).tolist() == reading.answer)
    assert mine.kept == int(method.keep * LENGTH)


def test_all_that_is_kept_changes_nothing_and_shares_are_of_what_was_kept(model: Any, reading: Reading) -> None:
    found = measured(anatomy(model), reading, {
        "all": Claa(keep=1.0, layer=3, window=4, kv="full"),
        "latest": RecentTokens(keep=50, layer=1, kv="full"),
        "later": RecentTokens(keep=48, layer=1, kv="full"),
    })  # fmt: skip
    whole = sum(reading.nats) / MOST
    assert found["all"].nats == pytest.approx(whole, abs=1e-5) and found["all"].exact and found["all"].evidence == 1
    assert (found["latest"].evidence, found["latest"].values) == (1.0, 1.0)
    assert (found["later"].evidence, found["later"].values) == (pytest.approx(1 / 3), 1.0)


def test_every_arm_of_the_whole_benchmark_can_be_written_and_read_again() -> None:
    for part in FULL:
        labels = arms(part, 0)
        assert {Label.of(label).layer for label in labels} == set(part.layers)
        assert all(str(Label.of(label)) == label for label in labels)
        assert all(method.pruning(30) for method in labels.values())
    first = {Label.of(label) for label in arms(FULL[0], 0)}
    assert {(one.arm, one.keep) for one in first} >= {
        (arm, keep) for arm in ("claa", "fastkv", "oracle", "random") for keep in (0.05, 0.1, 0.2, 0.4, 0.6)
    }
    assert {one.window for one in first if one.arm == "claa"} == {8, 16, 32}
    for written in whole_methods((0.1,), 30).values():
        assert parse_method(written).family == "prefill"


def test_methods_of_equal_bytes_keep_equal_shares_of_the_cache(model: Any, reading: Reading) -> None:
    longer = reading.asked.ids * 4
    request = Request(torch.tensor([longer]), 1)
    for name, written in whole_methods((), 6).items():
        share = float(name.split()[-1].rstrip("%")) / 100
        if share < 4 / 6 and "m=0" not in name and "fastkv" not in name and "snapkv" not in name:
            continue  # four of these six layers, which are kept, are more than that
        with applied(parse_method(written), model) as generator:
            kept = generator.generate(request, lambda tokens: None).figures["kv_share"]
        assert kept == pytest.approx(share, abs=1 / len(longer)), name


def test_prompts_take_turns_and_know_where_values_are(tmp_path: Path) -> None:
    letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    byte_pairs = Tokenizer(models.BPE(letters, []))
    byte_pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_pairs)
    line = '{{"question_id": {0}, "turns": ["{1}"]}}\n'
    articles = [f"Summarize: Article {number} {'is long. ' * 30}" for number in range(3)]
    (tmp_path / "sum.jsonl").write_text("".join(line.format(*each) for each in enumerate(articles)))
    (tmp_path / "qa.jsonl").write_text("".join(line.format(n, f"Who is {n}?") for n in range(3)))
    found = prompts(tokenizer, 900, len(KINDS), tmp_path)
    assert [each.kind for each in found] == list(KINDS)
    for each in found:
        assert 700 < len(each.ids) + each.most_tokens <= 900
        told = "".join(tokenizer.convert_ids_to_tokens([each.ids[place] for place in each.values]))
        assert told == "".join(sorted(each.sample.references, key=each.sample.prompt.index))
        assert set(each.values) <= set(each.evidence)
    assert {each.kind for each in prompts(tokenizer, 900, 4, None)} <= {"one key", "several keys", "several values"}


def test_records_are_found_again_and_a_line_that_was_cut_is_done_again(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "records.jsonl"
    records = Records(file, "w")
    records.add("rankings/1/a", {"x": 1})
    with file.open("a") as out:
        out.write('{"work": "w", "key": "rankings/1/b", "resu')
    again = Records(file, "w")
    assert "rankings/1/a" in again and "rankings/1/b" not in again
    again.add("rankings/1/b", {"x": 2})
    assert [each["x"] for each in Records(file, "w").of("rankings")] == [1, 2]
    assert not Records(file, "other").of("rankings")


def test_tables_pair_prompts_and_leave_out_what_was_wrong_before() -> None:
    def record(nats: float, single: float, right: bool | None) -> dict[str, Any]:
        mine = {"nats": nats, "exact": nats < 1, "evidence": 0.5, "values": None, "kept": 9}
        both = {"claa|1|0.1|8": mine, "fastkv|1|0.1|8": {**mine, "nats": single}}
        return {"length": 9, "right": right, "arms": both, "layers": {"single|8|0.1": [nats, 0.0]}}

    records = [record(0.5, 1.0, True), record(1.5, 1.0, True), record(2.0, 4.0, None), record(3.0, 3.0, False)]
    claa = table(records)[0]
    assert (claa["length"], claa["arm"], claa["layer"], claa["keep"], claa["window"]) == (9, "claa", 1, 0.1, 8)
    assert claa["nats"]["value"] == 1.75 and claa["nats"]["n"] == 4
    assert claa["nats less fastkv's"]["value"] == -0.5
    assert claa["exact, needles"]["value"] == 0.5 and claa["exact, needles"]["n"] == 2
    assert claa["nats, articles and questions"]["value"] == 2.0 and claa["values kept"] is None
    (layers,) = by_layer(records)
    assert layers["evidence kept"] == [1.75, 0.0] and (layers["ranking"], layers["window"]) == ("single", 8)
    whole = mean([1.0, 2.0, 3.0])
    assert whole is not None and whole["low"] <= 2 <= whole["high"] and mean([]) is None


def test_tables_hold_each_arm_once_and_say_what_is_missing() -> None:
    figure = {"value": 0.5, "low": 0.25, "high": 1.0, "n": 4}
    line = {"length": 1024, "layer": 15, "keep": 0.1, "window": 8, "exact, needles": figure, "nats": figure,
            "evidence kept": None}  # fmt: skip
    details = {
        "table": [{**line, "arm": "claa"}, {**line, "arm": "oracle"}, {**line, "arm": "claa", "window": 32},
                  {**line, "arm": "claa n=1 sum none", "keep": 0.2}],
        "layers": [{"length": 1024, "ranking": "single", "window": 8, "keep": 0.1, "evidence kept": [0.0, 1.0]}],
        "whole": [{"arm": "claa keep 10%", "nats": figure, "same answer": figure, "KV share": None,
                   "TTFT / full": [0.5]}],
        "zoo": [], "kvpress": [{"arm": "snapkv|0.4", "nats": figure}], "remarks": ["kvpress was slow."],
    }  # fmt: skip
    found = markdown(details, 8)
    assert found.startswith("### 1,024 tokens, 4 prompts\n")
    assert "| 15 | oracle | 2 of 4, 0.50 [0.25–1.00] | – |" in found
    assert found.count("| 15 | claa | 2 of 4") == 1 and "| 15 | claa | 10% | 0.50 | 0.50 |" in found
    assert "| claa n=1 sum none | 0.50 |" in found and "| 1,024 | single | 10% | 0.00 | 1.00 |" in found
    assert "| claa keep 10% | 0.50 [0.25–1.00] | 50% | – | 0.50 |" in found
    assert "| snapkv, 0.4 |" in found and found.endswith("kvpress was slow.\n")


def test_quick_covers_arms_of_the_whole_benchmark() -> None:
    assert set(arms(Part(9, 1, (15,), (0.1,), (8,)), 0)) <= set(arms(FULL[0], 0))
