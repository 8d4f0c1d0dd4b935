import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from skipless.errors import InputError
from skipless.tasks import IMAGENET_TARGETS, Supervised, SupervisedConfig

CLASSES = 5


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 1, 4, 4, generator=generator), torch.tensor([0, 1, 2, 3, 4, 0])


def task(config: SupervisedConfig | None = None) -> Supervised:
    torch.manual_seed(0)
    return Supervised(nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)), CLASSES, config)


def seed(value: int) -> None:
    np.random.seed(value)  # noqa: NPY002 (what timm draws from)


def test_plain_labels_give_plain_cross_entropy(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    supervised = task()
    output = supervised(images, labels)
    logits = supervised.model(images)
    by_hand = torch.stack([-row.log_softmax(0)[label] for row, label in zip(logits, labels, strict=True)]).mean()
    assert torch.allclose(output["loss"], by_hand)
    assert output["accuracy"].item() == pytest.approx(sum(logits.argmax(1) == labels).item() / 6)
    assert output["loss"].requires_grad
    assert not output["accuracy"].requires_grad


def test_smoothing_spreads_the_target_in_training_only(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    supervised = task(SupervisedConfig(label_smoothing=0.1))
    logits = supervised.model(images)
    target = 0.9 * F.one_hot(labels, CLASSES) + 0.1 / CLASSES
    assert torch.allclose(supervised(images, labels)["loss"], -(target * logits.log_softmax(1)).sum(1).mean())
    assert torch.allclose(supervised.eval()(images, labels)["loss"], F.cross_entropy(logits, labels))


def test_mixup_blends_images_and_targets_with_one_weight(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    supervised = task(SupervisedConfig(mixup=0.8, label_smoothing=0.1))
    seed(3)
    loss = supervised(images, labels)["loss"]
    seed(3)
    np.random.rand()  # noqa: NPY002 (whether to mix at all)
    weight = np.random.beta(0.8, 0.8)  # noqa: NPY002
    assert 0.01 < weight < 0.99
    smooth = 0.9 * F.one_hot(labels, CLASSES) + 0.1 / CLASSES
    logits = supervised.model(weight * images + (1 - weight) * images.flip(0))
    target = weight * smooth + (1 - weight) * smooth.flip(0)
    assert torch.allclose(loss, -(target * logits.log_softmax(1)).sum(1).mean())


def test_mixing_is_a_function_of_numpys_seed_and_leaves_its_input_alone(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images, labels = batch
    untouched = images.clone()
    supervised = task(IMAGENET_TARGETS)
    losses = []
    for value in (1, 1, 2, 3):
        seed(value)
        losses.append(supervised(images, labels)["loss"].item())
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3
    assert torch.equal(images, untouched)


def test_both_mixup_and_cutmix_are_used(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images.clone())
            return images.new_zeros(len(images), CLASSES, requires_grad=True)

    images, labels = batch
    supervised = Supervised(Spy(), CLASSES, IMAGENET_TARGETS)
    for value in range(40):
        seed(value)
        supervised(images, labels)
    # A pasted box leaves every pixel one of the two images' own; a blend leaves none.
    pasted = [bool(((mixed == images) | (mixed == images.flip(0))).all()) for mixed in seen]
    assert 8 <= sum(pasted) <= 32  # half of 40 on average, four standard deviations each way


def test_evaluation_neither_mixes_nor_smooths(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    supervised = task(IMAGENET_TARGETS).eval()
    assert torch.allclose(supervised(images, labels)["loss"], F.cross_entropy(supervised.model(images), labels))


def test_an_odd_batch_cannot_be_mixed(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    with pytest.raises(InputError, match="even batch, got 5 images; change batch_size"):
        task(IMAGENET_TARGETS)(images[:5], labels[:5])
    assert task()(images[:5], labels[:5])["loss"].item() < 10 * math.log(CLASSES)


def test_only_the_model_is_in_the_state(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert list(task(IMAGENET_TARGETS).state_dict()) == ["model.1.weight", "model.1.bias"]
