"""Configuration of a classifier's targets: mixup, cutmix and label smoothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SupervisedConfig:
    """Mixup, cutmix and label smoothing. The default is none of them; the paper's recipe is `IMAGENET_TARGETS`.

    Attributes:
        mixup: parameter of the Beta distribution of the blending weights; 0 turns mixup off.
        cutmix: parameter of the Beta distribution of the pasted area; 0 turns cutmix off.
        mix_probability: probability that a batch is mixed at all.
        switch_probability: probability that a mixed batch takes cutmix, if mixup is on as well.
        label_smoothing: part of the target that is spread evenly over the classes.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    label_smoothing: float = 0.0


IMAGENET_TARGETS = SupervisedConfig(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
"""The targets of the paper's ImageNet recipe (Xu et al. 2024)."""
