"""The scales of this room, and what each trains."""

from typing import Literal

RunScale = Literal["digits", "fashion", "paper"]
ConditioningScale = Literal["digits", "fashion", "init", "vit-s", "paper"]
AssumptionScale = Literal["digits", "fashion", "init"]
