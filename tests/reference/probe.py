"""Dense linear probing written from the text alone: one head at a time, torch's own modules and optimizers, loops."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate


def train_head(
    batches: list[tuple[Tensor, Tensor]],
    *,
    learning_rate: float,
    weight: Tensor,
    optimizer: str,
    weight_decay: float,
    batch_norm: bool,
    schedule: str,
    ignore: int,
    loss_size: int | None,
) -> nn.Module:
    """Train `Conv2d(d, classes, 1)` on maps of features (b, d, rows, columns) and masks (b, h, w).

    With `loss_size`, logits are resized to it and compared with the masks, which have that size. Without, the mean over
    a patch's pixels of their losses is taken, then the mean over all pixels that are not to be ignored.
    """
    dim, classes = weight.shape
    head = nn.Conv2d(dim, classes, 1).double()
    head.weight.data = weight.T[:, :, None, None].clone()
    head.bias.data.zero_()
    model = nn.Sequential(nn.BatchNorm2d(dim).double(), head) if batch_norm else nn.Sequential(head)
    model.train()
    if optimizer == "adamw":
        steps = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    else:
        steps = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    for step, (x, mask) in enumerate(batches):
        progress = step / len(batches)
        factor = {"constant": 1, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[schedule]
        for group in steps.param_groups:
            group["lr"] = learning_rate * factor
        logits = model(x)
        if loss_size is None:
            logits = interpolate(logits, size=mask.shape[-2:], mode="nearest")
        else:
            logits = interpolate(logits, size=(loss_size, loss_size), mode="bilinear", align_corners=False)
        steps.zero_grad()
        cross_entropy(logits, mask, ignore_index=ignore).backward()
        steps.step()
    return model.eval()


def miou(predictions: list[Tensor], masks: list[Tensor], classes: int, ignore: int) -> tuple[list[float | None], float]:
    """Each class's IoU and their mean, in percent, pixel by pixel."""
    both, either = [0] * classes, [0] * classes
    for prediction, mask in zip(predictions, masks, strict=True):
        for p, t in zip(prediction.flatten().tolist(), mask.flatten().tolist(), strict=True):
            if t == ignore:
                continue
            if p == t:
                both[p] += 1
                either[p] += 1
            else:
                either[p] += 1
                either[t] += 1
    iou = [100 * b / e if e else None for b, e in zip(both, either, strict=True)]
    there = [value for value in iou if value is not None]
    return iou, sum(there) / len(there)
