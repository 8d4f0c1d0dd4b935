"""What each family's blocks compute, against a twin that is written from the formulas and the library's weights."""

import pytest
import torch
from reference.vision_models import VITS, encoder, images, randomised
from reference.vision_twins import context_of, factors_of, read
from torch import nn

from skipless.models import block_views, remove_skips_
from skipless.models.vit_view import enter, find_vit

CUTS = [(), ("attn",), ("mlp",), ("attn", "mlp")]


def seen(model: nn.Module, inputs: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What goes into every block and what comes out, in the model's own forward pass."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    handles = [
        view.block.register_forward_hook(lambda _, args, out: found.append((args[0], out)))
        for view in block_views(model)
    ]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("cut", CUTS, ids="+".join)
@pytest.mark.parametrize("family", VITS)
def test_each_skip_goes_on_its_own(family: str, cut) -> None:
    model = VITS[family]()
    if cut:
        remove_skips_(model, cut, layer_scale="keep")
    randomised(model)
    kept = tuple(name for name in ("attn", "mlp") if name not in cut)
    assert {view.skips for view in block_views(model)} == {kept}
    for index, (x, y) in enumerate(seen(model, images())):
        twin = read(block_views(model)[index].block, **context_of(model, index))
        torch.testing.assert_close(twin(x, kept), y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", VITS)
def test_what_enters_the_blocks_is_what_the_model_gives_them(family: str) -> None:
    model = randomised(remove_skips_(VITS[family]()))
    tokens, views = enter(find_vit(model), images())
    for view, (x, y) in zip(views, seen(model, images()), strict=True):
        torch.testing.assert_close(tokens, x, rtol=1e-12, atol=1e-12)
        tokens = view.run(tokens)
        torch.testing.assert_close(tokens, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cut", CUTS, ids="+".join)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_pytorchs_encoder_layer(norm_first: bool, batch_first: bool, cut) -> None:
    model = encoder(norm_first=norm_first, batch_first=batch_first)
    if cut:
        remove_skips_(model, cut)
    randomised(model)
    kept = tuple(name for name in ("attn", "mlp") if name not in cut)
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    given = x if batch_first else x.transpose(0, 1)
    for mode in (True, False):
        with torch.set_grad_enabled(mode):  # without gradients the library takes its fused path
            y = model(given)
        expected = x
        for view in block_views(model):
            torch.testing.assert_close(read(view.block)(expected, kept), view.run(expected), rtol=1e-10, atol=1e-10)
            expected = read(view.block)(expected, kept)
        torch.testing.assert_close(y if batch_first else y.transpose(0, 1), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("family", "formula"),
    [
        ("eva02, fused", "rows and columns, scaled to a grid of 16"),
        ("dinov3", "middles of patches from -1 to 1"),
        ("rope, mixed", "learnt for each block and head"),
    ],
)
def test_angles_are_those_of_the_papers(family: str, formula: str) -> None:
    model = VITS[family]()
    found, size = factors_of(model)[1], 24 // 3
    rows, columns = (
        place.flatten().float() for place in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    )
    if formula.startswith("learnt"):
        own = model.rope.freqs.detach()[:, 1]  # (2, h, d_h / 2)
        angles = columns[:, None] * own[0, :, None] + rows[:, None] * own[1, :, None]
    else:
        if formula.startswith("rows"):
            places, scale, base = [rows * 4, columns * 4], 1.0, 10000.0
        else:
            places, scale, base = [2 * (place + 0.5) / 4 - 1 for place in (rows, columns)], 2 * torch.pi, 100.0
        bands = scale * base ** -(torch.arange(size // 4) / (size // 4))
        angles = torch.cat([place[:, None] * bands for place in places], 1)
    torch.testing.assert_close(found, torch.polar(torch.ones_like(angles), angles).to(found), rtol=1e-5, atol=1e-5)


def test_images_of_another_size_turn_by_their_own_positions() -> None:
    """As timm's own `dynamic_img_size`, which a fixed model does not have."""
    for family in ("eva02, fused", "rope, mixed", "perception encoder"):
        fixed = randomised(VITS[family]())
        free = randomised(VITS[family](dynamic_img_size=True))
        free.load_state_dict(fixed.state_dict())
        larger = images(1, 24)
        tokens, views = enter(find_vit(fixed), larger)
        for view in views:
            tokens = view.run(tokens)
        torch.testing.assert_close(find_vit(fixed).final_norm(tokens), last_tokens(free, larger), rtol=1e-5, atol=1e-5)


def last_tokens(model: nn.Module, given: torch.Tensor) -> torch.Tensor:
    tokens = seen(model, given)[-1][1]
    return find_vit(model).final_norm(tokens)
