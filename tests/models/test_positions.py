from itertools import product

import pytest
import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models import create_model, set_positions_
from skipless.models.starting.positions import patch_rms
from skipless.models.vit_view import embed, find_vit

VARIANTS = [
    {},
    {"reg_tokens": 3},
    {"no_embed_class": True},
    {"no_embed_class": True, "reg_tokens": 2},
    {"class_token": False, "global_pool": "avg"},
    {"class_token": False, "reg_tokens": 2, "global_pool": "avg"},
    {"pos_embed": "none"},
    {"pos_embed": "none", "reg_tokens": 2},
    {"dynamic_img_size": True},
    {"img_size": (8, 24)},
]


def vit(**options) -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 1, "num_heads": 2, "skip": True, "seed": 0}
    return create_model("vit_tiny_patch16_224", **{**sizes, **options})


def pictures(model: nn.Module, count: int = 2) -> Tensor:
    size = find_vit(model).image_size or (16, 16)
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def entering(model: nn.Module) -> Tensor:
    """What positions and prefix tokens bring to the first block: the tokens of an image whose patches embed to 0."""
    for parameter in model.patch_embed.parameters():
        parameter.zero_()
    return embed(find_vit(model), pictures(model, 1))[0]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", ["orthogonal", "smooth"])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_every_token_enters_with_a_row_of_its_own(options: dict, kind: str, scale: float) -> None:
    model = vit(**options)
    size = scale * patch_rms(model)
    assert set_positions_(model, kind, scale, generator=torch.Generator().manual_seed(0)) is model
    found = find_vit(model)
    rows = entering(model).double()
    has_grid = model.pos_embed is not None
    used = rows if has_grid else rows[: found.prefix]
    assert used.square().mean(1).sqrt().tolist() == pytest.approx([size] * len(used), rel=1e-5)
    gram = used @ used.T / (size**2 * 48)
    exact = used if kind == "orthogonal" else used[: found.prefix]
    torch.testing.assert_close(gram[: len(exact), : len(exact)], torch.eye(len(exact)).double(), atol=1e-5, rtol=0)
    assert gram.fill_diagonal_(0).max() < 0.96
    assert has_grid or not rows[found.prefix :].any()


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 3}], ids=str)
def test_tokens_start_at_zero_where_the_embedding_carries_them(options: dict) -> None:
    model = set_positions_(vit(**options), "orthogonal")
    assert not model.cls_token.any()
    assert model.reg_token is None or not model.reg_token.any()
    assert set_positions_(vit(no_embed_class=True), "orthogonal").cls_token.any()


@pytest.mark.parametrize("kind", ["orthogonal", "smooth"])
@pytest.mark.parametrize(("width", "grid"), [*product([8, 48], [8, 32])])
def test_more_tokens_than_directions_are_allowed(kind: str, width: int, grid: int) -> None:
    model = set_positions_(vit(embed_dim=width, img_size=grid, patch_size=2), kind)
    rows = model.pos_embed[0].detach().double().square().mean(1).sqrt()
    assert rows.tolist() == pytest.approx([rows[0].item()] * len(rows), rel=1e-5)


@pytest.mark.parametrize("kind", ["orthogonal", "smooth"])
def test_a_generator_decides_and_nothing_else_is_touched(kind: str) -> None:
    first, second, other = (
        set_positions_(vit(), kind, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.pos_embed, second.pos_embed)
    assert not torch.equal(first.pos_embed, other.pos_embed)
    changed = [name for name, value in vit().state_dict().items() if not torch.equal(value, first.state_dict()[name])]
    assert changed == ["cls_token", "pos_embed"]
    state = torch.random.get_rng_state()
    set_positions_(vit(), kind, generator=torch.Generator())
    assert torch.equal(torch.random.get_rng_state(), state)
    again = vit()
    with torch.device("meta"):
        set_positions_(again, kind, generator=torch.Generator("cpu").manual_seed(1))
    assert torch.equal(first.pos_embed, again.pos_embed)


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_the_formula_is_the_size_on_white_pixels_and_images_are_measured(patch: int) -> None:
    model = vit(patch_size=patch, embed_dim=192)
    white = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    measured = model.patch_embed(white).square().mean().sqrt().item()
    assert patch_rms(model, white) == pytest.approx(measured, rel=1e-5)
    assert patch_rms(model) == pytest.approx(measured, rel=0.05)
    smooth = torch.ones(1, 3, 16, 16) * torch.tensor([1.0, -1.0, 1.0])[None, :, None, None]
    sizes = [patch_rms(vit(patch_size=patch, embed_dim=768, seed=seed), smooth) for seed in range(3)]
    assert sum(sizes) / 3 == pytest.approx(patch_rms(vit(patch_size=patch, embed_dim=768)), rel=0.1)
    twice = set_positions_(vit(patch_size=patch), "orthogonal", images=2 * white)
    once = set_positions_(vit(patch_size=patch), "orthogonal", images=white)
    ratio = (twice.pos_embed.square().mean() / once.pos_embed.square().mean()).sqrt().item()
    assert ratio == pytest.approx(2, rel=0.05)  # the bias is not scaled


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_any_dtype(dtype: torch.dtype) -> None:
    model = vit().to(dtype)
    set_positions_(model, "orthogonal", images=pictures(model))
    assert model.pos_embed.dtype == dtype
    assert model.pos_embed.float().square().mean().sqrt().item() == pytest.approx(
        patch_rms(model, pictures(model)), rel=0.01
    )


def test_a_norm_of_patches_sets_the_size() -> None:
    model = vit()
    model.patch_embed.norm = nn.LayerNorm(48)
    assert patch_rms(model) == 1
    assert patch_rms(model, pictures(model)) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        ({"pos_embed": "none", "class_token": False, "global_pool": "avg"}, {}, "positions='kept'"),
        ({}, {"kind": "kept"}, "positions='kept' is not one of 'orthogonal', 'smooth'"),
        ({}, {"kind": "sincos"}, "positions='sincos'"),
        ({}, {"scale": 0.0}, "a positive rms"),
        ({}, {"scale": -1.0}, "a positive rms"),
        ({}, {"scale": float("nan")}, "a positive rms"),
        ({}, {"images": torch.zeros(1, 3, 17, 16)}, "17 x 16 are not whole patches"),
        ({}, {"images": torch.zeros(1, 1, 16, 16)}, "1 channels, the model takes 3"),
        ({}, {"images": torch.zeros(0, 3, 16, 16)}, r"shape \(0, 3, 16, 16\)"),
        ({}, {"images": torch.full((1, 3, 16, 16), float("inf"))}, "not finite"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_done_is_refused_and_changes_nothing(options: dict, given: dict, words: str) -> None:
    """Another kind was taken for `smooth`, and images of another size ended in timm's AssertionError."""
    model = vit(**options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=words):
        set_positions_(model, **{"kind": "orthogonal", **given})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_embedding_of_zeros_is_refused() -> None:
    model = vit()
    for parameter in model.patch_embed.parameters():
        parameter.data.zero_()
    with pytest.raises(InputError, match="root mean square 0.0: draw its weights first"):
        set_positions_(model, "orthogonal")


def test_prefix_tokens_of_a_model_for_any_size() -> None:
    """It has no grid, and the smooth rows of no patch were asked for their number."""
    model = vit(pos_embed="none")
    model.patch_embed.img_size = model.patch_embed.grid_size = model.patch_embed.num_patches = None
    set_positions_(model, "smooth")
    assert model.cls_token.square().mean().sqrt().item() == pytest.approx(patch_rms(model), rel=1e-5)
