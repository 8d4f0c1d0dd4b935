"""COCO's run-length masks, decoded pixel by pixel."""

import numpy as np


def decode_runs(runs: dict) -> np.ndarray:
    height, width = runs["size"]
    mask = np.zeros((height, width), dtype=bool)
    place = 0
    for number, count in enumerate(runs["counts"]):
        for _ in range(count):
            mask[place % height, place // height] = number % 2 == 1
            place += 1
    assert place == height * width
    return mask
