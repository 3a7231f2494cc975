"""Drafters in each public layout are read strictly, and compute what EAGLE-3's drafter computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vivace_methods.decoding.joined import applied
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import parse_method
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter
from vivace_methods.speculation.drafters.eagle3_checkpoint import check_drafter, load_drafter

HIDDEN, HEADS, GROUPS, WIDTH, INNER, VOCABULARY, DRAFTED, LAYERS = 32, 4, 2, 8, 48, 199, 60, 8
TAPS = (2, 4, 5)
EPSILON, THETA = 1e-6, 50000.0


@pytest.fixture(scope="module")
def target() -> Any:
    configuration = tiny_configuration("olmoe")
    configuration.num_hidden_layers = LAYERS
    return random_model(configuration, seed=0)


def weights_of(prefix: str, drafted: int = DRAFTED) -> dict[str, torch.Tensor]:
    """Those of SafeAILab's listing, with another name for the layer where a layout has one."""
    shapes = {
        "fc.weight": (HIDDEN, 3 * HIDDEN),
        "norm.weight": (HIDDEN,),
        "lm_head.weight": (drafted, HIDDEN),
        f"{prefix}.hidden_norm.weight": (HIDDEN,),
        f"{prefix}.input_layernorm.weight": (HIDDEN,),
        f"{prefix}.post_attention_layernorm.weight": (HIDDEN,),
        f"{prefix}.self_attn.q_proj.weight": (HEADS * WIDTH, 2 * HIDDEN),
        f"{prefix}.self_attn.k_proj.weight": (GROUPS * WIDTH, 2 * HIDDEN),
        f"{prefix}.self_attn.v_proj.weight": (GROUPS * WIDTH, 2 * HIDDEN),
        f"{prefix}.self_attn.o_proj.weight": (HIDDEN, HEADS * WIDTH),
        f"{prefix}.mlp.gate_proj.weight": (INNER, HIDDEN),
        f"{prefix}.mlp.up_proj.weight": (INNER, HIDDEN),
        f"{prefix}.mlp.down_proj.weight": (HIDDEN, INNER),
    }
    drawn = torch.Generator().manual_seed(5)
    weights = {name: torch.randn(shape, generator=drawn) * 0.3 for name, shape in shapes.items()}
    if drafted < VOCABULARY:
        ids = torch.randperm(VOCABULARY, generator=drawn)[:drafted].sort().values
        weights["d2t"] = ids - torch.arange(drafted)
        weights["t2d"] = torch.zeros(VOCABULARY, dtype=torch.bool).index_fill(0, ids, True)
    return weights


