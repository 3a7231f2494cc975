"""Budgets, thresholds, low-rank parts, recipes as they are kept, and the searches."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vivace_kernels.sparsity.packed import Factors
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import MethodError
from vivace_methods.registry import parse_method
from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.sparsity.applying.channel_limits import channel_scale, residual
from vivace_methods.sparsity.applying.groups import applied_groups, uncounted_group
from vivace_methods.sparsity.applying.linears import find_groups
from vivace_methods.sparsity.fitting.about import About
from vivace_methods.sparsity.fitting.budget import WeightBudget, budget
from vivace_methods.sparsity.fitting.criteria import FACTORS_FILE, RECIPE_FILE
from vivace_methods.sparsity.fitting.layers import Fitted, LayerFit, fitted_factors, threshold_of
from vivace_methods.sparsity.fitting.recipe import ModuleRecipe, load_recipe
from vivace_methods.sparsity.fitting.searches.descent import Descent
from vivace_methods.sparsity.fitting.searches.evolution import Evolution
from vivace_methods.sparsity.fitting.searches.journal import Journal
from vivace_methods.sparsity.fitting.walk import Walk

RELEASED = Path(__file__).parents[4] / "shared" / "data" / "rsparse" / "llama3_8b_ratios_50.txt"
LLAMA3 = {"q": (4096, 4096), "k": (4096, 1024), "v": (4096, 1024), "o": (4096, 4096)} | {
    "gate": (4096, 14336),
    "up": (4096, 14336),
    "down": (14336, 4096),
}
"""Inputs and outputs of a block's linear layers, in the order of the released file."""


def method(text: str) -> ActivationSparsity:
    made = parse_method(text)
    assert isinstance(made, ActivationSparsity)
    return made


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(tiny_configuration("llama"), seed=3)


