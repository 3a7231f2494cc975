"""Trees of drafts: how they grow, what one pass says of them, and that what is written stays the model's own."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import AutoConfig, DynamicCache

from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.joined import applied, generator_of
from vivace_methods.decoding.sampling import Greedy, Sampled, probabilities
from vivace_methods.decoding.trees import Tree
from vivace_methods.models.passes import passes_of
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import Embedded, Generator, MethodError, Read, Request
from vivace_methods.registry import parse_method
from vivace_methods.requests import Sampling
from vivace_methods.speculation.drafters.base import Drafter, Drafting
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, new_configuration
from vivace_methods.speculation.speculative_decoder import SpeculativeDecoder, speculating
from vivace_methods.speculation.trees.growth import Dynamic, Growth, Level, Proposing, Static, draw, grow

WINDOW = 7
WINDOWED = ("mixtral", "gpt_oss", "gemma2", "mistral")


def target_of(kind: str, **more: Any) -> Any:
    configuration = tiny_configuration(kind)
    if kind in WINDOWED:
        more = {"sliding_window": WINDOW, **more}
    return random_model(AutoConfig.for_model(**{**configuration.to_dict(), **more}), seed=0)


def greedy(model: Any, ids: torch.Tensor, most: int) -> list[int]:
    tokens: list[int] = []
    with applied(parse_method("autoregressive"), model) as generator:
        generator.generate(Request(ids, most), tokens.extend)
    return tokens


class Guessing(Drafter):
    """Knows what will be written, and hides it among wrong tokens in trees of random forms."""

    def __init__(self, expected: list[int], vocabulary: int, seed: int = 0) -> None:
        self.expected, self.vocabulary = expected, vocabulary
        self.random = random.Random(seed)

    def start(self, run: Generation, read: Read) -> Drafting:
        return _Guess(self, run)


class _Guess(Drafting):
    def __init__(self, guessing: Guessing, run: Generation) -> None:
        self.guessing, self.run = guessing, run

    def draft(self, root: torch.Tensor, most: int) -> Tree:
        chance, expected = self.guessing.random, self.guessing.expected
        written = len(expected) - self.run.left
        right = expected[written : written + most]
        right = right[: chance.randint(1, len(right))]
        tokens, parents, last = [int(root)], [-1], 0
        for depth in range(most):
            rows = [row for row in range(len(tokens)) if Tree(torch.zeros(1, 0), tuple(parents)).depths[row] == depth]
            wrong = [(row, token) for row in rows for token in (198, 197) if token not in right]
            nodes: list[tuple[int, int]] = chance.sample(wrong, min(2, len(wrong)))
            if depth < len(right):
                nodes.insert(chance.randint(0, len(nodes)), (last, right[depth]))
            for parent, token in nodes:
                if depth < len(right) and (parent, token) == (last, right[depth]):
                    following = len(tokens)
                parents.append(parent)
                tokens.append(token)
            last = following if depth < len(right) else -1
        return Tree(torch.tensor([tokens]), tuple(parents))


@contextmanager
def guessing(model: Any, expected: list[int], depth: int = 5) -> Iterator[Generator]:
    decoder = SpeculativeDecoder(model, Guessing(expected, model.config.vocab_size), depth, trees=True)
    with speculating(model, decoder) as attached:
        yield generator_of(model, {"guessing": attached})


@pytest.mark.parametrize("kind", ["llama", "olmoe", "qwen3_moe", *WINDOWED])
def test_what_stands_of_a_tree_is_kept_in_its_place(kind: str) -> None:
    """Right drafts stand on branches everywhere in the tree, before, across and beyond a sliding window."""
    model = target_of(kind)
    for length in (3, 20):
        ids = torch.randint(190, (1, length), generator=torch.Generator().manual_seed(length))
        expected = greedy(model, ids, 24)
        tokens: list[int] = []
        with guessing(model, expected) as generator:
            trace = generator.generate(Request(ids, 24), tokens.extend)
        assert tokens == expected
        assert trace.figures["tau"] > 2, "drafts of the right path stand"
        verified = [one for one in trace.passes if one.kind == "verify"]
        assert any(one.depths is not None and sorted(one.depths) == list(one.depths) for one in verified)


@pytest.mark.parametrize("kind", ["llama", "olmoe", "qwen3_moe", *WINDOWED])
def test_the_logits_of_a_tree_are_those_of_its_paths(kind: str) -> None:
    model = target_of(kind)
    parents = (-1, 0, 0, 1, 1, 2, 3, 3, 6, 8)
    tokens = torch.randint(199, (1, len(parents)), generator=torch.Generator().manual_seed(1))
    tree = Tree(tokens, parents)
    for length in (1, 4, 6, 7, 15):
        prompt = torch.randint(199, (1, length), generator=torch.Generator().manual_seed(length))
        cache = DynamicCache(config=model.config)
        cache.activate_past_recording()
        with passes_of(model) as passes, torch.inference_mode():
            run = Generation(model, Request(prompt, 1), passes, cache, Greedy(), {})
            run.forward(prompt, "read")
            found = run.forward(tokens, "verify", tree=tree, logits=0)
            for node in range(len(tree)):
                path = [other for other in range(len(tree)) if tree.ancestry[node, other]]
                alone = model(torch.cat([prompt, tokens[:, path]], 1)).logits[0, -1]
                assert torch.allclose(found[0, node], alone, atol=1e-5)


def test_padding_before_a_prompt_is_no_part_of_a_tree() -> None:
    model = target_of("llama")
    ids = torch.tensor([[5, 9, 2, 7]])
    expected = greedy(model, ids, 16)
    padded = torch.cat([torch.full((1, 3), 198), ids], 1)
    embedded = Embedded(
        model.get_input_embeddings()(padded).detach(),
        torch.tensor([[0, 0, 0, 1, 1, 1, 1]]),
        torch.tensor([[0, 0, 0, 0, 1, 2, 3]]),
    )
    tokens: list[int] = []
    with guessing(model, expected) as generator:
        generator.generate(Request(padded, 16, embedded=embedded), tokens.extend)
    assert tokens == expected


class Thinking(Proposing):
    """A drafter that thinks something of every path, and remembers which it was asked about."""

    def __init__(self, vocabulary: int, seed: int = 0) -> None:
        self.vocabulary, self.seed = vocabulary, seed
        self.paths: list[list[tuple[int, ...]]] = [[()]]

    def of(self, path: tuple[int, ...]) -> torch.Tensor:
        drawn = torch.Generator().manual_seed(hash((self.seed, path)) % 2**31)
        return torch.randn(self.vocabulary, generator=drawn) * 2

    def first(self) -> torch.Tensor:
        return self.of(())[None]

    def further(self, level: Level) -> torch.Tensor:
        before = self.paths[-1]
        rows = level.origins.tolist()
        self.paths.append([(*before[row], token) for row, token in zip(rows, level.tokens[0].tolist(), strict=True)])
        asked = [path for paths in self.paths[1:] for path in paths]
        for row, path in zip(level.ancestry.tolist(), self.paths[-1], strict=True):
            assert [other for other, seen in zip(asked, row, strict=True) if seen] == [
                path[:length] for length in range(1, len(path) + 1)
            ]
        return torch.stack([self.of(path) for path in self.paths[-1]])


def paths_of(tree: Tree) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for node, parent in enumerate(tree.parents):
        found.append((*found[parent], int(tree.tokens[0, node])) if parent >= 0 else ())
    return found[1:]


@pytest.mark.parametrize("seed", range(4))
def test_a_dynamic_tree_holds_the_likeliest_paths(seed: int) -> None:
    """Where all candidates are followed, against a search over all paths."""
    thinking = Thinking(3, seed)
    logs = {(): 0.0}
    for depth in (1, 2):
        for path in itertools.product(range(3), repeat=depth):
            logs[path] = logs[path[:-1]] + float(thinking.of(path[:-1]).log_softmax(-1)[path[-1]])
    likeliest = sorted((path for path in logs if path), key=lambda path: -logs[path])
    tree = grow(torch.tensor([[9]]), Dynamic(8, 2, 9).within(3), thinking, 9)
    assert len(tree) == 8 and sorted(paths_of(tree)) == sorted(likeliest[:7])
    assert tree.logs is not None
    assert tree.logs[1:].tolist() == pytest.approx([logs[path] for path in paths_of(tree)], abs=1e-5)
    shallow = grow(torch.tensor([[9]]), Dynamic(8, 2, 9).within(3), Thinking(3, seed), 1)
    assert len(shallow) == 4 and set(shallow.depths) == {0, 1}


def test_a_drawn_chain_tells_how_likely_its_paths_are() -> None:
    """For a budget that counts tokens by that: in the distribution that they are drawn from."""
    sampling = Sampling(0.7, 0.9, 3)
    thinking = Thinking(11)
    chain = draw(torch.tensor([[9]]), 4, thinking, Sampled(sampling, torch.device("cpu")))
    path = tuple(chain.tokens[0, 1:].tolist())
    odds = [probabilities(thinking.of(path[:length])[None], sampling)[0, path[length]] for length in range(4)]
    assert chain.logs is not None and chain.logs[0] == 0
    assert chain.logs[1:].tolist() == pytest.approx(torch.stack(odds).log().cumsum(0).tolist(), abs=1e-5)


@pytest.mark.parametrize("growth", [Dynamic(20, 4, 3), Static(20, 4, 3), Static(64, 9, 8), Dynamic(64, 6, 10)])
def test_a_tree_grows_no_larger_than_it_may(growth: Growth) -> None:
    for most in (1, 2, 30):
        tree = grow(torch.tensor([[9]]), growth, Thinking(11), most)
        paths = paths_of(tree)
        assert len(set(paths)) == len(paths), "children of a node differ"
        assert len(tree) <= growth.tokens and max(tree.depths) <= min(growth.depth, most)  # type: ignore[attr-defined]
        if most == 30:
            assert len(tree) == growth.tokens  # type: ignore[attr-defined]
        if isinstance(growth, Static):
            again = grow(torch.tensor([[9]]), growth, Thinking(11, seed=1), most)
            assert again.parents == tree.parents, "a static tree has one form"


def test_a_chain_is_the_likeliest_token_each_time() -> None:
    tree = grow(torch.tensor([[9]]), Dynamic(5, 4, 1), thinking := Thinking(11), 4)
    assert tree.is_chain and len(tree) == 5
    for path in paths_of(tree):
        assert path[-1] == int(thinking.of(path[:-1]).argmax())


def test_a_part_of_a_tree_is_a_tree() -> None:
    tree = Tree(torch.arange(6)[None], (-1, 0, 0, 1, 2, 4), torch.arange(6.0))
    part = tree.part([0, 2, 4])
    assert part.parents == (-1, 0, 1) and part.tokens.tolist() == [[0, 2, 4]] and part.is_chain
    assert part.logs is not None and part.logs.tolist() == [0, 2, 4]


def drafter_of(target: Any) -> Eagle3Drafter:
    torch.manual_seed(0)
    configuration = new_configuration(target.config, intermediate=48, taps=(0, 1, 1))
    return Eagle3Drafter(configuration, target.get_input_embeddings()).eval()


@pytest.mark.parametrize("kind", ["llama", "olmoe", "qwen3_moe", *WINDOWED])
@pytest.mark.parametrize("method", ["eagle-3(tokens=12,depth=4,top_k=3)", "eagle-3(tokens=9,growth=static)"])
def test_eagles_trees_give_the_targets_own_tokens(kind: str, method: str) -> None:
    model = target_of(kind)
    ids = torch.randint(199, (1, 11), generator=torch.Generator().manual_seed(3))
    tokens: list[int] = []
    with applied(parse_method(method), model, drafter_of(model)) as generator:
        trace = generator.generate(Request(ids, 18), tokens.extend)
        assert trace.passes
    assert tokens == greedy(model, ids, 18)
    assert max(trace.figures["drafted"]) == (11 if "12" in method else 8)


def test_eagles_tree_says_what_its_paths_would_say() -> None:
    """The logits at each node, beside the layer run along the node's path alone, one position after the other."""
    model = target_of("llama")
    network = drafter_of(model)
    ids = torch.tensor([[5, 9, 2, 7]])
    with torch.inference_mode():
        features = network.fuse([torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(2))] * 3)
        out, past = network(ids[:, 1:], features, None)
        nodes = {"a": (3, 8), "b": (4, 8)}
        tokens = torch.tensor([[3, 4]])
        eye = torch.eye(2, dtype=torch.bool)
        level1, past1 = network.side_by_side(tokens, out[:, [-1, -1]], past, eye, 3)
        ancestry = torch.cat([eye, torch.eye(2, dtype=torch.bool)], 1)
        level2, _ = network.side_by_side(torch.tensor([[8, 8]]), level1, past1, ancestry, 4)
        for row, path in enumerate(nodes.values()):
            one, kept = network(torch.tensor([[path[0]]]), out[:, -1:], past)
            two, _ = network(torch.tensor([[path[1]]]), one, kept)
            assert torch.allclose(two[0, 0], level2[0, row], atol=1e-6)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("eagle-3(tokens=1)", "tokens of eagle-3 must be 0 for a chain"),
        ("eagle-3(tokens=8,top_k=0)", "top_k of eagle-3 must be at least 1"),
        ("eagle-3(tokens=8,drawn=true)", "draws chains alone"),
    ],
)
def test_settings_of_which_no_tree_grows_are_refused(method: str, reason: str) -> None:
    with pytest.raises(MethodError, match=reason):
        parse_method(method)


def test_an_attention_that_takes_no_mask_verifies_no_tree() -> None:
    model = target_of("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(MethodError, match=r"flash_attention_2 takes none: use sdpa, or draft a chain"):
        with applied(parse_method("eagle-3(tokens=8)"), model, drafter_of(model)):
            pytest.fail("it started")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
