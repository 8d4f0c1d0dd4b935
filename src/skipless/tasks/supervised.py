"""Classification: images and labels in, cross-entropy out."""

import torch.nn.functional as F
from jaxtyping import Float, Int64
from timm.data.mixup import Mixup
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.tasks.targets import SupervisedConfig


class Supervised(nn.Module):
    """A classifier and its loss.

    Mixup and cutmix draw from numpy's global generator, which the training loop seeds at every step. All images of a
    batch are mixed with one draw, image i with image b - 1 - i.

    Args:
        model: maps images to logits.
        classes: number of classes, the last axis of the logits.
        config: mixup, cutmix and label smoothing.

    Attributes:
        model: the classifier, which is also evaluated.

    Example:
        >>> import torch
        >>> task = Supervised(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), classes=10)
        >>> {name: value.shape for name, value in task(torch.zeros(2, 1, 8, 8), torch.tensor([3, 7])).items()}
        {'loss': torch.Size([]), 'accuracy': torch.Size([])}
    """

    def __init__(self, model: nn.Module, classes: int, config: SupervisedConfig | None = None) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self.config = config or SupervisedConfig()
        self._mixup = _build_mixup(self.config, classes)

    def forward(self, images: Float[Tensor, "b c h w"], labels: Int64[Tensor, " b"]) -> dict[str, Float[Tensor, ""]]:
        """Return the mean loss in nats, and the accuracy (0 to 1) against the class of largest weight in the target.

        Raises:
            InputError: if a batch to be mixed is of odd size, since images are mixed in pairs.
        """
        smoothing = self.config.label_smoothing if self.training else 0.0
        targets: Tensor = labels
        if self.training and self._mixup is not None:
            if len(images) % 2:
                raise InputError(f"mixup and cutmix need an even batch, got {len(images)} images; change batch_size")
            images, targets = self._mixup(images.clone(), labels)  # it mixes in place, and smooths the labels itself
            labels, smoothing = targets.argmax(-1), 0.0
        logits = self.model(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        return {"loss": loss, "accuracy": (logits.detach().argmax(-1) == labels).float().mean()}


def _build_mixup(config: SupervisedConfig, classes: int) -> Mixup | None:
    if config.mix_probability == 0 or (config.mixup == 0 and config.cutmix == 0):
        return None
    return Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        prob=config.mix_probability,
        switch_prob=config.switch_probability,
        label_smoothing=config.label_smoothing,
        num_classes=classes,
    )