@pytest.fixture(scope="module")
def texts() -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(4)
    return [torch.randint(199, (1, 24), generator=drawn) for _ in range(6)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@given(
    inputs=st.integers(8, 5000),
    outputs=st.integers(8, 5000),
    sparsity=st.floats(0, 0.99),
    ratio=st.floats(0, 1),
)
def test_nothing_reads_more_than_its_budget(inputs: int, outputs: int, sparsity: float, ratio: float) -> None:
    its = budget(inputs, outputs, sparsity, ratio)
    assert 1 <= its.channels <= inputs and 0 <= its.rank <= min(inputs, outputs)
    least = outputs + (inputs + outputs)  # one channel there must be, and one rank
    assert its.weights <= (1 - sparsity) * inputs * outputs + least
    assert (its.rank == 0) == (ratio == 1 or sparsity == 0)


@pytest.mark.parametrize("ratio", [0.2, 0.65, 0.95])
def test_smaller_keys_and_values_get_no_more_than_their_share(ratio: float) -> None:
    for inputs, outputs in LLAMA3.values():
        its = budget(inputs, outputs, 0.5, ratio)
        assert its.density == pytest.approx(0.5, abs=2e-3)
        assert its.channels == int(4096 * 0.5 * ratio) or inputs != 4096


@pytest.mark.skipif(not RELEASED.is_file(), reason="the released ratios are not at hand")
def test_the_released_ratios_read_what_is_known_of_them() -> None:
    written = [float(line) for line in RELEASED.read_text().split()]
    ratios, sparsities = written[0::2], written[1::2]
    assert len(ratios) == 224 and set(sparsities) == {0.5}
    shapes = list(LLAMA3.values())
    ours = [budget(*shapes[place % 7], 0.5, ratio) for place, ratio in enumerate(ratios)]
    whole = sum(its.inputs * its.outputs for its in ours)

    def share(weights: Any) -> float:
        return float(sum(weights)) / whole

    # As released: attention's four are taken for square ones, so that keys and values get too large a rank.
    released = []
    for place, (ratio, its) in enumerate(zip(ratios, ours, strict=True)):
        outputs = 4096 if place % 7 < 4 else its.outputs
        rank = budget(its.inputs, outputs, 0.5, ratio).rank
        released.append(WeightBudget(its.inputs, its.outputs, its.channels, rank))
    assert share(its.channels * its.outputs for its in released) == pytest.approx(0.4906, abs=1e-4)
    assert share(its.rank * (its.inputs + its.outputs) for its in released) == pytest.approx(0.0111, abs=1e-4)
    assert share(its.weights for its in released) == pytest.approx(0.5017, abs=1e-4)
    worst = released[23 * 7 + 1]
    assert worst.rank == 1002 and worst.density > 1, "it reads more than the dense layer"
    # With every layer's own shape.
    assert all(its.density <= 0.5 + 1e-9 for its in ours)
    assert share(its.weights for its in ours) == pytest.approx(0.5, abs=5e-4)
    assert sum(ratio == 1 for ratio in ratios) == sum(its.rank == 0 for its in ours) == 193


@given(st.integers(0, 2**16), st.floats(0, 1))
def test_a_threshold_keeps_the_share_that_it_was_asked_for(seed: int, kept: float) -> None:
    scores = torch.rand(40, 25, generator=torch.Generator().manual_seed(seed))
    found = float((scores > threshold_of(scores, kept)).float().mean())
    assert found == pytest.approx(kept, abs=0.51e-3 + 1e-6)


def test_a_low_rank_part_gives_dropped_inputs_better_than_the_truncated_weights() -> None:
    drawn = torch.Generator().manual_seed(1)
    weight = torch.randn(48, 64, generator=drawn)
    # Small inputs that lie mostly in a few directions, which the weights alone know nothing of, beside large ones.
    small = torch.randn(400, 6, generator=drawn) @ torch.randn(6, 44, generator=drawn)
    small += 0.1 * torch.randn(400, 44, generator=drawn)
    large = 100 * torch.randn(400, 20, generator=drawn).sign()
    inputs = torch.cat((large, small), 1)
    layer = LayerFit("layer", weight, [inputs])
    its = WeightBudget(64, 48, 20, 6)
    plain = layer.fit(its, "magnitude", "svd", 0.5, 0.6)
    fitted = layer.fit(its, "magnitude", "dropped", 0.5, 0.6)
    nothing = layer.fit(WeightBudget(64, 48, 20, 0), "magnitude", "svd", 0.5, 1.0)
    errors = [each.recipe.output_error for each in (fitted, plain, nothing)]
    assert errors == sorted(errors, key=lambda error: error or 0.0) and (errors[0] or 1) < 0.25 * (errors[1] or 0)
    assert fitted.factors is not None and fitted.factors.up.shape == (48, 6)


def test_of_all_low_rank_parts_the_fitted_one_is_the_best() -> None:
    drawn = torch.Generator().manual_seed(2)
    weight, dropped = torch.randn(20, 30, generator=drawn), torch.randn(500, 30, generator=drawn)
    dropped *= torch.linspace(0.1, 3, 30)

    def error(low_rank: torch.Tensor) -> float:
        return float((dropped @ (weight - low_rank).T).square().sum())

    best = fitted_factors(weight, dropped, 5)
    # The analytic optimum: outputs' own truncated form.
    values = torch.linalg.svdvals((dropped @ weight.T).double())
    assert error(best.up @ best.down) == pytest.approx(float(values[5:].square().sum()), rel=1e-3)
    left, singular, right = torch.linalg.svd(weight, full_matrices=False)
    assert error(best.up @ best.down) < error((left[:, :5] * singular[:5]) @ right[:5])


@pytest.mark.parametrize(("outputs", "inputs"), [(24, 60), (60, 24), (40, 40)])
def test_a_truncated_part_loses_no_more_than_that_of_a_decomposition_in_double_precision(
    outputs: int, inputs: int
) -> None:
    drawn = torch.Generator().manual_seed(5)
    # Singular values fall from 1 to 1e-6, as far as numbers in single precision tell.
    left = torch.linalg.qr(torch.randn(outputs, outputs, generator=drawn)).Q
    right = torch.linalg.qr(torch.randn(inputs, inputs, generator=drawn)).Q
    smaller = min(outputs, inputs)
    weight = (left[:, :smaller] * torch.logspace(0, -6, smaller)) @ right[:smaller]
    layer = LayerFit("it", weight, [torch.randn(50, inputs, generator=drawn) for _ in range(2)])
    for ratio in (0.95, 0.8, 0.5):
        fitted = layer.fit(budget(inputs, outputs, 0.5, ratio), "residual-norm", "svd", 0.5, ratio)
        u, values, v = torch.linalg.svd(weight.double(), full_matrices=False)
        rank = fitted.recipe.rank
        exact = Factors((u[:, :rank] * values[:rank]).float(), v[:rank].float())
        assert fitted.recipe.output_error == pytest.approx(layer.output_error(fitted.recipe, exact), rel=1e-4)


def test_full_rank_leaves_nothing() -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(2))
    inputs = torch.randn(100, 30, generator=torch.Generator().manual_seed(3))
    for kind in ("svd", "dropped"):
        fitted = LayerFit("layer", weight, [inputs]).fit(WeightBudget(30, 20, 3, 20), "magnitude", kind, 0.5, 0.5)
        assert float(residual(weight, fitted.factors).abs().max()) < 1e-4
        assert (fitted.recipe.output_error or 0) < 1e-8


