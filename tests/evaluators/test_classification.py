import math

import pytest
import torch
from torch import nn

from skipless.data import EvalLoader
from skipless.data.memory import MemoryImages
from skipless.evaluators import top1


class Scores(nn.Module):
    """Gives back the scores that its images are, and notes the mode it was called in."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        self.modes.add((self.training, torch.is_inference_mode_enabled()))
        return scores.flatten(1)


def scored(n: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, classes, generator=generator), torch.randint(0, classes, (n,), generator=generator)


def test_every_image_counts_once_though_the_last_batch_is_short() -> None:
    scores, labels = scored(23, 7)
    result = top1(Scores(), list(zip(scores.split(5), labels.split(5), strict=True)))
    ranks = (scores > scores.gather(1, labels[:, None])).sum(1)
    assert result["n"] == 23
    assert result["top1"] == pytest.approx(100 * (ranks == 0).double().mean().item())
    assert result["top5"] == pytest.approx(100 * (ranks < 5).double().mean().item())
    assert result["loss"] == pytest.approx(nn.functional.cross_entropy(scores, labels).item(), rel=1e-6)
    assert 0 < result["top1"] < result["top5"] < 100


def test_top5_is_left_out_where_it_says_nothing() -> None:
    assert set(top1(Scores(), [scored(8, 4)])) == {"top1", "loss", "n"}
    assert set(top1(Scores(), [scored(8, 5)])) == {"top1", "top5", "loss", "n"}


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_given_back(training: bool) -> None:
    model = Scores().train(training)
    top1(model, [scored(4, 6)])
    assert model.training is training
    assert model.modes == {(False, True)}
    with pytest.raises(IndexError):  # not a label
        top1(model, [(torch.zeros(2, 3), torch.tensor([0, 3]))])
    assert model.training is training


def test_a_model_that_knows_nothing_loses_ln_classes() -> None:
    data = MemoryImages(
        torch.zeros(30, 1, 1, 10, dtype=torch.uint8), torch.arange(30) % 10, torch.zeros(1), torch.ones(1)
    )
    assert top1(Scores(), EvalLoader(data, batch_size=8))["loss"] == pytest.approx(math.log(10), rel=1e-6)
