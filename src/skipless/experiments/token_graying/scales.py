"""The scales of this room."""

from typing import Literal

GrayingScale = Literal["digits", "fashion", "vit-s"]