def test_a_search_never_takes_what_loses_more_of_the_output(model: Any, texts: list[torch.Tensor]) -> None:
    searched = method("r-sparse(search=output-error,sequential=false)").fit(model, texts)
    for name in ("teal(sequential=false)", "wina(sequential=false)", "r-sparse(ratio=0.9,sequential=false)"):
        other = method(name).fit(model, texts)
        for layer, its in searched.modules.items():
            assert (its.output_error or 0) <= (other.modules[layer].output_error or 0) + 1e-12
    tried = {tuple(each[key] for key in ("layer", "ratio", "criterion", "factors")) for each in searched.log}
    assert len(tried) == len(searched.log) == len(searched.modules) * (2 + 7 * 2 * 2), "two ways to low-rank parts"


def test_layers_meet_what_sparse_ones_give(model: Any, texts: list[torch.Tensor]) -> None:
    sequential = method("teal(sparsity=0.6)").fit(model, texts).modules
    at_once = method("teal(sparsity=0.6,sequential=false)").fit(model, texts).modules
    first = [layer for layer in sequential if ".layers.0.self_attn.q_proj" in layer]
    later = [layer for layer in sequential if ".layers.1." in layer]
    assert all(sequential[layer] == at_once[layer] for layer in first)
    assert all(sequential[layer].threshold != at_once[layer].threshold for layer in later)


class Stopped(Exception):
    """As Ctrl-C would."""


