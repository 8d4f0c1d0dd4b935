"""What no adapter takes is refused in one line with the reason, and the model stays as it was."""

import copy
from functools import partial

import pytest
import timm
import torch
from reference.vision_models import TINY, encoder, of_timm, of_torchvision
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
)
from torch import nn

from skipless.errors import InputError
from skipless.models import block_views, remove_skips_
from skipless.models.vit_view import find_vit


class OwnBlock(nn.TransformerEncoderLayer):
    """A user's subclass."""


def with_own_layer() -> nn.Module:
    model = encoder(norm_first=True, batch_first=True)
    model.layers[1] = OwnBlock(24, 3, 48, dropout=0.0, batch_first=True, norm_first=True)
    return model


def with_attention(**kwargs) -> nn.Module:
    model = encoder(norm_first=True, batch_first=True)
    model.layers[1].self_attn = nn.MultiheadAttention(24, 3, batch_first=True, **kwargs)
    return model


def with_gate() -> nn.Module:
    model = of_timm("vit_small_patch16_dinov3")
    model.blocks[1].attn.gate = nn.Linear(24, 24)
    return model


PLAIN = partial(timm.create_model, "vit_tiny_patch16_224", **TINY)
REFUSED = {
    "res-post-norm": (
        partial(PLAIN, block_fn=ResPostBlock),
        "block `ResPostBlock` at blocks.0: it norms what a branch",
    ),
    "parallel": (
        partial(PLAIN, block_fn=ParallelScalingBlock),
        "`ParallelScalingBlock` at blocks.0: attention and MLP",
    ),
    "differential": (partial(PLAIN, block_fn=DiffParallelScalingBlock), "blocks.0: .*a difference of two softmaxes"),
    "things": (partial(PLAIN, block_fn=ParallelThingsBlock), "blocks.0: several attentions"),
    "eva, post-norm": (partial(of_timm, "eva02_enormous_patch14_clip_224"), "`EvaBlockPostNorm` at blocks.0: it norms"),
    "eva, drop path": (partial(of_timm, "eva02_tiny_patch14_224", drop_path_rate=0.1), "blocks.1 has drop path 0.1"),
    "eva, gate": (with_gate, "the attention of blocks.1 has a gate"),
    "eva, grouped": (
        partial(of_timm, "vit_small_patch16_rope_224", embed_dim=32, num_heads=4, num_kv_heads=2, qkv_fused=False),
        "grouped heads, 2 queries to a key: its W_V W_O has rank 16 of 32 at most.*num_kv_heads=None",
    ),
    "beit, drop path": (partial(of_timm, "beit_base_patch16_224", drop_path_rate=0.1), "blocks.1 has drop path 0.1"),
    "torchvision, dropout": (
        partial(of_torchvision, dropout=0.2),
        "encoder_layer_0 has dropout 0.2 behind its attention",
    ),
    "pytorch, its default": (
        partial(encoder, norm_first=True, batch_first=True, dropout=0.1),
        "layers.0 has dropout 0.1 behind its attention.*build the model with dropout=0",
    ),
    "pytorch, a subclass": (with_own_layer, "no adapter for the block `OwnBlock` at layers.1"),
    "pytorch, a decoder": (partial(nn.Transformer, 24, 3, 1, 1, 48, dropout=0.0), "decoder.layers.0.*a third skip"),
    "kdim": (partial(with_attention, kdim=12), "the attention of layers.1 has kdim or vdim"),
    "bias_k": (partial(with_attention, add_bias_kv=True), "the attention of layers.1 has bias_k and bias_v"),
    "add_zero_attn": (partial(with_attention, add_zero_attn=True), "the attention of layers.1 has add_zero_attn"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("case", REFUSED)
def test_refused_models_stay_as_they_are(case: str) -> None:
    make, told = REFUSED[case]
    model = make()
    before, classes = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
    with pytest.raises(InputError, match=told) as error:
        remove_skips_(model)
    assert "\n" not in str(error.value)
    assert [type(module) for module in model.modules()] == classes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_dropout_behind_a_sub_block_that_keeps_its_skip_is_no_hindrance() -> None:
    model = encoder(norm_first=True, batch_first=True, dropout=0.0)
    for layer in model.layers:
        layer.dropout1.p, layer.dropout.p = 0.1, 0.1
    remove_skips_(model, ("mlp",))
    assert {view.skips for view in block_views(model)} == {("attn",)}


@pytest.mark.usefixtures("unchecked")
def test_bare_blocks_and_sequences_of_every_library_are_known() -> None:
    eva, vision = of_timm("vit_small_patch16_dinov3"), of_torchvision()
    for part, names in (
        (eva.blocks, ["0", "1"]),
        (eva.blocks[0], [""]),
        (vision.encoder.layers, ["encoder_layer_0", "encoder_layer_1"]),
        (nn.Sequential(vision), ["0.encoder.layers.encoder_layer_0", "0.encoder.layers.encoder_layer_1"]),
        (encoder(norm_first=False, batch_first=True).layers[0], [""]),
    ):
        assert [view.name for view in block_views(part)] == names
    with pytest.raises(InputError, match="no adapter for the block `Linear` at 1"):
        block_views(nn.Sequential(of_timm("beit_base_patch16_224").blocks[0], nn.Linear(2, 2)))
    with pytest.raises(InputError, match="has 2 vision transformers, not one"):
        find_vit(nn.ModuleList([eva, vision]))