SIZES = {
    "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER, "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS, "head_dim": WIDTH, "num_hidden_layers": 1, "rms_norm_eps": EPSILON,
    "rope_theta": THETA, "vocab_size": VOCABULARY, "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip


def safeailab(folder: Path) -> dict[str, torch.Tensor]:
    written = {**SIZES, "architectures": ["LlamaForCausalLM"], "draft_vocab_size": DRAFTED, "bias": False}
    (folder / "config.json").write_text(json.dumps(written))
    return weights_of("midlayer")


def specforge(folder: Path) -> dict[str, torch.Tensor]:
    inner = {"eagle_aux_hidden_state_layer_ids": [tap - 1 for tap in TAPS], "use_aux_hidden_state": True}
    written = {
        **SIZES, "architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": DRAFTED, "eagle_config": inner,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(written))
    return {**weights_of("midlayer"), "embed_tokens.weight": torch.randn(VOCABULARY, HIDDEN)}


def speculators(folder: Path) -> dict[str, torch.Tensor]:
    written = {
        "architectures": ["Eagle3Speculator"],
        "speculators_model_type": "eagle3",
        "transformer_layer_config": SIZES,
        "draft_vocab_size": DRAFTED,
        "norm_before_residual": True,
        "eagle_aux_hidden_state_layer_ids": list(TAPS),
        "speculators_config": {"algorithm": "eagle3", "verifier": {"name_or_path": "allenai/OLMoE"}},
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(written))
    return {**weights_of("layers.0"), "embed_tokens.weight": torch.randn(VOCABULARY, HIDDEN)}


LAYOUTS = {"SafeAILab": safeailab, "SpecForge": specforge, "speculators": speculators}


def written_out(
    weights: dict[str, torch.Tensor], prefix: str, embedding: torch.Tensor, ids: list[int], features: torch.Tensor,
    *, normed_residual: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """EAGLE-3's drafter position by position and head by head, in 64 bits: its output, and logits."""
    its = {name: weight.double() for name, weight in weights.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * its[name]

    def turned(x: torch.Tensor, position: int) -> torch.Tensor:
        angles = position / THETA ** (torch.arange(0, WIDTH, 2).double() / WIDTH)
        first, second = x[: WIDTH // 2], x[WIDTH // 2 :]
        return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()])

    outs, keys, values = [], list[torch.Tensor](), list[torch.Tensor]()
    for position, token in enumerate(ids):
        feature = features[position].double()
        normed = norm(feature, f"{prefix}.hidden_norm.weight")
        wide = torch.cat([norm(embedding[token].double(), f"{prefix}.input_layernorm.weight"), normed])
        q, k, v = (its[f"{prefix}.self_attn.{name}_proj.weight"] @ wide for name in "qkv")
        keys.append(torch.stack([turned(each, position) for each in k.view(GROUPS, WIDTH)]))
        values.append(v.view(GROUPS, WIDTH))
        heads = []
        for head, query in enumerate(q.view(HEADS, WIDTH)):
            group = head // (HEADS // GROUPS)
            scores = torch.stack([turned(query, position) @ key[group] for key in keys]) / WIDTH**0.5
            heads.append(scores.softmax(0) @ torch.stack([value[group] for value in values]))
        residual = normed if normed_residual else feature
        after = residual + its[f"{prefix}.self_attn.o_proj.weight"] @ torch.cat(heads)
        inner = norm(after, f"{prefix}.post_attention_layernorm.weight")
        gate, up = (its[f"{prefix}.mlp.{name}_proj.weight"] @ inner for name in ("gate", "up"))
        outs.append(after + its[f"{prefix}.mlp.down_proj.weight"] @ (gate / (1 + (-gate).exp()) * up))
    out = torch.stack(outs)
    return out, norm(out, "norm.weight") @ its["lm_head.weight"].T


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_each_layout_is_the_same_drafter(name: str, target: Any, tmp_path: Path) -> None:
    weights = LAYOUTS[name](tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    drafter = load_drafter(tmp_path, target)
    assert drafter.taps == TAPS and drafter.checkpoint == f"{tmp_path.name} ({name})"
    ids = [5, 9, 2, 7, 11]
    tapped = [torch.randn(1, 5, HIDDEN, generator=torch.Generator().manual_seed(tap)) for tap in TAPS]
    with torch.inference_mode():
        fused = drafter.fuse(tapped)
        assert torch.allclose(
            fused.double(), torch.cat(tapped, -1).double() @ weights["fc.weight"].double().T, atol=1e-4
        )
        out, past = drafter(torch.tensor([ids[:3]]), fused[:, :3], None)
        more, _ = drafter(torch.tensor([ids[3:]]), fused[:, 3:], past)
    embedding = weights.get("embed_tokens.weight", target.get_input_embeddings().weight).detach()
    prefix = "layers.0" if name == "speculators" else "midlayer"
    expected, logits = written_out(weights, prefix, embedding, ids, fused[0], normed_residual=name == "speculators")
    found = torch.cat([out, more], 1)
    assert torch.allclose(found[0].double(), expected, atol=1e-4)
    assert torch.allclose(drafter.logits(found)[0].double(), logits, atol=1e-4)
    likeliest = logits.argmax(-1)
    assert torch.equal(drafter.target_ids(likeliest), likeliest + weights["d2t"][likeliest])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("speculators", {"norm_before_fc": True, "norm_output": True}),
        ("SpecForge", {"fc_norm": True, "norm_output": True}),
        ("SpecForge", {"eagle_config": {"norm_before_fc": True}}),
        ("SafeAILab", {"fc_norm": True, "norm_before_fc": True}),
    ],
)
def test_a_drafter_of_eagle_3_1_normalises_where_it_says_so(
    name: str, options: dict[str, Any], target: Any, tmp_path: Path
) -> None:
    """As speculators train drafters by default, as SpecForge's EAGLE-3.1 does, and as NVIDIA's are written."""
    weights = LAYOUTS[name](tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    inner = {**(written.get("eagle_config") or {}), **options.get("eagle_config", {})}
    (tmp_path / "config.json").write_text(
        json.dumps({**written, **options, **({"eagle_config": inner} if inner else {})})
    )
    chance = torch.Generator().manual_seed(8)
    if options.get("fc_norm"):
        weights |= {f"fc_norm.{tap}.weight": torch.randn(HIDDEN, generator=chance) for tap in range(3)}
    if options.get("norm_before_fc") or "norm_before_fc" in inner:
        weights["input_norm.weight"] = torch.randn(3 * HIDDEN, generator=chance)
    save_file(weights, tmp_path / "model.safetensors")
    drafter = load_drafter(tmp_path, target)

    def norm(x: torch.Tensor, key: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weights[f"{key}.weight"].double()

    tapped = [torch.randn(1, 4, HIDDEN, generator=chance) * 10**tap for tap in range(3)]
    wide = [each.double() for each in tapped]
    if options.get("fc_norm"):
        wide = [norm(each, f"fc_norm.{tap}") for tap, each in enumerate(wide)]
    joined = torch.cat(wide, -1)
    if "input_norm.weight" in weights:
        joined = norm(joined, "input_norm")
    ids = [5, 9, 2, 7]
    embedding = weights.get("embed_tokens.weight", target.get_input_embeddings().weight).detach()
    prefix = "layers.0" if name == "speculators" else "midlayer"
    with torch.inference_mode():
        fused = drafter.fuse(tapped)
        assert torch.allclose(fused.double(), joined @ weights["fc.weight"].double().T, atol=1e-4)
        found, _ = drafter(torch.tensor([ids]), fused, None)
        its_logits = drafter.logits(found)[0].double()
    out, logits = written_out(weights, prefix, embedding, ids, fused[0], normed_residual=name == "speculators")
    handed_on = norm(out, "norm") if options.get("norm_output") else out
    assert torch.allclose(found[0].double(), handed_on, atol=1e-4)
    assert torch.allclose(its_logits, logits, atol=1e-4)


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_loaded_drafter_changes_no_token(name: str, target: Any, tmp_path: Path) -> None:
    save_file(LAYOUTS[name](tmp_path), tmp_path / "model.safetensors")
    plain: list[int] = []
    request = Request(torch.tensor([[5, 9, 2, 7]]), 10)
    with applied(parse_method("autoregressive"), target) as generator:
        generator.generate(request, plain.extend)
    for method in (parse_method("eagle-3(depth=3)"), parse_method("eagle-3(depth=3,tokens=8)")):
        tokens: list[int] = []
        with applied(method, target, method.read_fitted(tmp_path, target)) as generator:
            figures = generator.generate(request, tokens.extend).figures
        assert tokens == plain and figures["drafter"] == f"{tmp_path.name} ({name})"


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_tensor_that_is_missing_or_too_many_is_named(name: str, target: Any, tmp_path: Path) -> None:
    whole = LAYOUTS[name](tmp_path)
    prefix = "layers.0" if name == "speculators" else "midlayer"
    for lost in (f"{prefix}.self_attn.k_proj.weight", "t2d", "fc.weight"):
        save_file({key: value for key, value in whole.items() if key != lost}, tmp_path / "model.safetensors")
        with pytest.raises(MethodError, match=f"missing {lost}"):
            load_drafter(tmp_path, target)
        with pytest.raises(MethodError, match=f"missing {lost}"):  # before a run begins, and no weight is read
            check_drafter(tmp_path, target.config)
    save_file({**whole, f"{prefix}.self_attn.q_proj.bias": torch.ones(HEADS * WIDTH)}, tmp_path / "model.safetensors")
    with pytest.raises(MethodError, match=rf"unknown {prefix}.self_attn.q_proj.bias"):
        load_drafter(tmp_path, target)
    other = weights_of("midlayer" if prefix == "layers.0" else "layers.0")
    save_file({**other, **{key: whole[key] for key in ("d2t", "t2d")}}, tmp_path / "model.safetensors")
    with pytest.raises(MethodError, match=f"missing {prefix}"):
        load_drafter(tmp_path, target)


def test_tables_that_do_not_agree_are_refused(target: Any, tmp_path: Path) -> None:
    weights = safeailab(tmp_path)
    weights["t2d"] = weights["t2d"].roll(1)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(MethodError, match=r"d2t and t2d in .* name different tokens"):
        load_drafter(tmp_path, target)


def test_tables_of_a_whole_vocabulary_may_be_there(target: Any, tmp_path: Path) -> None:
    safeailab(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**written, "draft_vocab_size": VOCABULARY}))
    plain = weights_of("midlayer", VOCABULARY)
    tables = {"d2t": torch.zeros(VOCABULARY, dtype=torch.int64), "t2d": torch.ones(VOCABULARY, dtype=torch.bool)}
    for weights in (plain, {**plain, **tables}):
        save_file(weights, tmp_path / "model.safetensors")
        assert isinstance(load_drafter(tmp_path, target), Eagle3Drafter)
    save_file({**plain, "d2t": tables["d2t"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(MethodError, match="they are damaged"):
        load_drafter(tmp_path, target)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"speculators_model_type": "eagle"}, "speculators' eagle and not eagle3"),
        ({"transformer_layer_config": None}, "lacks its transformer_layer_config"),
        pytest.param({"norm_before_fc": True}, "missing input_norm.weight", id="changed2-sets norm_before_fc"),
        ({"eagle_aux_hidden_state_layer_ids": [2, 4, 8]}, r"reads the layers \[2, 4, 8\]"),
        ({"eagle_aux_hidden_state_layer_ids": "all"}, "reads the layers all"),
        ({"fc_norm": True}, "missing fc_norm.0.weight, fc_norm.1.weight, fc_norm.2.weight"),
        ({"transformer_layer_config": {**SIZES, "layer_types": ["sliding_attention"]}}, "window of the latest"),
    ],
)
def test_what_speculators_may_write_besides_is_refused(
    changed: dict[str, Any], reason: str, target: Any, tmp_path: Path
) -> None:
    save_file(speculators(tmp_path), tmp_path / "model.safetensors")
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**written, **changed}))
    with pytest.raises(MethodError, match=reason):
        load_drafter(tmp_path, target)


