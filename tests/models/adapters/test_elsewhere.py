"""All that is written against a view of blocks, on every family: features, conditioning, Token Graying, plans, DINO."""

import pytest
import torch
from reference.vision_models import VITS, encoder, images, randomised
from reference.vision_twins import context_of, layer_norm, read
from torch import nn

from skipless.conditioning import attn_jacobian, measure_conditioning, param_jacobian
from skipless.conditioning.measurement.block_inputs import attention_maps, block_inputs
from skipless.errors import InputError
from skipless.evaluators.features.extraction import FeatureConfig, features
from skipless.models import block_views, initialize_, remove_skips_
from skipless.models.token_graying import find_token_graying, insert_token_graying_, remove_token_graying_
from skipless.models.vit_view import enter, find_vit
from skipless.nn import TokenGraying
from skipless.optim import param_groups
from skipless.planning.activations import Keeping, backbone_bytes
from skipless.planning.flops import forward_flops
from skipless.tasks.dino import DINO, DINOConfig
from skipless.tasks.dino.collapse import class_tokens


@pytest.mark.parametrize("family", VITS)
def test_queries_keys_values_and_tokens_of_any_block(family: str) -> None:
    model = randomised(remove_skips_(VITS[family]()))
    found = features(model, images(), FeatureConfig(kinds=("tokens", "q", "k", "v"), norm="none"))
    x, views = enter(find_vit(model), images())
    for index, view in enumerate(views):
        naive = read(view.block)
        normed = layer_norm(x, naive.norm1)
        x = view.run(x)
        expected = {"tokens": x}
        for kind, (w, b) in (("q", naive.q), ("k", naive.k), ("v", naive.v)):
            expected[kind] = normed @ w if b is None else normed @ w + b
        for kind, value in expected.items():
            one = found[index, kind]
            together = torch.cat([one.prefix, one.patches], 1)
            torch.testing.assert_close(together, value.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", VITS)
def test_what_reaches_sub_blocks_and_what_their_attention_is(family: str) -> None:
    model = randomised(remove_skips_(VITS[family](), ("mlp",)))
    for index, found in enumerate(block_inputs(model, images())):
        naive = read(found.view.block, **context_of(model, index))
        maps = attention_maps(found.view, found.attn)
        expected = torch.stack([naive.maps(one) for one in found.attn]).detach()
        if naive.inner_norm is None:  # a norm before W_O, which no view shows
            torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-9)
        between = torch.stack([naive.gamma1 * naive.attention(one) for one in found.attn]) + found.attn_raw
        torch.testing.assert_close(found.mlp_raw, between.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.mlp, layer_norm(between, naive.norm2).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["eva02, fused", "rope, mixed", "beit, both", "torchvision"])
def test_jacobians_are_those_of_the_attention_in_its_place(family: str) -> None:
    model = randomised(remove_skips_(VITS[family]()))
    found = block_inputs(model, images(1), [1])[0]
    operator = attn_jacobian(found.view, found.attn)
    v = torch.randn(found.attn.numel(), dtype=torch.float64)
    naive, step = read(found.view.block, **context_of(model, 1)), 1e-6
    ahead, behind = (naive.attention(found.attn[0] + s * step * v.view_as(found.attn[0])) for s in (1, -1))
    expected = naive.gamma1 * (ahead - behind) / (2 * step)
    torch.testing.assert_close(operator.matvec(v), expected.detach().flatten(), rtol=1e-6, atol=1e-6)
    report = measure_conditioning(model, images(1), blocks=[0])
    assert report.blocks[0].heads is not None
    assert param_jacobian(model, images(1), "blocks.0.attn" if family != "torchvision" else "all").shape[0] == 17 * 24


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_conditioning_of_pytorchs_layers_in_a_users_model(norm_first: bool, batch_first: bool) -> None:
    """Post-norm blocks, and blocks that take the sequence first, have sub-blocks that are no modules."""

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 24, 4, 4)
            self.encoder = encoder(norm_first=norm_first, batch_first=batch_first)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = (
                self.embed(x).flatten(2).permute(0, 2, 1) if batch_first else self.embed(x).flatten(2).permute(2, 0, 1)
            )
            return self.encoder(tokens).mean(1 if batch_first else 0)

    model = randomised(remove_skips_(Patches()))
    for found in block_inputs(model, images()):
        naive = read(found.view.block)
        assert found.attn.shape == (2, 16, 24)
        torch.testing.assert_close(found.attn, layer_norm(found.attn_raw, naive.norm1 if norm_first else None))
        attended = torch.stack([naive.attention(one) for one in found.attn]).detach()
        torch.testing.assert_close(found.mlp_raw, attended, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.mlp, layer_norm(attended, naive.norm2 if norm_first else naive.norm1).detach())
    small, x = model, images(1)
    operator = param_jacobian(small, x, "encoder.layers.1.mlp")
    assert operator.shape[0] == 16 * 24
    if norm_first:  # tokens come in the order of the batch, whatever the block takes
        direction = torch.zeros(operator.shape[1], dtype=torch.float64)
        names = [name for name, _ in small.encoder.layers[1].named_parameters() if name.startswith(("linear", "norm2"))]
        sizes = [small.encoder.layers[1].get_parameter(name).numel() for name in names]
        start = sum(sizes[: names.index("linear2.bias")])
        direction[start] = 1.0
        moved = operator.matvec(direction).view(16, 24)
        torch.testing.assert_close(moved[:, 0], torch.ones(16, dtype=torch.float64))
        assert not moved[:, 1:].any()


