"""Tiny pictures with squares of two classes, for tests of what reads images and masks."""

import numpy as np
from PIL import Image

from skipless.errors import InputError


class Squares:
    """`count` grey pictures of 40 x 48 with a red (1) and a green (2) square; the first row is to be ignored."""

    classes = ("ground", "red", "green")
    ignore = 255

    def __init__(self, count: int, seed: int = 0, broken: tuple[int, ...] = ()) -> None:
        self.count, self.seed, self.broken, self.reads = count, seed, broken, 0

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        self.reads += 1
        if index in self.broken:
            raise InputError(f"'image-{index}.png' is cut short")
        generator = np.random.default_rng((self.seed, index))
        image = generator.integers(90, 120, (40, 48, 3), dtype=np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        for label in (1, 2):
            y, x = generator.integers(0, 26), generator.integers(0, 34)
            image[y : y + 14, x : x + 14] = (220, 60, 60) if label == 1 else (60, 220, 60)
            mask[y : y + 14, x : x + 14] = label
        mask[0] = 255
        return Image.fromarray(image), mask
