"""measure_conditioning: what it reports is what dense factorisations of autograd's Jacobians give."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from skipless.conditioning.measurement.block_inputs import attention_maps, block_inputs, token_distribution
from skipless.conditioning.measurement.measure import measure_conditioning
from skipless.conditioning.measurement.network_jacobian import (
    Rows,
    jacobian_rows,
    network_conditioning,
    sub_block_columns,
)
from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import block_views, create_model

SMALL = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 3, "embed_dim": 12, "num_heads": 2, "depth": 3}
ROWS = {
    "skip": {"skip": True},
    "skipless": {"skip": False},
    "skipless + init": {"skip": False, "init": SkiplessInit(1.0, 2.5, 3.0)},
}


def model(row: str = "skip", **changes) -> nn.Module:
    return create_model("vit_tiny_patch16_224", **{**SMALL, **ROWS[row], **changes}, seed=0).double()


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def by_hand(vit, x: torch.Tensor, at: int) -> dict[str, torch.Tensor]:
    """The tokens at one block by timm's own functions, without hooks."""
    tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(x))))
    for block in vit.blocks[:at]:
        tokens = block(tokens)
    block = vit.blocks[at]
    attended = block.attn(block.norm1(tokens)) + (tokens if block_views(vit)[at].skips else 0)
    return {"attn_raw": tokens, "attn": block.norm1(tokens), "mlp_raw": attended, "mlp": block.norm2(attended)}


def kappa(matrix: torch.Tensor) -> float:
    s = torch.linalg.svdvals(matrix)
    return (s[0] / s[-1]).item()


@pytest.mark.parametrize("row", ROWS)
def test_inputs_are_those_of_the_forward_pass(row):
    vit = model(row).train()
    found = block_inputs(vit, images(), [2, 0])
    assert [each.index for each in found] == [0, 2]
    for each in found:
        for name, expected in by_hand(vit, images(), each.index).items():
            torch.testing.assert_close(getattr(each, name), expected.detach())
    assert vit.training
    assert not any(m._forward_pre_hooks for m in vit.modules())


@pytest.mark.parametrize("at", ["normed", "raw"])
@pytest.mark.parametrize("row", ["skip", "skipless + init"])
def test_kappas_are_those_of_dense_jacobians(row, at):
    vit = model(row)
    block = measure_conditioning(vit, images(1), blocks=[1], at=at).blocks[0]
    inputs = by_hand(vit, images(1), 1)
    for part, module in (("attn", vit.blocks[1].attn), ("mlp", vit.blocks[1].mlp)):
        x = inputs[part if at == "normed" else f"{part}_raw"].detach()
        dense = torch.autograd.functional.jacobian(module, x).reshape(x.numel(), x.numel())
        found = getattr(block, part)
        assert found["skipless"].kappa.value == pytest.approx(kappa(dense), rel=1e-6)
        assert found["skip"].kappa.value == pytest.approx(kappa(dense + torch.eye(len(dense))), rel=1e-6)
    expected = block.attn["skip" if row == "skip" else "skipless"]
    assert block.paper is expected
    assert block.paper.kappa_gram.value == pytest.approx(expected.kappa.value**2)


def test_each_image_counts_by_itself_and_the_median_is_one_of_them():
    vit = model("skipless + init")
    together = measure_conditioning(vit, images(3), blocks=[0], parts=["attn"]).blocks[0].attn["skipless"]
    alone = [
        measure_conditioning(vit, image, blocks=[0], parts=["attn"]).blocks[0].attn["skipless"].kappa.value
        for image in images(3).split(1)
    ]
    assert [found.kappa.value for found in together.spectra] == pytest.approx(alone)
    assert together.kappa.value == pytest.approx(sorted(alone)[1])
    assert together.range == pytest.approx((min(alone), max(alone)))


def test_few_tokens_are_spread_evenly():
    vit = model("skipless + init")
    found = measure_conditioning(vit, images(1), blocks=[0], parts=["attn"], tokens=3).blocks[0].attn["skipless"]
    x = by_hand(vit, images(1), 0)["attn"][:, [0, 2, 3]].detach()
    dense = torch.autograd.functional.jacobian(vit.blocks[0].attn, x).reshape(36, 36)
    assert found.kappa.value == pytest.approx(kappa(dense), rel=1e-6)


