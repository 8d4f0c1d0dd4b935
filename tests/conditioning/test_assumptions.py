"""Eq. 6 and A.4.4 measured: what can be proved holds, and what is singular by construction is found to be."""

import json

import pytest
import torch

from skipless.conditioning.measurement.block_incoherence import check_assumptions
from skipless.conditioning.measurement.network_jacobian import Rows
from skipless.init import SkiplessInit
from skipless.models import create_model

SMALL = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 3, "embed_dim": 8, "num_heads": 2, "depth": 2}


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def model(**changes):
    return create_model("vit_tiny_patch16_224", **{**SMALL, "skip": True, **changes}, seed=0)


@pytest.mark.parametrize("changes", [{}, {"skip": False, "init": SkiplessInit(1.0, 2.5, 3.0)}])
def test_eq_6_holds_for_wide_blocks(changes):
    report = check_assumptions(model(**changes), images(3), Rows(3, 2, 4))
    assert report.bound.orientation == "wide"
    assert report.eq6 is True
    assert report.whole.kappa.value <= report.sub_blocks[report.worst].kappa.value
    assert report.bound.kappa == pytest.approx(report.whole.kappa.value, rel=1e-6)


def test_more_images_never_improve_wide_blocks():
    better, worse, unknown = check_assumptions(model(), images(3), Rows(3, 2, 4)).images_bounded
    assert (better, worse + unknown) == (0, 4)
    assert worse > 0


def test_tall_sub_blocks_are_singular_by_their_symmetries():
    """Parameters that change nothing: counted by hand here, found by the rank."""
    report = check_assumptions(model(depth=1), images(23), Rows(23, 5, 8))
    assert report.bound.orientation == "tall"
    d, heads, head_dim, hidden = 8, 2, 4, 32
    rotations = 2 * heads * head_dim**2  # of W_Q against W_K, and of W_V against W_O, in each head
    biases = 2 * d  # the key's; the value's against the output's
    norm = 2 * d  # weight and bias, against the rows of W_Q, W_K, W_V and their biases
    centred = 3 * d  # normed tokens sum to 0: adding a row 1 u^T to W_Q, W_K or W_V does nothing
    attn, mlp = report.sub_blocks["blocks.0.attn"], report.sub_blocks["blocks.0.mlp"]
    assert attn.rank == attn.shape[1] - rotations - biases - norm - centred
    assert mlp.rank == mlp.shape[1] - norm - hidden
    assert report.eq6 is None
    assert report.bound.printed is None


def test_the_report_says_so_in_words_and_in_json():
    report = check_assumptions(model(), images(2), Rows(2, 1, 4))
    assert "Eq. 6 holds" in str(report)
    assert "Eq. 37" in str(report)
    values = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert values["eq6"] is True
    assert set(values["sub_blocks"]) == {"blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"}
