"""Each silent mistake that the scheme invites is made on purpose, and must be named."""

import re
from dataclasses import replace

import pytest
import torch

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.init.random_matrices import normal
from skipless.models import block_views, create_model, inspect_init

INIT = SkiplessInit(alpha=1.0, beta=1.5, c=3.0)


def model(init: SkiplessInit | None = INIT, **kwargs):
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 2}
    return create_model("vit_tiny_patch16_224", init=init, seed=0, **{**sizes, **kwargs})


def test_a_correct_initialisation_has_no_flags() -> None:
    report = inspect_init(model(), INIT)
    assert report.flags == ()
    assert "nothing departs from the scheme" in str(report)
    for block in report.blocks:
        assert block.skips == ()
        assert abs(block.kappa_vo - 1) < 1e-3
        assert abs(block.scale_vo - 9) < 1e-2
        assert block.mlp_gain == pytest.approx((1, 1), abs=1e-4)
        assert min(block.diagonal) > 0.8
        assert len(block.trace) == 2


def test_trace_and_diagonal_are_what_they_say() -> None:
    vit = model()
    view = block_views(vit)[1]
    measured = inspect_init(vit, tokens=50, seed=4).blocks[1]
    x = torch.randn(50, 48, generator=torch.Generator().manual_seed(4))
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    for head in range(2):
        part = slice(24 * head, 24 * head + 24)
        product = view.w_q[:, part] @ view.w_k[:, part].T
        assert measured.trace[head] == pytest.approx(product.trace().item() / 48, rel=1e-4)
        attention = (x @ product @ x.T / 24**0.5).softmax(-1)
        assert measured.diagonal[head] == pytest.approx(attention.diagonal().mean().item(), rel=1e-4)


def transpose_suo(vit) -> None:
    """Gains of the (out, in) reading: 0.25 for d -> 4d and 4 for 4d -> d."""
    vit.blocks[1].mlp.fc1.weight.data /= 2
    vit.blocks[1].mlp.fc2.weight.data *= 2


def share_z(vit) -> None:
    view = block_views(vit)[1]
    for linear in (view.query, view.key):
        linear.write_(linear.w[:, :24].repeat(1, 2))


def drop_c_once(vit) -> None:
    vit.blocks[1].attn.proj.weight.data /= 3


def swap_u(vit) -> None:
    """Values per head instead of full width, the projection left as it was."""
    view = block_views(vit)[1]
    view.value.write_(normal(48, 48, std=0.2))


def default_block(vit) -> None:
    vit.blocks[1].load_state_dict(model(None).blocks[1].state_dict())


def zero_projections(vit) -> None:
    vit.blocks[1].attn.proj.weight.data.zero_()


def shrink_a_norm(vit) -> None:
    vit.blocks[1].norm1.weight.data *= 1e-5


def other_beta(vit) -> None:
    view = block_views(vit)[1]
    view.query.write_(view.query.w * 2.5 / 1.5)


def put_a_skip_back(vit) -> None:
    vit.blocks[1].mlp_skip = True


def keep_a_bias(vit) -> None:
    vit.blocks[1].attn.qkv.bias.data[3] = 0.1


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (transpose_suo, "MLP input map has gain 0.25 and kappa 1"),
        (transpose_suo, "MLP output map has gain 4 and kappa 1"),
        (share_z, "two heads have the same W_Q W_K"),
        (drop_c_once, r"singular values of W_V W_O are 3, not c\^2 = 9"),
        (swap_u, "not a scaled rotation"),
        (default_block, "not a scaled rotation"),
        (default_block, "attention of 2 of 2 heads starts diffuse"),
        (keep_a_bias, "a bias is not 0"),
        (zero_projections, "not a scaled rotation"),
        (shrink_a_norm, "a LayerNorm is not the identity"),
        (other_beta, r"\|W_Q W_K\^T\| is .*: not alpha = 1, beta = 1.5"),
        (put_a_skip_back, "its skips are not the other blocks'"),
    ],
)
def test_each_silent_mistake_is_named_with_its_block(mistake, words: str) -> None:
    vit = model()
    mistake(vit)
    flags = inspect_init(vit, INIT).flags
    assert flags, "unnoticed"
    assert {flag.split(":")[0] for flag in flags} == {"blocks.1"}
    assert re.search(words, "\n".join(flags))