def test_heads_have_their_own_maps():
    vit = model("skipless + init")
    heads = measure_conditioning(vit, images(), blocks=[0], parts=["maps"]).blocks[0].heads
    block = vit.blocks[0]
    x = by_hand(vit, images(), 0)["attn"]
    q, k, _ = block.attn.qkv(x).reshape(2, 5, 3, 2, 6).permute(2, 0, 3, 1, 4)
    maps = (q @ k.mT * 6**-0.5).softmax(-1)
    for index, head in enumerate(heads):
        assert head.diagonal == pytest.approx(maps[:, index].diagonal(dim1=1, dim2=2).mean().item())
        expected = [kappa(each) for each in maps[:, index]]
        assert [found.kappa.value for found in head.maps.spectra] == pytest.approx(expected)


def test_maps_with_qk_norm_are_found_and_foreign_attention_has_none(monkeypatch):
    vit = model("skip", qk_norm=True)
    inputs = block_inputs(vit, images(), [0])[0]
    assert attention_maps(inputs.view, inputs.attn).shape == (2, 2, 5, 5)
    plain = nn.Module.__call__
    monkeypatch.setattr(type(inputs.view.attn), "__call__", lambda self, x: plain(self, x).roll(1, dims=1))
    assert attention_maps(inputs.view, inputs.attn) is None


def test_tokens_of_a_gaussian_look_gaussian_and_others_do_not():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 500, 16, generator=generator, dtype=torch.double)
    found = token_distribution(x, "blocks.0", "attn")
    assert abs(found.mean) < 0.02
    assert abs(found.std - 1) < 0.02
    assert abs(found.excess_kurtosis) < 0.05
    assert found.isotropy == pytest.approx(found.gaussian_isotropy, rel=0.01)
    assert found.covariance.kappa_gram.value == pytest.approx(kappa(torch.cov(x.flatten(0, 1).mT)), rel=1e-6)
    width = found.edges[1] - found.edges[0]
    assert sum(found.density) * width == pytest.approx(1)
    line = torch.rand(2, 50, 1, generator=generator) * torch.ones(16)
    flat = token_distribution(line, "blocks.0", "attn")
    assert flat.isotropy == pytest.approx(1 / 16, rel=1e-5)
    assert flat.covariance.rank == 1
    assert flat.excess_kurtosis == pytest.approx(-1.2, abs=0.4)  # a uniform distribution's


def test_rows_of_j_are_those_that_were_asked_for():
    vit = model("skip")
    choice = Rows(2, 2, 3).of((2, 5, 12))
    found = jacobian_rows(vit, images(), choice)

    def f(values: dict, x: torch.Tensor) -> torch.Tensor:
        y = x
        for index, block in enumerate(vit.blocks):
            prefix = f"blocks.{index}."
            mine = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
            y = torch.func.functional_call(block, mine, (y,))
        return y[:, list(choice.tokens)][..., list(choice.outputs)]

    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images()))).detach()
    weights = {name: value.detach() for name, value in vit.named_parameters() if name.startswith("blocks.")}
    with sdpa_kernel(SDPBackend.MATH):
        parts = torch.func.jacrev(f)(weights, x)
    expected = torch.cat([part.reshape(12, -1) for part in parts.values()], dim=1)
    torch.testing.assert_close(found, expected)
    whole = network_conditioning(vit, images(), Rows(2, 2, 3))
    assert whole.spectrum.kappa.value == pytest.approx(kappa(expected), rel=1e-6)
    assert whole.rows.count == 12
    columns = sub_block_columns(vit)
    sizes = {name: sum(part.stop - part.start for part in parts) for name, parts in columns.items()}
    block = vit.blocks[1]
    expected_size = sum(p.numel() for module in (block.norm1, block.attn) for p in module.parameters())
    assert sizes["blocks.1.attn"] == expected_size
    assert sum(sizes.values()) == found.shape[1]


def test_held_and_matrix_free_j_agree(monkeypatch):
    vit = model("skip")
    held = network_conditioning(vit, images(), Rows(2, 2, 3))
    monkeypatch.setattr("skipless.conditioning.measurement.network_jacobian.MATERIALISED_BYTES", 0)
    free = network_conditioning(vit, images(), Rows(2, 2, 3))
    assert (held.spectrum.method, free.spectrum.method) == ("dense", "lanczos")
    assert free.spectrum.kappa.value == pytest.approx(held.spectrum.kappa.value, rel=1e-5)


