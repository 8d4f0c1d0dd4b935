"""Spectral conditioning and conditioned initialisation: what the weights become, in each library's storage."""

from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

from skipless.conditioning import compare_attention, parameter_bound
from skipless.errors import InputError
from skipless.evaluators import rotate_
from skipless.models import (
    block_views,
    calibrate_,
    create_model,
    initialize_,
    initialize_conditioned_,
    remove_skips_,
    remove_spectral_conditioning_,
    spectral_conditioning_,
)
from skipless.nn import PolynomialAttention, ShapedAttention

SIZES = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 30}
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 30,
}

MODELS: dict[str, Any] = {
    "timm": lambda: timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32),
    "torchvision": lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 24),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)),
}


def _heads(view: Any) -> list[torch.Tensor]:
    return [
        head.clone() for w in (view.w_q, view.w_k, view.w_v) for head in w.unflatten(1, (-1, view.head_dim)).unbind(1)
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["identity", "exact"])
def test_each_head_is_shifted_and_nothing_else(name: str, form: Any) -> None:
    model = MODELS[name]()
    before, output = [_heads(view) for view in block_views(model)], block_views(model)[0].w_o.clone()
    assert spectral_conditioning_(model, 3.0, form=form) is model
    for view, old in zip(block_views(model), before, strict=True):
        for found, was in zip(_heads(view), old, strict=True):
            u, s, vh = torch.linalg.svd(was, full_matrices=False)
            shift = 3.0 * torch.eye(*was.shape) if form == "identity" else s[0] * u @ vh
            torch.testing.assert_close(found, was + shift, rtol=1e-4, atol=1e-4 * s[0].item())
    assert torch.equal(block_views(model)[0].w_o, output)
    used = [_heads(view) for view in block_views(model)]
    with pytest.raises(InputError, match="already"):
        spectral_conditioning_(model)
    remove_spectral_conditioning_(model)
    assert not any("parametrizations" in key for key in model.state_dict())
    for view, old in zip(block_views(model), used, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(_heads(view), old, strict=True))


def test_the_weight_beneath_is_trained() -> None:
    model = spectral_conditioning_(MODELS["timm"]())
    model(torch.randn(1, 3, 32, 32)).sum().backward()
    names = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert "blocks.0.attn.qkv.parametrizations.weight.original" in names


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("value", ["whole", "head"])
def test_conditioned_initialisation(name: str, value: Any) -> None:
    model = MODELS[name]()
    initialize_conditioned_(model, value=value, generator=torch.Generator().manual_seed(0))
    for view in block_views(model):
        for w in (view.w_q, view.w_k):
            heads = w.unflatten(1, (-1, view.head_dim)).unbind(1)
            for head in heads:
                torch.testing.assert_close(head.mT @ head, torch.eye(view.head_dim), rtol=0, atol=1e-5)
            assert not torch.allclose(heads[0], heads[1])
        width = view.w_v.shape[1]
        eye = torch.eye(view.dim, view.head_dim).repeat(1, width // view.head_dim)
        assert torch.equal(view.w_v, torch.eye(view.dim, width) if value == "whole" else eye)
        assert view.query.b is None or not view.query.b.any()


def test_draws_depend_on_the_generator() -> None:
    found = [
        initialize_conditioned_(MODELS["gpt2"](), generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    one, same, other = (block_views(model)[0].w_q for model in found)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("wrong", [{"form": "half"}, {"strength": 0.0}, {"strength": float("nan")}])
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((InputError, TypeError)):
        spectral_conditioning_(MODELS["gpt2"](), **wrong)


@pytest.mark.parametrize("change", [lambda m: m, initialize_conditioned_, lambda m: spectral_conditioning_(m, 1.0)])
def test_the_bound_holds_on_the_complement_of_one(change: Any) -> None:
    model = change(create_model("vit_tiny_patch16_224", depth=1, embed_dim=12, num_heads=2, seed=0))
    x = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    for head in (0, 1):
        found = parameter_bound(block_views(model)[0], x, head)
        assert 1 <= found.measured <= found.bound < float("inf")
    with pytest.raises(InputError, match="head=2"):
        parameter_bound(block_views(model)[0], x, 2)


def test_kinds_of_attention_beside_each_other() -> None:
    model = create_model("vit_tiny_patch16_224", depth=2, embed_dim=12, num_heads=2, seed=0)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    x = nn.functional.layer_norm(torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0)), (12,))
    cores = {"p1": PolynomialAttention(1), "shaped": ShapedAttention(), "solved": PolynomialAttention(2, "solved")}
    found = compare_attention(model, cores, x, block=1)
    assert [one.name for one in found.cores] == ["softmax", *cores]
    softmax, p1, shaped, solved = found.cores
    assert p1.rank == 6 and p1.kappa_attention == float("inf")  # noqa: PT018
    assert shaped.kappa_attention < softmax.kappa_attention
    assert shaped.kappa_jacobian < softmax.kappa_jacobian
    assert solved.diagonal == pytest.approx(1)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert "kappa(K)" in str(found.tables()[0])
    with pytest.raises(InputError, match="d = 12"):
        compare_attention(model, cores, x[..., :5])


@pytest.mark.parametrize(
    "write",
    [
        rotate_,
        lambda model: calibrate_(remove_skips_(model), 0.9),
        lambda model: initialize_(remove_skips_(model)),
        initialize_conditioned_,
        lambda model: block_views(model)[0].query.write_(torch.zeros(192, 192)),
    ],
)
def test_nothing_is_written_into_weights_that_are_computed(write) -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32)
    spectral_conditioning_(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="parametrization|spectral conditioning"):
        write(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
