import copy
import pickle

import numpy as np
import pytest
import timm
import torch
from reference.init import attention
from timm.layers import LayerScale, SwiGLU, SwiGLUPacked
from timm.models.vision_transformer import ResPostBlock
from torch import nn

from skipless.errors import InputError
from skipless.models import block_views, create_model, initialize_, remove_skips_

TINY = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}


def vit(**kwargs) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **{**TINY, **kwargs}).eval()


def images(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("sub_blocks", "kept"), [(("attn", "mlp"), (0, 0)), (("attn",), (0, 1)), (("mlp",), (1, 0))])
def test_the_block_is_the_papers_equations(sub_blocks, kept) -> None:
    """Eqs. 1 to 4 in NumPy, head by head, each `X +` on its own switch."""
    model = remove_skips_(vit().double(), sub_blocks)
    view = block_views(model)[0]
    x = torch.randn(1, 17, 24, dtype=torch.float64)
    block = view.block
    with torch.no_grad():
        for parameter in block.attn.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
        block.attn.qkv.bias.zero_()
        normed = block.norm1(x)[0].numpy()
        weights = (w.numpy() for w in (view.w_q, view.w_k, view.w_v, view.w_o))
        sa = attention(normed, *weights, heads=3) + block.attn.proj.bias.numpy()
        middle = torch.from_numpy(sa)[None] + kept[0] * x
        expected = block.mlp(block.norm2(middle)) + kept[1] * middle
        np.testing.assert_allclose(block(x).numpy(), expected.numpy(), atol=1e-12)


def test_parameters_and_state_dict_stay_and_load_both_ways() -> None:
    residual = vit()
    before = {name: id(parameter) for name, parameter in residual.named_parameters()}
    skipless = remove_skips_(residual)
    assert skipless is residual
    assert {name: id(parameter) for name, parameter in skipless.named_parameters()} == before
    fresh = vit()
    assert fresh.load_state_dict(skipless.state_dict())
    assert skipless.load_state_dict(fresh.state_dict())


def test_removals_add_up_and_change_nothing_twice() -> None:
    model = remove_skips_(vit(), ("mlp",))
    assert {view.skips for view in block_views(model)} == {("attn",)}
    remove_skips_(remove_skips_(model, ("attn",)), ("attn", "mlp"))
    assert {view.skips for view in block_views(model)} == {()}
    both = remove_skips_(vit())
    both.load_state_dict(model.state_dict())
    torch.testing.assert_close(both(images()), model(images()))


FAMILY = [
    {"class_token": False, "global_pool": "avg"},
    {"reg_tokens": 2},
    {"qkv_bias": False},
    {"qk_norm": True},
    {"init_values": 1e-5},
    {"mlp_layer": SwiGLUPacked, "mlp_ratio": 8 / 3 * 2},
    {"mlp_layer": SwiGLU, "mlp_ratio": 8 / 3},
    {"scale_mlp_norm": True, "scale_attn_norm": True},
    {"proj_bias": False},
    {"pre_norm": True, "final_norm": False},
    {"global_pool": "map", "class_token": False},
    {"dynamic_img_size": True},
]


@pytest.mark.parametrize("kwargs", FAMILY, ids=lambda kwargs: next(iter(kwargs)))
def test_timms_plain_family_goes_through_every_step(kwargs) -> None:
    model = initialize_(remove_skips_(vit(**kwargs)))
    model.train()
    loss = model(images()).square().mean()
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for view in block_views(model):
        s = torch.linalg.svdvals(view.w_v @ view.w_o)
        torch.testing.assert_close(s, torch.full_like(s, 9.0), rtol=1e-4, atol=0)
        for linear in (*view.mlp_in, view.mlp_out):
            fan_in, fan_out = linear.w.shape
            s = torch.linalg.svdvals(linear.w)
            torch.testing.assert_close(s, torch.full_like(s, max(fan_out / fan_in, 1) ** 0.5), rtol=1e-4, atol=0)


