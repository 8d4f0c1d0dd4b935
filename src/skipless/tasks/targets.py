"""How the targets of a classification are softened."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SupervisedConfig:
    """How targets are softened. The defaults train on plain labels; the paper's recipe is `IMAGENET_TARGETS`.

    Attributes:
        mixup: parameter of the Beta distribution that images are blended with; 0 for no mixup.
        cutmix: parameter of the Beta distribution for the area of pasted boxes; 0 for no cutmix.
        mix_probability: share of the batches that are mixed at all.
        switch_probability: share of the mixed batches that take cutmix where both are on.
        label_smoothing: share of the target spread evenly over the classes.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    label_smoothing: float = 0.0


IMAGENET_TARGETS = SupervisedConfig(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
"""The targets of the paper's ImageNet recipe (Xu et al. 2024)."""
