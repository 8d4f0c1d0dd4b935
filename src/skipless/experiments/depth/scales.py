"""At which sizes the room's report can be made, and of which models, as types."""

from typing import Literal

DepthScale = Literal["digits", "fashion", "scenes"]
DepthRow = Literal["skip", "skip + positions", "skipless", "skipless + init", "skipless + ours"]