def test_layer_scale_is_removed_or_kept_by_choice() -> None:
    assert not any(isinstance(module, LayerScale) for module in remove_skips_(vit(init_values=1e-5)).modules())
    kept = remove_skips_(vit(init_values=1e-5), layer_scale="keep")
    assert sum(isinstance(module, LayerScale) for module in kept.modules()) == 6
    half = remove_skips_(vit(init_values=1e-5), ("attn",))
    assert sum(isinstance(module, LayerScale) for module in half.modules()) == 3


def test_drop_path_is_refused_before_anything_changes() -> None:
    model = vit(drop_path_rate=0.1)
    with pytest.raises(InputError, match=r"blocks.1 has drop path 0.05.*drop_path_rate=0"):
        remove_skips_(model)
    assert {view.skips for view in block_views(model)} == {("attn", "mlp")}
    assert block_views(remove_skips_(vit(drop_path_rate=0.0)))


@pytest.mark.usefixtures("unchecked")
def test_bad_calls_are_quoted() -> None:
    with pytest.raises(InputError, match="no adapter for `SwinTransformer`; supported: timm's plain"):
        remove_skips_(timm.create_model("swin_tiny_patch4_window7_224"))
    with pytest.raises(InputError, match="no adapter for the attention `DiffAttention` of blocks.0"):
        initialize_(vit(attn_layer="diff"))
    for wrong in ((), ("attention",), "attn"):
        with pytest.raises(InputError, match="sub_blocks="):
            remove_skips_(vit(), wrong)
    with pytest.raises(InputError, match="layer_scale='fold'"):
        remove_skips_(vit(), layer_scale="fold")
    with pytest.raises(InputError, match="meta device.*materialise"):
        initialize_(remove_skips_(vit().to("meta")))
    model = vit()
    model.blocks[0].extra = nn.Parameter(torch.ones(3))
    with pytest.raises(InputError, match=r"no rule for the parameter blocks.0.extra \(3,\)"):
        initialize_(model)
    model = vit()
    model.blocks[1].norm1.gamma = nn.Parameter(torch.ones(24))
    with pytest.raises(InputError, match="no rule for the parameter blocks.1.norm1.gamma"):
        initialize_(model)
    with pytest.raises(InputError, match="no adapter for `CrossVit`"):
        remove_skips_(timm.create_model("crossvit_tiny_240"))
    with pytest.raises(InputError, match="no adapter for the block `ResPostBlock` at blocks.0"):
        remove_skips_(timm.create_model("vit_tiny_patch16_224", block_fn=ResPostBlock, **TINY))
    with pytest.raises(
        InputError, match="timm has no model 'vit_smal_patch16_224'; did you mean vit_small_patch16_224"
    ):
        create_model("vit_smal_patch16_224")
    with pytest.raises(InputError, match="timm cannot build 'vit_tiny_patch16_224' with"):
        create_model("vit_tiny_patch16_224", embed_dim=25)
    with pytest.raises(InputError, match="name 'vit_tiny_patch16_224' here, with skip= and init="):
        create_model("skipless_vit_tiny_patch16_224", skip=True)
    for wrong in ({"num_heads": 0}, {"norm_layer": "bogus"}, {"checkpoint_path": "/nowhere.pth"}, {"bogus": 1}):
        with pytest.raises(InputError, match="timm cannot build 'vit_tiny_patch16_224'"):
            create_model("vit_tiny_patch16_224", **{**TINY, **wrong})
    with pytest.raises(InputError, match="timm cannot build 'vit_tiny_patch16_224.nope'"):
        create_model("vit_tiny_patch16_224.nope")
    with pytest.raises(InputError, match="seed 9223372036854775808 is out of range"):
        create_model("vit_tiny_patch16_224", seed=2**63)


def test_compile_autocast_checkpointing_and_intermediates() -> None:
    model = initialize_(remove_skips_(vit()))
    expected = model(images())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images()), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(images()).float(), expected, rtol=0.1, atol=0.1)
    final, intermediates = model.forward_intermediates(images(), indices=[0, 2])
    assert len(intermediates) == 2
    torch.testing.assert_close(model.forward_head(final), expected)
    gradients = []
    for checkpointing in (False, True):
        model.train().set_grad_checkpointing(checkpointing)
        model.zero_grad()
        model(images()).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_fused_and_plain_attention_agree() -> None:
    model = initialize_(remove_skips_(vit()))
    fused = model(images())
    for view in block_views(model):
        assert view.block.attn.fused_attn
        view.block.attn.fused_attn = False
    torch.testing.assert_close(model(images()), fused, rtol=1e-4, atol=1e-5)


