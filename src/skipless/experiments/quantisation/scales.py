"""At which sizes the room's report can be made, and of which models, as types."""

from typing import Literal

QuantisationScale = Literal["digits", "fashion", "scenes", "language"]
QuantisationRow = Literal["skip", "skip, rotated", "skipless + init", "skipless + ours"]
