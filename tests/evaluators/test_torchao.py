"""Real integers by torchao beside fake ones, in the maps that both quantise."""

import copy

import pytest
import timm
import torch
from reference.vision_models import EVA, OTHERS
from torch import nn

from skipless.errors import InputError
from skipless.evaluators.quantisation import quantise_, torchao_

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32).eval()


@pytest.mark.parametrize(("bits", "noise"), [((8, 8), 0.05), ((8, None), 0.03), ((4, 8), 0.5), ((4, None), 0.5)])
def test_real_integers_are_as_far_from_the_whole_model_as_fake_ones(bits: tuple[int, int | None], noise: float) -> None:
    whole = vit()
    real, fake = torchao_(copy.deepcopy(whole), *bits), quantise_(copy.deepcopy(whole), *bits)
    images = torch.randn(8, 3, 32, 32)
    with torch.inference_mode():
        expected, ours, theirs = whole(images), fake(images), real(images)
    far = [((one - expected).norm() / expected.norm()).item() for one in (ours, theirs)]
    assert 0 < far[0] < noise
    assert far[1] == pytest.approx(far[0], rel=0.5)
    assert ((theirs - ours).norm() / expected.norm()).item() < far[0] + far[1]


def test_only_linear_maps_of_blocks_change() -> None:
    real = torchao_(vit())
    kinds = {name: type(parameter.data).__name__ for name, parameter in real.named_parameters()}
    assert {name for name, kind in kinds.items() if kind != "Tensor"} == {
        f"blocks.{i}.{part}.weight" for i in range(2) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }


def test_what_torchao_would_leave_whole_is_refused() -> None:
    for model in (OTHERS["torchvision"](), EVA["eva02, bias beside"]()):
        with pytest.raises(InputError, match="called by no nn.Linear"):
            torchao_(model)
    with pytest.raises(InputError, match="weights=6"):
        torchao_(vit(), 6)
    with pytest.raises(InputError, match="unquantise_ before torchao_"):
        torchao_(quantise_(vit()))
