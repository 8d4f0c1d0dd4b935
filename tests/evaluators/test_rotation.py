"""The rotated control: the same function, in another basis, of timm's ViT and of Llama."""

import copy
from typing import Any

import pytest
import timm
import torch
from reference.hf_models import FAMILIES
from reference.vision_models import OTHERS, encoder, images, of_timm, randomised
from torch import Tensor, nn
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

from skipless.errors import InputError
from skipless.evaluators.quantisation import activation_statistics, quantise_, rotate_, rotation_matrix
from skipless.models import block_views, remove_skips_


@pytest.mark.parametrize("dim", [1, 2, 12, 20, 24, 64, 192, 384, 640, 768])
@pytest.mark.parametrize("kind", ["hadamard", "haar"])
def test_rotations_are_orthogonal(dim: int, kind: Any) -> None:
    q = rotation_matrix(dim, kind, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(q @ q.mT, torch.eye(dim).double(), rtol=0, atol=1e-12)
    if kind == "hadamard":
        assert q.abs().unique().numel() <= 2
        torch.testing.assert_close(q.abs(), torch.full_like(q, dim**-0.5), rtol=0, atol=1e-12)


def test_a_width_without_hadamard_matrix_is_refused() -> None:
    with pytest.raises(InputError, match="no Hadamard matrix of width 36 .* kind='haar'"):
        rotation_matrix(36)


TIMM: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers, no class": {"class_token": False, "reg_tokens": 2, "global_pool": "avg"},
    "average, norm behind": {"global_pool": "avg", "fc_norm": True},
    "layer scale": {"init_values": 0.5},
    "qk-norm": {"qk_norm": True},
    "prefix beside positions": {"no_embed_class": True, "reg_tokens": 1},
    "headless": {"num_classes": 0},
    "another size": {"dynamic_img_size": True},
}


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("kind", ["hadamard", "haar"])
@pytest.mark.parametrize("skipless", [False, True])
def test_timm_computes_the_same(name: str, kind: Any, skipless: bool) -> None:
    vit = randomised(of_timm("vit_tiny_patch16_224", **TIMM[name]))
    if skipless:
        remove_skips_(vit, layer_scale="keep")
    given = images(side=24 if name == "another size" else 16)
    before, tokens = vit(given), activation_statistics(vit, [given])
    assert rotate_(vit, kind, generator=torch.Generator().manual_seed(0)) is vit
    exact = 1e-6 if name == "another size" else 1e-9  # timm interpolates positions in float32
    torch.testing.assert_close(vit(given), before, rtol=0, atol=exact)
    after = activation_statistics(vit, [given])
    for site in ("q", "heads", "hidden"):
        torch.testing.assert_close(after.at(1, site).channel_mean, tokens.at(1, site).channel_mean, rtol=0, atol=exact)
    assert not torch.allclose(after.at(1, "tokens").channel_mean, tokens.at(1, "tokens").channel_mean, atol=1e-3)


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    """The library's, which computes in float32, in the dtype of its tokens."""
    mean = hidden_states.pow(2).mean(-1, keepdim=True)
    return self.weight * (hidden_states * torch.rsqrt(mean + self.variance_epsilon))


@pytest.mark.parametrize("name", ["llama", "llama-grouped", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("skipless", [False, True])
def test_llama_computes_the_same(name: str, skipless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (modeling_llama, modeling_mistral, modeling_qwen2, modeling_qwen3):
        cls: Any = next(
            vars(module)[one]
            for one in vars(module)
            if one.endswith("RMSNorm") and one.startswith(("Llama", "Mistral", "Qwen2", "Qwen3"))
        )
        monkeypatch.setattr(cls, "forward", _norm)
    model: Any = FAMILIES[name].build()
    if skipless:
        remove_skips_(model)
    ids = FAMILIES[name].inputs()
    before = model(ids).logits
    rotate_(model, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=1e-9)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert all(bool((view.attn_norm.weight == 1).all()) for view in block_views(model))  # pyright: ignore


def test_a_large_channel_is_gone_from_the_stream() -> None:
    vit: Any = randomised(of_timm("vit_tiny_patch16_224", embed_dim=192, num_heads=3))
    with torch.no_grad():
        vit.pos_embed[..., 5] += 300
    before = activation_statistics(vit, [images()]).at(0, "tokens").kurtosis["pooled"]
    rotate_(vit)
    assert before > 100
    assert activation_statistics(vit, [images()]).at(0, "tokens").kurtosis["pooled"] < 3


def test_other_models_are_refused_by_what_they_lack() -> None:
    cases: list[tuple[nn.Module, str]] = [
        (OTHERS["torchvision"](), "`VisionTransformer` cannot be rotated: what writes to its stream"),
        (OTHERS["deit"](), "`VisionTransformerDistilled` cannot"),
        (FAMILIES["bert"].build(), "its norms follow the sums"),
        (FAMILIES["gpt2"].build(), "`GPT2LMHeadModel` cannot"),
        (encoder(norm_first=True, batch_first=True), "`TransformerEncoder` cannot"),
        (of_timm("vit_tiny_patch16_224", pre_norm=True), "norm_pre"),
        (nn.Linear(2, 2), "no adapter"),
    ]
    for model, said in cases:
        state = copy.deepcopy(model.state_dict())
        with pytest.raises(InputError, match=said):
            rotate_(model)
        assert all(torch.equal(one, state[name]) for name, one in model.state_dict().items())


def test_a_bias_that_has_nowhere_to_go_is_refused() -> None:
    vit = randomised(of_timm("vit_tiny_patch16_224", qkv_bias=False))
    with pytest.raises(InputError, match="qkv_bias=True"):
        rotate_(vit)
    fresh = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, qkv_bias=False).double().eval()
    x = torch.randn(1, 3, 32, 32).double()
    before = fresh(x)
    torch.testing.assert_close(rotate_(fresh)(x), before, rtol=0, atol=1e-9)  # a bias of 0 needs none


def test_a_quantised_model_is_refused() -> None:
    vit = quantise_(of_timm("vit_tiny_patch16_224"))
    with pytest.raises(InputError, match="unquantise_ before rotate_"):
        rotate_(vit)
