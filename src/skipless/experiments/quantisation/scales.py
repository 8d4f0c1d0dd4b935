"""At which sizes the room's report can be made, and of which models, as types."""

from typing import Literal

QuantisationScale = Literal["digits", "fashion", "scenes", "language"]
QuantisationRow = Literal["skip", "skip, rotated", "skipless + init", "skipless + ours"]

ROTATED: QuantisationRow = "skip, rotated"
"""The residual model with its stream turned: no model is trained for it."""