def test_an_evolution_goes_on_where_it_was_interrupted(
    model: Any, texts: list[torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = method("r-sparse(search=evolutionary,sparsity=0.6)")
    monkeypatch.setattr(Evolution, "__init__", _small(Evolution.__init__))
    whole = made.fit(model, texts, About(journal=tmp_path / "whole.jsonl"))

    def stop(done: int, steps: int) -> None:
        if done == 9:
            raise Stopped

    journal = tmp_path / "journal.jsonl"
    with pytest.raises(Stopped):
        made.fit(model, texts, About(journal=journal, on_step=stop))
    assert not any("forward" in vars(part) for part in model.modules())
    with journal.open("a") as file:
        file.write('{"of": "cut sho')
    before = len(journal.read_text().splitlines())
    resumed = made.fit(model, texts, About(journal=journal))
    assert (resumed.modules, resumed.log) == (whole.modules, whole.log)
    written = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_text().splitlines()[1:]]
    assert before - 2 + len(journal.read_text().splitlines()) - before <= len(written) + 1, "none was measured twice"
    best = min(each["perplexity"] for each in whole.log)
    assert best <= min(whole.log[0]["perplexity"], whole.log[1]["perplexity"]), "uniform ratios, and ones, are tried"
    other = made.fit(model, texts[:4], About(journal=journal))
    assert other.log != whole.log, "what was measured on other text does not count"


def _small(made: Any) -> Any:
    def init(self: Any, *arguments: Any) -> None:
        made(self, *arguments, population=6, generations=2, samples=2)

    return init


def test_a_recipe_is_read_as_it_was_written(model: Any, texts: list[torch.Tensor], tmp_path: Path) -> None:
    about = About(model="someone/model", revision="c" * 40, calibration="random tokens")
    made = method("r-sparse(ratio=0.9)").fit(model, texts, about)
    made.save(tmp_path / "recipe")
    read = load_recipe(tmp_path / "recipe")
    assert (read.method, read.model, read.revision) == ("r-sparse(ratio=0.9)", "someone/model", "c" * 40)
    assert (read.calibration, read.tokens, read.weights) == ("random tokens", 6 * 24, made.weights)
    # Thresholds are of the second parts of every other text; the rest was read densely, or measured what was fitted.
    assert read.threshold_tokens == made.threshold_tokens == 3 * 12
    assert read.modules == made.modules
    assert all(torch.equal(read.factors[name].up, factors.up) for name, factors in made.factors.items())
    modes = {file.stat().st_mode for file in (tmp_path / "recipe").iterdir()}
    assert len(modes) == 1, "whoever may read one file may read the other"
    text = (tmp_path / "recipe" / RECIPE_FILE).read_text()
    assert json.loads(text)["format"] == 2 and len(text) < 20_000


def test_recipes_that_are_none_are_refused(model: Any, texts: list[torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="There is no recipe in"):
        load_recipe(tmp_path)
    folder = tmp_path / "recipe"
    method("r-sparse(ratio=0.9)").fit(model, texts).save(folder)
    sound = json.loads((folder / RECIPE_FILE).read_text())
    layer = next(iter(sound["modules"]))

    def changed(**more: Any) -> None:
        (folder / RECIPE_FILE).write_text(json.dumps({**sound, **more}))

    changed(format=3)
    with pytest.raises(MethodError, match="of format 3, and this version reads 1 and 2"):
        load_recipe(folder)
    changed(modules={**sound["modules"], layer: {**sound["modules"][layer], "threshold": math.nan}})
    with pytest.raises(MethodError, match="is damaged"):
        load_recipe(folder)
    changed(modules={**sound["modules"], layer: {**sound["modules"][layer], "criterion": "taste"}})
    with pytest.raises(MethodError, match="there is no criterion 'taste'"):
        load_recipe(folder)
    changed(modules={})
    (folder / RECIPE_FILE).write_text("{")
    with pytest.raises(MethodError, match="cannot be read"):
        load_recipe(folder)
    changed()
    (folder / FACTORS_FILE).write_bytes(b"pickled")
    with pytest.raises(MethodError, match="cannot be read"):
        load_recipe(folder)


def test_what_a_journal_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MethodError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal.jsonl", {})


def test_a_descent_takes_what_moves_predictions_less(model: Any, texts: list[torch.Tensor]) -> None:
    drawn = torch.Generator().manual_seed(8)
    many = [torch.randint(199, (1, 24), generator=drawn) for _ in range(32)]
    made = method("r-sparse(sparsity=0.8,criterion=column-norm)").fit(model, many)
    begun = method("wina(sparsity=0.8)").fit(model, many)
    assert len(made.log) == len(made.modules) * 4, "two ratios, and two ways to their low-rank parts"
    taken = {each["layer"]: each["choice"] for each in made.log if each["taken"]}
    assert taken, "something is better than the same rule everywhere"
    for layer, its in made.modules.items():
        assert taken.get(layer, "1.0 column-norm").startswith(f"{its.ratio} {its.criterion}")
        if layer not in taken:
            assert its.threshold == begun.modules[layer].threshold
    descent = Descent(model, find_groups(model), many[1::2])
    reached, before = (
        descent.divergence({name: Fitted(its, each.factors.get(name)) for name, its in each.modules.items()})
        for each in (made, begun)
    )
    assert reached.mean() < before.mean()


def test_a_divergence_is_each_texts_own(model: Any, texts: list[torch.Tensor]) -> None:
    made = method("teal(sparsity=0.7)").fit(model, texts)
    fitted = {name: Fitted(its, None) for name, its in made.modules.items()}
    groups = find_groups(model)
    short, long = texts[0][:, :10], texts[1]

    def alone(text: torch.Tensor) -> float:
        return float(Descent(model, groups, [text]).divergence(fitted))

    four = Descent(model, groups, [short, long, long, short]).divergence(fitted).tolist()
    assert four == pytest.approx([alone(each) for each in (short, short, long, long)], rel=1e-3), "part by part"


def test_inputs_of_texts_that_are_read_together_are_their_own(model: Any, texts: list[torch.Tensor]) -> None:
    mixed = [texts[0][:, :5], texts[1][:, :5], texts[2]]
    group = find_groups(model)[5]
    (together,) = Walk(model, [group], mixed).inputs([group])
    assert [len(each) for each in together] == [3, 3, 12], "second parts"
    for text, found in zip(mixed, together, strict=True):
        ((alone,),) = Walk(model, [group], [text]).inputs([group])
        assert torch.allclose(found, alone, atol=1e-5)


@pytest.mark.parametrize("name", ["teal", "wina"])
def test_greedy_levels_spare_as_much_of_each_block_and_lose_less_of_its_output(
    model: Any, texts: list[torch.Tensor], name: str
) -> None:
    uniform = method(f"{name}(sparsity=0.6,sequential=false)").fit(model, texts)
    greedy = method(f"{name}(sparsity=0.6,levels=greedy,sequential=false)").fit(model, texts)
    sizes = {f"{path}": module.weight.numel() for path, module in model.named_modules() if path in greedy.modules}
    for block in ("layers.0.", "layers.1."):
        its = [layer for layer in greedy.modules if block in layer]
        spared = sum(greedy.modules[layer].sparsity * sizes[layer] for layer in its)
        assert spared == pytest.approx(0.6 * sum(sizes[layer] for layer in its))
    assert len({its.sparsity for its in greedy.modules.values()}) > 2
    assert all(its.sparsity <= 0.95 for its in greedy.modules.values())

    def first_block(recipe: Any) -> float:
        """What its output loses on the second parts of the calibration texts."""
        path = next(name for name, _ in model.named_modules() if name.endswith("layers.0"))
        seen: list[torch.Tensor] = []
        hook = model.get_submodule(path).register_forward_hook(lambda block, given, output: seen.append(output))
        fitted = {layer: Fitted(its, None) for layer, its in recipe.modules.items()}
        with torch.no_grad():
            for text in texts:
                model(text)
                with applied_groups([uncounted_group(group, fitted) for group in find_groups(model)]):
                    model(text)
        hook.remove()
        pairs = zip(seen[::2], seen[1::2], strict=True)
        return sum(float((sparse - dense)[:, dense.shape[1] // 2 :].square().sum()) for dense, sparse in pairs)

    assert first_block(greedy) < first_block(uniform)


@pytest.mark.parametrize("name", ["teal(levels=greedy)", "r-sparse(levels=greedy)"])
def test_a_search_of_levels_goes_on_where_it_was(
    model: Any, texts: list[torch.Tensor], name: str, tmp_path: Path
) -> None:
    """Also where levels are searched by two criteria, which must not be taken for each other."""
    written = tmp_path / "journal.jsonl"
    first = method(name).fit(model, texts, About(journal=written))
    assert method(name).fit(model, texts).modules == first.modules
    lines = written.read_text().splitlines()
    assert len(lines) > 100
    written.write_text("\n".join(lines[:60]) + "\n" + lines[60][:20])
    again = method(name).fit(model, texts, About(journal=written))
    assert again.modules == first.modules


def test_a_search_begins_with_the_criterion_that_is_surely_better(model: Any) -> None:
    """Columns of very different norms, to which magnitudes are blind."""
    uneven = random_model(tiny_configuration("llama"), seed=5)
    drawn = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for group in find_groups(uneven):
            for module in group.modules:
                module.weight.mul_(torch.exp(2 * torch.randn(module.in_features, generator=drawn)))
    many = [torch.randint(199, (1, 24), generator=drawn) for _ in range(48)]
    made = method("r-sparse(sparsity=0.6)").fit(uneven, many)
    assert {its.criterion for its in made.modules.values()} >= {"column-norm"}
    norms = method("wina(sparsity=0.6)").fit(uneven, many)
    unmoved = [layer for layer, its in made.modules.items() if its == norms.modules[layer]]
    assert len(unmoved) > len(made.modules) / 2, "most are as where it began"


def test_what_a_criterion_is_called_is_what_it_judges_by(model: Any, texts: list[torch.Tensor]) -> None:
    """The released code takes norms of W's columns, and the default those of what is left of them."""
    drawn = torch.Generator().manual_seed(9)
    weight = torch.randn(20, 30, generator=drawn)
    factors = Factors(torch.randn(20, 4, generator=drawn), torch.randn(4, 30, generator=drawn))
    assert torch.allclose(channel_scale("column-norm", weight, factors), weight.norm(dim=0))
    left = weight - factors.up @ factors.down
    assert torch.allclose(channel_scale("residual-norm", weight, factors), left.norm(dim=0))
    criteria = {
        (setting, ratio): {its.criterion for its in _fit(model, texts, ratio, setting).values()}
        for setting in ("residual-norm", "released", "magnitude", "column-norm")
        for ratio in (1, 0.9)
    }
    assert criteria == {
        ("residual-norm", 1): {"magnitude"},
        ("residual-norm", 0.9): {"residual-norm"},
        ("released", 1): {"magnitude"},
        ("released", 0.9): {"column-norm"},
        ("magnitude", 1): {"magnitude"},
        ("magnitude", 0.9): {"magnitude"},
        ("column-norm", 1): {"column-norm"},
        ("column-norm", 0.9): {"column-norm"},
    }


def _fit(model: Any, texts: list[torch.Tensor], ratio: float, criterion: str) -> Mapping[str, ModuleRecipe]:
    made = method(f"r-sparse(ratio={ratio},criterion={criterion},sequential=false,only=layers.0.self_attn)")
    return made.fit(model, texts[:2]).modules


def test_recipes_under_the_old_names_are_read_or_refused(
    model: Any, texts: list[torch.Tensor], tmp_path: Path
) -> None:
    made = method("r-sparse(ratio=0.9)").fit(model, texts)
    made.save(tmp_path)
    written = json.loads((tmp_path / RECIPE_FILE).read_text())
    for module in written["modules"].values():
        assert module["criterion"] == "residual-norm"
        module["criterion"] = "column-norm"  # as it was called in the first format
    del written["threshold_tokens"]
    written["format"] = 1
    (tmp_path / RECIPE_FILE).write_text(json.dumps(written))
    read = load_recipe(tmp_path)
    assert read.modules == made.modules and read.threshold_tokens is None
    # What was named in the arm itself now means another thing, and nobody is told silently that it does.
    (tmp_path / RECIPE_FILE).write_text(
        json.dumps({**written, "method": "r-sparse(ratio=0.9,criterion=column-norm)"})
    )
    with pytest.raises(MethodError, match="criterion=residual-norm for what it was"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("name", ["teal(levels=greedy)", "r-sparse(levels=greedy)", "r-sparse(search=output-error)"])
def test_fitting_is_told_as_one_piece_of_work(model: Any, texts: list[torch.Tensor], name: str) -> None:
    told: list[tuple[int, int]] = []
    method(name).fit(model, texts[:2], About(on_step=lambda done, steps: told.append((done, steps))))
    assert len({steps for _, steps in told}) == 1, "the bar has one length"
    assert [done for done, _ in told] == sorted(done for done, _ in told), "and never goes back"
    assert told[-1][0] == told[-1][1] and told[0][0] >= 1
