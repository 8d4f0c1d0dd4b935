"""At which sizes the room's report can be made, and of which methods, as types."""

from typing import Literal

SineScale = Literal["digits", "fashion"]
AdapterMethod = Literal["lora", "lora, alpha'", "sine", "dora"]
TuningMethod = Literal["head", "all weights", "lora", "lora, alpha'", "sine", "dora"]
