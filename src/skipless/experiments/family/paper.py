"""What the papers of the family print: their own data, models and recipes, not ours."""

from typing import NamedTuple


class Printed(NamedTuple):
    """A line of what a paper prints.

    Attributes:
        method: of which method.
        setting: model, data and what is measured.
        value: with the method.
        beside: what stands beside it there.
        source: the paper.
    """

    method: str
    setting: str
    value: str
    beside: str
    source: str


_POLYNOMIAL = "arXiv 2410.18613"
_OSA = "arXiv 2602.05996"
_SIMPLEST = "SimplEsT-ViT, a public repository of E-SPA for images"
_SIMPLIFIED = "He and Hofmann 2024"
_DECAYED = "arXiv 2404.10947"

ATTENTION: tuple[Printed, ...] = (
    Printed("x^3 / 14, with skips", "ViT-B, ImageNet, top-1", "79.6", "softmax 79.6", _POLYNOMIAL),
    Printed("x^3 / 14, with skips", "ViT-S, ImageNet, top-1", "80.5", "softmax 80.2", _POLYNOMIAL),
    Printed("x^3 / 14, with skips", "Swin-B, ImageNet, top-1", "83.2", "softmax 83.0", _POLYNOMIAL),
    Printed("x^3 / 14, with skips", "Swin-S, ImageNet, top-1", "83.4", "softmax 83.3", _POLYNOMIAL),
    Printed("x^3 / 14, with skips", "XCiT-S, ImageNet, top-1", "82.1", "softmax 81.2", _POLYNOMIAL),
    Printed(
        "orthogonal, without skips and norms",
        "ViT, MNIST, top-1",
        "comparable to the next column",
        "softmax with skips 97.2, without 94.6",
        _OSA,
    ),
)
SHORTCUTS: tuple[Printed, ...] = (
    Printed(
        "V-SkipInit, E-SPA, U-SPA",
        "steps to a residual model's loss",
        "about 5x",
        "a residual model 1x",
        "He et al. 2023",
    ),
    Printed("E-SPA, Adam", "ViT-S/4, CIFAR-10, top-1", "79.4", "with skips, same recipe, 83.3", _SIMPLEST),
    Printed("E-SPA, Shampoo", "ViT-S/4, CIFAR-10, top-1", "82.4", "with skips, same recipe, 83.3", _SIMPLEST),
    Printed("E-SPA, Adam", "TinyImageNet, top-1", "38.5", "with skips 45.3", _SIMPLEST),
    Printed("E-SPA, Shampoo", "TinyImageNet, top-1", "42.1", "with skips 45.3", _SIMPLEST),
    Printed("E-SPA, Shampoo", "ViT-S/16, ImageNet, 90 epochs, top-1", "70.5 and 70.7", "", _SIMPLEST),
    Printed("shaped (SAS-P without norm)", "CodeParrot, 18 blocks, loss", "1.245", "with skips 1.155", _SIMPLIFIED),
    Printed("decayed shortcuts", "MAE, ViT-B/16, k-NN", "63.9", "with skips 27.4", _DECAYED),
    Printed("decayed shortcuts", "MAE, ViT-B/16, linear probe", "72.7", "with skips 67.8", _DECAYED),
    Printed("decayed shortcuts", "MAE, ViT-B/16, fine-tuned", "82.9", "with skips 83.6", _DECAYED),
)
