"""The published multi-crop operations on PIL images (facebookresearch/dino, by its description), one by one."""

import numpy as np
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter, ImageOps

from skipless.data.multicrop.params import Box, CropParams


def resized(image: Image.Image, box: Box, size: int) -> Image.Image:
    return image.crop((box.left, box.top, box.left + box.width, box.top + box.height)).resize(
        (size, size), Image.Resampling.BICUBIC
    )


def jittered(image: Image.Image, name: str, amount: float) -> Image.Image:
    operations = {
        "brightness": F.adjust_brightness,
        "contrast": F.adjust_contrast,
        "saturation": F.adjust_saturation,
        "hue": F.adjust_hue,
    }
    return operations[name](image, amount)


def augmented(image: Image.Image, draw: CropParams) -> Image.Image:
    crop = resized(image, draw.box, draw.size)
    crop = ImageOps.mirror(crop) if draw.flip else crop
    for name, amount in draw.jitter:
        crop = jittered(crop, name, amount)
    crop = F.to_grayscale(crop, 3) if draw.grey else crop
    crop = crop.filter(ImageFilter.GaussianBlur(draw.sigma)) if draw.sigma else crop
    return ImageOps.solarize(crop) if draw.solarise else crop


def planes(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32)
