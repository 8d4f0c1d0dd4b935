"""The head: its lengths, its start, and what it does in half precision."""

import math

import pytest
import torch

from skipless.errors import InputError
from skipless.tasks import DINOHead


def head(**changes) -> DINOHead:
    return DINOHead(
        12, 20, **{"hidden_dim": 16, "bottleneck_dim": 8, "generator": torch.Generator().manual_seed(0)} | changes
    )


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_its_logits_are_cosines_whatever_the_depth(layers: int) -> None:
    one = head(layers=layers)
    x = 100 * torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    bottleneck = one.mlp(x)
    v = one.last_layer.weight_v
    expected = torch.nn.functional.cosine_similarity(bottleneck[:, None], v[None], dim=-1)
    torch.testing.assert_close(one(x), expected)
    kinds = [type(module).__name__ for module in one.mlp]
    assert kinds == (["Linear", "GELU"] * layers)[:-1]


def test_it_starts_as_published() -> None:
    one = DINOHead(256, 512, generator=torch.Generator().manual_seed(0))
    weights = torch.cat([module.weight.flatten() for module in one.mlp if isinstance(module, torch.nn.Linear)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert all(module.bias.eq(0).all() for module in one.mlp if isinstance(module, torch.nn.Linear))
    assert one.last_layer.weight_g.eq(1).all()
    assert one.last_layer.weight_v.std().item() == pytest.approx(1 / math.sqrt(3 * 256), rel=0.01)


def test_the_length_of_the_prototypes_is_fixed_or_free() -> None:
    assert not head().last_layer.weight_g.requires_grad
    free = head(norm_last_layer=False)
    assert free.last_layer.weight_g.requires_grad
    x = torch.randn(3, 12)
    before = free(x)
    with torch.no_grad():
        free.last_layer.weight_g.mul_(3)
        free.last_layer.weight_v.mul_(7)  # the length of v means nothing
    torch.testing.assert_close(free(x), 3 * before)


def test_its_weights_follow_the_generator_and_no_other() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = head().state_dict(), head().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_half_precision_does_not_lose_the_norm(scale: float) -> None:
    one = head()
    x = scale * torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        one.last_layer.weight_v.mul_(scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = one(x)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), one(x), atol=0.03, rtol=0)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="layers=0"):
        DINOHead(4, 4, layers=0)
