"""Multi-crop augmentation for self-supervision: DINO's, exact or fast, one stack of tensors per crop."""

from skipless.data.multicrop.config import MultiCropConfig
from skipless.data.multicrop.dataset import MultiCropImages, load_multicrop
from skipless.data.multicrop.deviation import Deviation, measure_deviation
from skipless.data.multicrop.picture import draw_crops
from skipless.data.multicrop.planes import normalised

__all__ = [
    "Deviation",
    "MultiCropConfig",
    "MultiCropImages",
    "draw_crops",
    "load_multicrop",
    "measure_deviation",
    "normalised",
]
