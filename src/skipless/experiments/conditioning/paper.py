"""What the paper states in Tables 5 and 6 (A.7)."""

from collections.abc import Mapping

# A.7: DINO, ViT-Small, 300 epochs; None is the paper's infinity. One model a row, no spread stated.
PAPER_TABLE5: Mapping[str, Mapping[int, float | None]] = {
    "skip": {20: 127, 60: 72, 120: 82, 180: 93, 240: 113, 300: 144},
    "skipless": dict.fromkeys((20, 60, 120, 180, 240, 300)),
    "skipless + init": {20: 195, 60: 340, 120: 261, 180: 160, 240: 176, 300: 207},
}
PAPER_TABLE6: Mapping[str, Mapping[int, tuple[float, ...] | None]] = {
    "skip": {
        20: (1.05, 1.49, 1.35, 1.04),
        100: (1.06, 1.54, 1.25, 1.25),
        200: (1.03, 1.57, 1.21, 1.37),
        300: (1.02, 1.38, 1.28, 1.51),
    },
    "skipless": dict.fromkeys((20, 100, 200, 300)),
    "skipless + init": {
        20: (10, 2.7, 7.5, 12.5),
        100: (6.25, 3.7, 8.54, 19.2),
        200: (6.25, 3.84, 11.1, 21.7),
        300: (3.44, 3.57, 14.3, 20.2),
    },
}
PAPER_EPOCHS = 300