def test_the_report_is_json_without_bare_infinities_and_a_table():
    report = measure_conditioning(model("skipless"), images(), network=Rows(2, 1, 4))
    text = json.dumps(report.as_json(), allow_nan=False)
    assert json.loads(text)["blocks"][0]["kappa_gram"]["converged"] in (True, False)
    lines = str(report).splitlines()
    assert lines[0].split()[:2] == ["block", "skips"]
    assert [line.split()[0] for line in lines[1:4]] == ["blocks.0", "blocks.1", "blocks.2"]
    assert "kappa(J J^T)" in str(report)
    assert "8 rows" in str(report)
    assert "inf" not in str(report)


def test_nothing_is_disturbed():
    vit = model("skip", proj_drop_rate=0.1).float().train()
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    report = measure_conditioning(vit, images(1).float(), dtype=torch.float64, network=Rows(1, 1, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert report.dtype == "float64"
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    assert all(module.training for module in vit.modules())
    assert all(p.requires_grad and p.grad is None and p.dtype == torch.float32 for p in vit.parameters())


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda vit: vit.blocks[1].mlp.fc1.weight.data.fill_(math.nan), {}, "blocks.1.mlp.fc1.weight is not finite"),
        (lambda vit: vit.half(), {}, "half precision"),
        (lambda _: None, {"images": torch.zeros(0, 1, 8, 8)}, "images is empty"),
        (lambda _: None, {"images": torch.zeros(1, 1, 8, 9)}, "the model refuses images of shape (1, 1, 8, 9)"),
        (lambda _: None, {"images": torch.full((1, 1, 8, 8), math.inf)}, "not finite"),
        (lambda _: None, {"blocks": [3]}, "blocks=[3]: give positions from 0 to 2"),
        (lambda _: None, {"blocks": [2, -1]}, "none twice"),
        (lambda _: None, {"parts": "attn"}, "parts='attn'"),
        (lambda _: None, {"tokens": 6}, "tokens=6: the model has 5"),
        (lambda _: None, {"tokens": 0}, "tokens=0"),
        (lambda _: None, {"at": "output"}, "at='output' is not one of 'normed', 'raw'"),
        (lambda _: None, {"dtype": torch.float16}, "half precision"),
        (lambda _: None, {"network": Rows(5, 1, 1)}, "there are 1 images"),
    ],
)
def test_bad_input_is_refused_in_words(spoil, options, message, unchecked):
    vit = create_model("vit_tiny_patch16_224", **SMALL, skip=True, seed=0)
    spoil(vit)
    given = {"images": torch.zeros(1, 1, 8, 8), **options}
    with pytest.raises(InputError) as refused:
        measure_conditioning(vit, given.pop("images"), **given)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_model_without_adapter_is_refused():
    with pytest.raises(InputError, match="no adapter for `Linear`"):
        measure_conditioning(nn.Linear(3, 3), torch.zeros(1, 1, 8, 8))


def test_gaussian_tokens_are_what_the_theory_supposes() -> None:
    """There all blocks of one model are alike; in the forward pass of a skipless one the deep blocks are worse."""
    torch.manual_seed(0)
    init = SkiplessInit(0.5, 2.0, 3.0)
    model = create_model(
        "vit_tiny_patch16_224", depth=6, img_size=32, patch_size=8, embed_dim=64, num_heads=2, init=init
    )
    images = torch.randn(1, 3, 32, 32)
    kappas = {}
    for at in ("gaussian", "normed"):
        report = measure_conditioning(model, images, blocks=[0, 5], parts=["attn"], forms="own", at=at, seed=3)
        kappas[at] = [block.attn["skipless"].kappa.value for block in report.blocks]
    again = measure_conditioning(model, images, blocks=[5], parts=["attn"], forms="own", at="gaussian", seed=3)
    assert again.blocks[0].attn["skipless"].kappa.value == kappas["gaussian"][1]
    assert max(kappas["gaussian"]) < 10 * min(kappas["gaussian"])
    assert kappas["normed"][1] > 3 * kappas["gaussian"][1]