def test_values_that_do_not_suit_the_width_are_named() -> None:
    flags = inspect_init(model(SkiplessInit(2.0, 0.6, 3.0), num_heads=4)).flags
    assert any("alpha and beta do not suit d = 48, d_h = 12" in flag for flag in flags)


def test_qk_norm_is_named() -> None:
    """It takes the scale out of queries and keys: here the attention starts diffuse whatever alpha and beta are."""
    flags = inspect_init(model(qk_norm=True), INIT).flags
    assert {flag.split(":")[0] for flag in flags} == {"blocks.0", "blocks.1"}
    assert any("qk-norm rescales" in flag for flag in flags)
    assert any("starts diffuse" in flag for flag in flags)


@pytest.mark.parametrize("dim", [32, 96])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 2.5), (0.0, 2.0), (1.8, 1.0)])
def test_other_draws_of_the_same_scheme_raise_no_flag_of_scale(dim: int, alpha: float, beta: float) -> None:
    init = SkiplessInit(alpha, beta, 2.0)
    for seed in range(5):
        sizes = {"img_size": 8, "patch_size": 4, "embed_dim": dim, "depth": 1, "num_heads": 2}
        vit = create_model("vit_tiny_patch16_224", init=init, seed=seed, **sizes)
        assert not [flag for flag in inspect_init(vit, init).flags if "not alpha" in flag]


@pytest.mark.parametrize(
    ("removed", "mlp", "expected"),
    [
        ((), "orthogonal", "its skips are there (attn and mlp)"),
        (("attn",), "orthogonal", "its skip is there (mlp)"),
        (("mlp",), "orthogonal", "its skip is there (attn)"),
        (("attn", "mlp"), "orthogonal", ""),
        (("attn",), "kept", ""),  # the scheme leaves such an MLP as it is
        (("mlp",), "kept", "its skip is there (attn)"),
    ],
)
def test_a_kept_skip_is_a_departure(removed: tuple[str, ...], mlp: str, expected: str) -> None:
    """The text said so where all were kept, and the flags, by which programs decide, were empty."""
    init = replace(INIT, mlp=mlp)
    vit = model(init, skip=not removed, **({"sub_blocks": removed} if removed else {}))
    report = inspect_init(vit, init)
    assert report.flags == tuple(f"blocks.{index}: {expected}" for index in range(2 if expected else 0))
    assert f"! every block: {expected}" in str(report) if expected else "nothing departs" in str(report)


def test_without_a_scheme_both_skips_count() -> None:
    assert "blocks.0: its skips are there (attn and mlp)" in inspect_init(model(skip=True)).flags


def test_what_every_block_departs_in_is_printed_once_and_the_rest_with_its_block() -> None:
    vit = model(skip=True)
    keep_a_bias(vit)
    report = inspect_init(vit, INIT)
    assert len(report.flags) == 3
    assert [line for line in str(report).splitlines() if line.startswith("!")] == [
        "! every block: its skips are there (attn and mlp)",
        "! blocks.1: a bias is not 0",
    ]


def test_an_mlp_that_is_not_mirrored_is_named() -> None:
    init = replace(INIT, mlp="mirrored")
    vit = model(init)
    assert inspect_init(vit, init).flags == ()
    vit.blocks[1].mlp.fc1.weight.data[:96] *= 2
    assert inspect_init(vit, init).flags == ("blocks.1: its MLP is not mirrored: W_1 is not [A, -A]",)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("diagonal", [0.2, 0.9])
def test_attention_that_is_as_diffuse_as_the_scheme_wants_it_is_no_departure(qk_norm: bool, diagonal: float) -> None:
    """The weight of qk-norm, by which it is calibrated, is none either."""
    init = replace(INIT, attention_diagonal=diagonal)
    flags = inspect_init(model(init, qk_norm=qk_norm), init).flags
    assert not [flag for flag in flags if "qk-norm rescales" not in flag]
    assert len(flags) == 2 * qk_norm


def test_broken_weights_are_told_apart() -> None:
    vit = model()
    vit.blocks[0].mlp.fc1.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"blocks.0.mlp.fc1.weight is not finite"):
        inspect_init(vit)
    with pytest.raises(InputError, match="on the meta device"):
        inspect_init(model().to("meta"))
