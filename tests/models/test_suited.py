"""SkiplessInit.for_model, and initialize_ with all that goes beyond the paper."""

from functools import partial
from itertools import product

import pytest
import torch
from timm.layers import GluMlp, SwiGLU
from torch import Generator, Tensor, nn

from skipless.errors import InputError
from skipless.frozen import from_json, to_json
from skipless.init import PRESETS, SkiplessInit, solve_linearity
from skipless.init.gated import GATE_BIAS
from skipless.init.scheme import COSINE
from skipless.models import block_views, create_model, initialize_, inspect_init


def vit(**options) -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 2, "seed": 0}
    return create_model("vit_tiny_patch16_224", **{**sizes, **options})


def pictures(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=Generator().manual_seed(0))


KINDS = {
    "plain": {},
    "relu": {"act_layer": "relu"},
    "tanh": {"act_layer": "tanh"},
    "narrow": {"mlp_ratio": 1.0},
    "gated": {"mlp_layer": GluMlp},
    "SwiGLU": {"mlp_layer": SwiGLU},
    "no biases": {"mlp_layer": SwiGLU, "proj_bias": False},
    "qk-norm": {"qk_norm": True},
    "qk-norm without weights": {"qk_norm": True, "norm_layer": partial(nn.LayerNorm, elementwise_affine=False)},
    "no positions": {"pos_embed": "none", "class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 2},
    "residual": {"skip": True},
}


@pytest.mark.parametrize("name", KINDS)
def test_what_suits_a_model_can_be_put_into_it_and_departs_from_nothing(name: str) -> None:
    model = vit(**KINDS[name])
    init = SkiplessInit.for_model(model)
    initialize_(model, init, generator=Generator().manual_seed(0))
    flags = [flag for flag in inspect_init(model, init).flags if "skip" not in flag and "qk-norm resc" not in flag]
    assert "without weights" in name or not flags
    assert init.mlp == ("orthogonal" if name in ("tanh", "narrow") else "mirrored")
    assert init.positions == ("kept" if name == "no positions" else "orthogonal")
    assert (init.diagonals(1) == ()) == (name == "qk-norm without weights")
    assert init == from_json(SkiplessInit, to_json(init))
    assert model(pictures()).isfinite().all()


@pytest.mark.parametrize("depth", [1, 4, 36])
def test_the_linear_share_grows_with_the_depth(depth: int) -> None:
    init = SkiplessInit.for_model(vit(depth=depth, embed_dim=24))
    assert init.mlp_linearity == solve_linearity(nn.GELU(), depth, COSINE)


def test_blocks_alone_have_no_positions() -> None:
    blocks = vit().blocks
    init = SkiplessInit.for_model(blocks)
    assert init.positions == "kept"
    assert inspect_init(initialize_(blocks, init), init).flags == ()
    with pytest.raises(InputError, match="no adapter for `Linear`"):
        SkiplessInit.for_model(nn.Linear(2, 2))


COMBINATIONS = [
    {"mlp": mlp, "attention_diagonal": diagonal, "positions": positions}
    for mlp, diagonal, positions in product(
        ("orthogonal", "mirrored", "kept"), (None, 0.3, 0.9), ("kept", "orthogonal", "smooth")
    )
]


@pytest.mark.parametrize("chosen", COMBINATIONS, ids=lambda chosen: "-".join(map(str, chosen.values())))
@pytest.mark.parametrize("with_images", [False, True])
def test_every_combination_in_bf16_and_in_train_mode(chosen: dict, with_images: bool) -> None:
    init = SkiplessInit(1.0, 1.5, 3.0, **chosen)
    images = pictures() if with_images else None
    model = vit(proj_drop_rate=0.2, attn_drop_rate=0.2).train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    initialize_(model, init, images=images, generator=Generator().manual_seed(3))
    assert [module.training for module in model.modules()] == modes
    flags = inspect_init(model, init).flags
    assert flags == ()
    again = initialize_(vit(), init, images=images, generator=Generator().manual_seed(3))
    half = initialize_(vit().bfloat16(), init, images=images, generator=Generator().manual_seed(3))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        found = half.state_dict()[name]
        assert found.dtype == torch.bfloat16
        assert (found.float() - value).norm() <= 0.05 * value.norm() + 0.02 * value.numel() ** 0.5, name
    assert half(pictures().bfloat16()).isfinite().all()


def test_gates_start_open_and_other_biases_at_zero() -> None:
    for layer in (GluMlp, SwiGLU):
        model = initialize_(vit(mlp_layer=layer), SkiplessInit(1.0, 1.0, mlp="mirrored"))
        view = block_views(model)[0]
        assert view.gate is not None
        biases = [linear.b for linear in (*view.mlp_in, view.mlp_out)]
        assert all(bias is not None for bias in biases)
        assert (biases[view.gate] == GATE_BIAS).all()
        assert not any(bias.any() for place, bias in enumerate(biases) if place != view.gate)


REFUSED = [
    ({"act_layer": "tanh"}, {"mlp": "mirrored"}, None, "has no linear odd part"),
    ({"mlp_ratio": 1.0}, {"mlp": "mirrored"}, None, "this one has 48: use mlp='orthogonal'"),
    (KINDS["no biases"], {"mlp": "mirrored", "mlp_linearity": 0.9}, None, "has a linear share of 0.*leave it out, or"),
    ({**KINDS["no biases"], "mlp_ratio": 1.0}, {"mlp": "mirrored"}, None, "at least 96; this one has 48"),
    ({**KINDS["no biases"], "act_layer": "tanh"}, {"mlp": "mirrored"}, None, "is odd, and pairs of opposite"),
    (KINDS["no positions"], {"positions": "smooth"}, None, "neither a position embedding nor prefix tokens"),
    (KINDS["qk-norm without weights"], {"attention_diagonal": 0.9}, None, "use attention_diagonal=None"),
    ({}, {"attention_diagonal": 0.9}, torch.zeros(1, 3, 15, 15), "15 x 15 are not whole patches"),
    ({}, {"positions": "smooth"}, torch.zeros(1, 1, 16, 16), "images have 1 channels"),
    ({}, {}, torch.zeros(0, 3, 16, 16), "give normalised ones"),
    ({}, {}, torch.full((1, 3, 16, 16), float("nan")), "not finite"),
    ({"act_layer": "identity"}, {"mlp": "mirrored", "mlp_linearity": 0.5}, None, "must be 1, its only share"),
]


@pytest.mark.parametrize(("options", "chosen", "images", "words"), REFUSED, ids=[case[3][:30] for case in REFUSED])
def test_what_cannot_be_done_is_refused_and_changes_nothing(options, chosen, images, words: str) -> None:
    model = vit(**{**options, **({"act_layer": nn.Identity} if options.get("act_layer") == "identity" else {})})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=words):
        initialize_(model, SkiplessInit(1.0, 1.0, **chosen), images=images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_positions_of_an_empty_patch_embedding_are_refused_first() -> None:
    model = vit()
    model.patch_embed.proj.weight.data.zero_()
    model.patch_embed.proj.bias.data.zero_()
    before = model.blocks[0].attn.qkv.weight.clone()
    with pytest.raises(InputError, match="draw its weights first"):
        initialize_(model, SkiplessInit(positions="orthogonal"))
    assert torch.equal(model.blocks[0].attn.qkv.weight, before)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"mlp_linearity": 0.9}, "mlp_linearity=0.9 is of mlp='mirrored', not of mlp='orthogonal'"),
        ({"mlp": "mirrored", "mlp_linearity": 1.2}, "mlp_linearity=1.2 is a share"),
        ({"mlp": "mirrored", "mlp_linearity": float("nan")}, "mlp_linearity=nan is a share"),
        ({"attention_diagonal": 1.0}, "attention_diagonal=1.0 is a mean weight"),
        ({"attention_diagonal": float("nan")}, "attention_diagonal=nan"),
        ({"attention_diagonal": 0.9, "last_diagonal": 0.0}, "last_diagonal=0.0 is a mean weight"),
        ({"last_diagonal": 0.5}, "last_diagonal=0.5 needs attention_diagonal, that of the first block"),
        ({"positions": "sincos"}, "positions='sincos' is not one of 'kept', 'orthogonal', 'smooth'"),
        ({"position_scale": 2.0}, "position_scale=2.0 is of positions='orthogonal' or 'smooth', not of 'kept'"),
        ({"positions": "smooth", "position_scale": 0.0}, "position_scale=0.0 must be a positive number"),
        ({"positions": "smooth", "position_scale": float("inf")}, "position_scale=inf"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_values_of_the_scheme_are_quoted(chosen: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SkiplessInit(**chosen)


OLD = {"alpha": 2.0, "beta": 0.6, "c": 3.0, "factors": "per_head", "noise": "normal", "logit_scale": "kept"}


def test_schemes_of_before_are_read_and_written_alike() -> None:
    """A run of an earlier version resumes only if its recipe is the same JSON."""
    written = {**OLD, "mlp": "orthogonal"}
    assert to_json(SkiplessInit()) == written
    assert from_json(SkiplessInit, written) == SkiplessInit()
    ours = SkiplessInit(mlp="mirrored", attention_diagonal=0.9, positions="smooth", position_scale=0.5)
    added = {"attention_diagonal": 0.9, "positions": "smooth", "position_scale": 0.5}
    assert to_json(ours) == {**OLD, "mlp": "mirrored", **added}


# Sums of squares of k W for k from -1 to 1, in the second block: W_Q, W_K, W_V, W_O, MLP in. By the version before.
BEFORE = {
    "vit_base": (42.7748, 47.8775, 150.1277, 150.1277, 66.7234),
    "dino_vit_small": (43.6331, 46.2765, 150.1277, 150.1277, 66.7234),
    "language": (7.902, 7.902, 150.1277, 150.1277, 66.7234),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_papers_presets_draw_what_they_drew(preset: str) -> None:
    sizes = {"img_size": 32, "patch_size": 16, "num_classes": 5}
    model = vit(init=SkiplessInit.preset(preset), **sizes)
    maps = block_views(model)[1].maps[:5]
    found = [(torch.linspace(-1, 1, 48) @ linear.w).double().square().sum().item() for linear in maps]
    assert found == pytest.approx(BEFORE[preset], rel=1e-4)
    assert model.pos_embed.double().square().sum().item() == pytest.approx(0.11383, rel=1e-3)
