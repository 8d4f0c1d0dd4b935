"""Models whose heads start of two kinds."""

from dataclasses import replace

import pytest
import torch
from timm.layers import SwiGLU
from torch import Generator, nn
from transformers import LlamaConfig, LlamaForCausalLM

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import block_views, calibrate_, create_model, initialize_, inspect_init, inspect_tokens
from skipless.models.starting.attention_diagonal import mean_diagonals
from skipless.models.starting.first_tokens import first_tokens

PARTED = SkiplessInit(
    alpha=0.0, beta=1.0, mlp="mirrored", attention_diagonal=0.95, last_diagonal=0.15, context_heads=0.5
)


def vit(**options) -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 4, "seed": 0}
    return create_model("vit_tiny_patch16_224", **{**sizes, **options})


@pytest.mark.parametrize("options", [{}, {"mlp_layer": SwiGLU}, {"mlp_layer": SwiGLU, "proj_bias": False}], ids=str)
def test_a_model_starts_with_heads_of_both_kinds(options: dict) -> None:
    model = initialize_(vit(**options), PARTED, generator=Generator().manual_seed(0))
    report = inspect_init(model, PARTED)
    assert report.flags == ()
    images = torch.randn(4, 3, 32, 32, generator=Generator().manual_seed(1))
    calibrate_(model, PARTED.head_diagonals(3, 4), images=images)
    x, views = first_tokens(model, block_views(model), images)
    for view in views:
        found = mean_diagonals(view, view.attn_norm(x)).tolist()
        assert found == pytest.approx((0.95, 0.95, 0.15, 0.15), abs=0.03), view.name
        x = view.run(x)
    again = initialize_(vit(**options), PARTED, generator=Generator().manual_seed(0))
    assert not torch.equal(model.blocks[0].attn.qkv.weight, vit(**options).blocks[0].attn.qkv.weight)
    assert torch.equal(model.blocks[0].attn.proj.weight, again.blocks[0].attn.proj.weight)


def test_tokens_stay_apart_where_one_kind_of_diffuse_heads_makes_them_alike() -> None:
    images = torch.randn(4, 3, 32, 32, generator=Generator().manual_seed(1))
    cosines, rotation = {}, replace(PARTED, mlp_linearity=1.0)
    for name, init in {"two": rotation, "one": replace(rotation, context_heads=0.0, attention_diagonal=0.15)}.items():
        model = initialize_(vit(depth=8), init, images=images, generator=Generator().manual_seed(0))
        cosines[name] = inspect_tokens(model, images).blocks[-1].cosine
    assert cosines["two"] < 0.5
    assert cosines["one"] > 0.9


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"qk_norm": True}, {}, "has qk-norm, one scale for all heads: use context_heads=0"),
        ({"num_heads": 1}, {}, "of 1 heads is 0: there must be heads of both kinds"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(options: dict, changes: dict, message: str) -> None:
    model = vit(**options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        initialize_(model, replace(PARTED, **changes))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_shared_keys_are_refused() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 8}
    grouped = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))
    with pytest.raises(InputError, match="context_heads needs a key head for each head"):
        initialize_(grouped, replace(PARTED, grouped="repeated"))


def test_a_device_in_force_changes_nothing() -> None:
    expected = initialize_(vit(), PARTED, generator=Generator().manual_seed(0)).state_dict()
    model = vit()
    with torch.device("meta"):
        initialize_(model, PARTED, generator=Generator().manual_seed(0))
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("diagonal", [((0.9, 0.1),) * 3, ((0.9, 0.1, 0.1, 0.1),) * 2, ((0.9, 0.1, 0.1, 1.0),) * 3])
def test_diagonals_of_other_numbers_are_refused(diagonal: tuple) -> None:
    with pytest.raises(InputError, match="diagonal"):
        calibrate_(vit(), diagonal)