@pytest.mark.usefixtures("unchecked")
def test_a_mask_that_no_adapter_describes_is_refused() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.encoder = nn.Conv2d(3, 24, 4, 4), encoder(norm_first=True, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(16).to(x)
            return self.encoder(self.embed(x).flatten(2).mT, mask)

    with pytest.raises(InputError, match=r"encoder.layers.0 is called with more than tokens \(src_mask"):
        measure_conditioning(randomised(Masked()), images(1))


@pytest.mark.usefixtures("unchecked")
def test_some_tokens_of_those_with_places_are_no_measurement() -> None:
    with pytest.raises(InputError, match="tokens=4: the attention of blocks.0 takes tokens in their places"):
        measure_conditioning(randomised(VITS["dinov3"]()), images(1), tokens=4)


@pytest.mark.parametrize("family", VITS)
def test_token_graying_acts_before_the_first_block(family: str) -> None:
    model = randomised(VITS[family]())
    keys, plain = list(model.state_dict()), model(images())
    graying = TokenGraying(0.5, "svd")
    tokens = enter(find_vit(model), images())[0]
    insert_token_graying_(model, graying)
    assert list(model.state_dict()) == keys
    assert len(find_token_graying(model)) == 1
    seen = block_inputs(model, images(), [0])[0].attn_raw
    torch.testing.assert_close(seen, graying(tokens).detach())
    torch.testing.assert_close(remove_token_graying_(model)(images()), plain)


# Own names of parameters of two and more dimensions that say where something is, and do not decay.
PLACES = ("cls_token", "reg_token", "dist_token", "class_token", "pos_embed", "pos_embedding", "freqs")


@pytest.mark.parametrize("family", VITS)
def test_parameter_groups(family: str) -> None:
    model = VITS[family]()
    named = {id(parameter): (name, parameter) for name, parameter in model.named_parameters()}
    for group in param_groups(model, weight_decay=0.1, block_lr=0.5):
        for name, parameter in (named[id(one)] for one in group["params"]):
            own = name.rpartition(".")[2]
            exempt = parameter.ndim < 2 or own in (*PLACES, "relative_position_bias_table")
            assert (group["weight_decay"] == 0) == exempt, name
            inside = name.startswith(("blocks.", "encoder.layers."))
            assert group.get("lr_scale", 1.0) == (0.5 if inside else 1.0), name
            assert group["split"] == (3 if name.endswith(("qkv.weight", "in_proj_weight")) else 1), name


@pytest.mark.parametrize("family", VITS)
def test_plans_count_the_work_of_every_family(family: str) -> None:
    model = VITS[family]()
    if getattr(model, "attn_pool", None) is not None:
        with pytest.raises(InputError, match="pools its tokens by attention"):
            forward_flops(model, 16)
        return
    found = find_vit(model)
    tokens = found.prefix + 16
    maps = sum(one.w.numel() for view in found.views for one in view.maps)
    by_hand = 2 * 16 * 48 * 24 + 2 * tokens * maps + 2 * 4 * tokens**2 * 24
    heads = 2 if family == "deit" else 1
    assert forward_flops(model, 16) == by_hand + heads * 2 * 24 * 5
    assert backbone_bytes(model, 16, Keeping("fp32")) > 4 * tokens * 24 * 2


@pytest.mark.parametrize("family", ["dinov3", "eva02, fused"])
def test_dino_trains_rotary_backbones_and_watches_their_blocks(family: str) -> None:
    backbone = initialize_(remove_skips_(VITS[family](num_classes=0, dynamic_img_size=True)))
    task = DINO(backbone, DINOConfig(out_dim=16, hidden_dim=8, bottleneck_dim=8), total_steps=4, steps_per_epoch=2)
    crops = [torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.rand(2, 3, 8, 8)]
    task(crops)["loss"].backward()
    assert all(view.query.weight.grad.isfinite().all() for view in block_views(task.student))
    watched = class_tokens(task.model, crops[0])
    assert len(watched) == 3
    torch.testing.assert_close(find_vit(task.model).final_norm(watched[1]).shape, watched[2].shape)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("family", ["beit", "torchvision"])
def test_dino_refuses_backbones_of_one_image_size(family: str) -> None:
    model = VITS[family]()
    model.num_classes = 0
    with pytest.raises(InputError, match=r"takes images of \(16, 16\) only; DINO's crops"):
        DINO(model, in_dim=24, total_steps=4, steps_per_epoch=2)