def test_pickled_weights_are_not_read(target: Any, tmp_path: Path) -> None:
    safeailab(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(MethodError, match="pickled, which can run foreign code"):
        load_drafter(tmp_path, target)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"hidden_act": "none"}, "is no configuration of a drafter"),
        ({"head_dim": 7}, "is no configuration of a drafter"),
        ({"rms_norm_eps": "x"}, "is no configuration of a drafter"),
        ({"num_attention_heads": 0}, "num_attention_heads of 0, and it must be a number from 1"),
        ({"draft_vocab_size": -4}, "draft_vocab_size of -4"),
        ({"draft_vocab_size": "many"}, "draft_vocab_size of 'many'"),
        ({"num_key_value_heads": 3}, "4 heads, which 3 key-value heads cannot share"),
    ],
)
def test_sizes_of_no_drafter_are_one_sentence(
    changed: dict[str, Any], reason: str, target: Any, tmp_path: Path
) -> None:
    save_file(safeailab(tmp_path), tmp_path / "model.safetensors")
    check_drafter(tmp_path, target.config)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**written, **changed}))
    with pytest.raises(MethodError, match=reason) as caught:
        check_drafter(tmp_path, target.config)
    assert "\n" not in str(caught.value)


def test_an_embedding_of_its_own_has_all_tokens(target: Any, tmp_path: Path) -> None:
    save_file({**specforge(tmp_path), "embed_tokens.weight": torch.ones(90, HIDDEN)}, tmp_path / "model.safetensors")
    with pytest.raises(MethodError, match=r"embed_tokens.weight in .* are \(90, 32\), and config.json means \(199"):
        check_drafter(tmp_path, target.config)
