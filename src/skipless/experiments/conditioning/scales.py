"""At which scales the measurements can be made; a module without torch, for the door."""

from typing import Literal

RunScale = Literal["digits", "fashion", "language", "paper"]
ConditioningScale = Literal["digits", "fashion", "language", "init", "vit-s", "paper"]
AssumptionScale = Literal["digits", "fashion", "init"]
