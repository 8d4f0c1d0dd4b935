"""What the collapse monitors find in healthy teachers and in collapsed ones."""

import json
import math
import re

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from skipless.tasks.dino.collapse import class_tokens, effective_rank, measure_collapse, spread

K, N = 16, 32


def features(n: int = N, d: int = 8) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def outputs(temperature: float = 1.0) -> Tensor:
    return torch.softmax(torch.randn(N, K, generator=torch.Generator().manual_seed(1)) / temperature, -1)


def test_numbers_are_those_of_their_definitions() -> None:
    p = outputs(0.5)
    seen = measure_collapse([features()], p, {"all": torch.tensor(2.0)})
    entropies = [-sum(x * math.log(x) for x in row) for row in p.tolist()]
    mean = [sum(column) / N for column in zip(*p.tolist(), strict=True)]
    assert seen.entropy == pytest.approx(sum(entropies) / N, rel=1e-6)
    assert seen.kl_uniform == pytest.approx(math.log(K) - seen.entropy)
    marginal = -sum(x * math.log(x) for x in mean)
    assert seen.information == pytest.approx(marginal - sum(entropies) / N, rel=1e-5)
    assert (seen.n, seen.grad_norms) == (N, {"all": 2.0})
    assert seen.diagnosis() is None


def test_effective_rank_of_what_is_known() -> None:
    assert effective_rank(torch.eye(5)) == pytest.approx(4)
    line = torch.arange(6.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]]) + 5
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(torch.ones(4, 3)) == 1
    assert 5 < effective_rank(features()) <= 8
    assert effective_rank(features() + 1e3) == pytest.approx(effective_rank(features()), rel=1e-3)
    assert spread(torch.ones(4, 3)) == 0
    assert spread(torch.tensor([[1.0], [-1.0]])) == pytest.approx(1)


ONE = outputs()[:1].expand(N, K)


@pytest.mark.parametrize(
    ("p", "x", "fault"),
    [
        (torch.full((N, K), 1 / K), features(), "same output, uniform over the prototypes"),
        (ONE, features(), r"same output \(entropy"),
        (torch.eye(K)[[3] * N], features(), "on a single prototype"),
        (torch.eye(K)[list(range(K)) * 2], features(), "on a single prototype"),
        (outputs(), torch.ones(N, 8), "same feature"),
        (outputs(), torch.linspace(0, 1, N)[:, None] * torch.ones(1, 8), "one direction only"),
        (outputs() * math.nan, features(), "not finite"),
        (outputs(), features() * math.inf, "not finite"),
    ],
)
def test_collapses_are_told_apart(p: Tensor, x: Tensor, fault: str) -> None:
    seen = measure_collapse([features(), x], p)
    assert re.search(fault, seen.diagnosis() or "well")
    json.dumps(seen.as_json(), allow_nan=False)


def test_nearly_uniform_outputs_that_tell_samples_apart_are_no_collapse() -> None:
    p = outputs(temperature=50.0)
    seen = measure_collapse([features()], p)
    assert seen.kl_uniform < 1e-3
    assert seen.diagnosis() is None


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_samples_are_not_taken_for_a_collapse(n: int) -> None:
    """One cannot differ from another, and two differ in one direction."""
    assert measure_collapse([features(n)], outputs()[:n]).diagnosis() is None
    if n > 1:
        alike = measure_collapse([features(n)], outputs()[:1].expand(n, K))
        assert "same output" in (alike.diagnosis() or "well")


def test_tokens_come_block_by_block_whatever_the_size() -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=0, embed_dim=16, depth=3, num_heads=2, dynamic_img_size=True
    ).eval()
    images = torch.rand(4, 1, 4, 4)
    found = class_tokens(vit, images)
    assert [tuple(x.shape) for x in found] == [(4, 16)] * 4
    torch.testing.assert_close(vit.norm(found[-2]), found[-1])
    torch.testing.assert_close(found[-1], vit(images))
    assert len(class_tokens(nn.Flatten(), images)) == 1