def test_pickles_and_deep_copies() -> None:
    model = initialize_(remove_skips_(vit(), ("attn",)))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert {view.skips for view in block_views(twin)} == {("mlp",)}
        torch.testing.assert_close(twin(images()), model(images()))


@pytest.mark.parametrize(("module", "name"), [("timm_vit", "SkiplessBlock"), ("hf_factory", "ImageLogits")])
def test_what_earlier_versions_pickled_is_found(module: str, name: str) -> None:
    cls = pickle.loads(f"cskipless.models.{module}\n{name}\n.".encode())  # the opcode of a class by its name
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_every_block_is_initialised_and_by_its_own_draw() -> None:
    model = vit()
    before = copy.deepcopy(model)
    initialize_(model)
    views, untouched = block_views(model), block_views(before)
    for view, old in zip(views, untouched, strict=True):
        for new_map, old_map in zip(view.maps, old.maps, strict=True):
            assert not torch.equal(new_map.w, old_map.w)
            assert not new_map.bias.any()
    for first in range(len(views)):
        for second in range(first):
            for a, b in zip(views[first].maps, views[second].maps, strict=True):
                assert not torch.allclose(a.w, b.w, atol=1e-3)
    outside = [name for name, _ in model.named_parameters() if not name.startswith("blocks.")]
    for name in outside:
        assert torch.equal(model.get_parameter(name), before.get_parameter(name)), f"{name} is none of the scheme's"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_generator_and_not_the_dtype_decides(dtype) -> None:
    model = initialize_(vit().to(dtype), generator=torch.Generator().manual_seed(1))
    exact = initialize_(vit().double(), generator=torch.Generator().manual_seed(1))
    for view, reference in zip(block_views(model), block_views(exact), strict=True):
        for linear, truth in zip(view.maps, reference.maps, strict=True):
            assert linear.w.dtype == dtype
            assert torch.equal(linear.w, truth.w.to(dtype))


def test_norms_return_to_the_identity() -> None:
    model = vit(qk_norm=True)
    for parameter in model.blocks.parameters():
        nn.init.normal_(parameter)
    initialize_(model)
    for view in block_views(model):
        for norm in view.norms:
            assert norm.weight.eq(1).all()
            assert norm.bias.eq(0).all()


def test_create_model_is_a_function_of_its_seed() -> None:
    state = torch.get_rng_state()
    first, again, other = (create_model("vit_tiny_patch16_224", seed=seed, **TINY) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.patch_embed.proj.weight, again.patch_embed.proj.weight)
    assert not torch.equal(first.patch_embed.proj.weight, other.patch_embed.proj.weight)


def test_wrapped_models_bare_blocks_and_sequences_are_known() -> None:
    model = vit()
    for part, names in (
        (torch.compile(model, backend="eager"), ["_orig_mod.blocks.0", "_orig_mod.blocks.1", "_orig_mod.blocks.2"]),
        (nn.Sequential(model, nn.ReLU()), ["0.blocks.0", "0.blocks.1", "0.blocks.2"]),
        (model.blocks, ["0", "1", "2"]),
        (model.blocks[1], [""]),
    ):
        assert [view.name for view in block_views(part)] == names
    remove_skips_(model.blocks[1])
    assert [view.skips for view in block_views(model)] == [("attn", "mlp"), (), ("attn", "mlp")]


def test_a_default_device_changes_nothing_of_the_draw() -> None:
    """Draws stay on the CPU (or the generator's device) under `torch.device(...)`, as deferred construction uses it."""
    model = vit()
    with torch.device("meta"):
        initialize_(model, generator=torch.Generator().manual_seed(1))
    twin = initialize_(vit(), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.blocks[2].attn.qkv.weight, twin.blocks[2].attn.qkv.weight)
