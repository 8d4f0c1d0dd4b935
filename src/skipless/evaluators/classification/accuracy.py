"""Top-1 and top-5 accuracy of a classifier."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

TOP5_CLASSES = 5  # with fewer classes, top-5 is always 100 %


@torch.inference_mode()
def top1(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Measure the accuracy of a classifier, counting each image once.

    Args:
        model: maps images `(b, c, h, w)` to logits `(b, classes)`. It is evaluated on its parameters' device, and its
            training mode is restored.
        loader: batches of images and labels. In a distributed run each process passes a disjoint part of the images,
            and every process gets the result for all of them.

    Returns:
        `top1` and, with at least five classes, `top5` in percent; `loss`, the mean cross-entropy in nats; `n`, the
        number of images.

    Example:
        >>> images, labels = torch.eye(3).repeat(2, 1), torch.tensor([0, 1, 2, 0, 0, 0])
        >>> result = top1(nn.Identity(), [(images, labels)])
        >>> round(result["top1"], 1), result["n"]
        (66.7, 6.0)
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    batches, classes, training = [], 0, model.training
    model.eval()
    try:
        for images, labels in loader:
            logits = model(images.to(device, non_blocking=True)).float()
            batches.append(_batch_sums(logits, labels.to(device, non_blocking=True)))
            classes = logits.shape[-1]
    finally:
        model.train(training)
    sums = torch.stack(batches).cpu().double().sum(0)  # the only synchronisation; float32 would round long sums
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums := sums.to(device))
    loss, first, fifth, count = sums.tolist()
    result = {"top1": 100 * first / count}
    if classes >= TOP5_CLASSES:
        result["top5"] = 100 * fifth / count
    return result | {"loss": loss / count, "n": count}


def _batch_sums(logits: Float[Tensor, "b classes"], labels: Int64[Tensor, " b"]) -> Float[Tensor, "4"]:
    """The summed loss, the numbers of top-1 and top-5 hits, and the number of images."""
    hits = logits.topk(min(TOP5_CLASSES, logits.shape[-1])).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([loss, hits[:, 0].sum(), hits.sum(), torch.ones_like(labels).sum()])
