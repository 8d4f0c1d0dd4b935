"""SineLoraConfig: PEFT's LoraConfig and what the sine needs, saved under a type of its own."""

import copy
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig

from skipless.nn.sine import check_sine

SINE_LORA = "SINE_LORA (import skipless.adapters)"
"""What stands as `peft_type` in the `adapter_config.json` of a sine adapter. PEFT looks it up in a table; where it is
not there, the `KeyError` that PEFT raises quotes this text, which therefore says what to do."""


@dataclass
class SineLoraConfig(LoraConfig):
    """PEFT's `LoraConfig` for delta W = (alpha / r) sin(omega B A) / g (arXiv 2403.19243).

    `get_peft_model(base, SineLoraConfig(r=8, ...))` is `get_peft_model` with a `LoraConfig`, then `sine_`. In memory
    the adapter is one of PEFT's type `LORA`, so that it stands beside plain ones. Saved, its type is one that PEFT does
    not know without `skipless.adapters`, and PEFT then raises a `KeyError` that says so.

    Args:
        sine_frequency: omega; the authors' 200.
        sine_scaling: g; by default the square root of each layer's inputs, as the authors do.

    Raises:
        InputError: for a frequency or a scaling that is not above 0.

    Example:
        >>> config = SineLoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
        >>> config.sine_frequency, config.peft_type.value, config.to_dict()["peft_type"]
        (200.0, 'LORA', 'SINE_LORA (import skipless.adapters)')
    """

    sine_frequency: float = field(default=200.0, metadata={"help": "omega of sin(omega B A) / g"})
    sine_scaling: float | None = field(default=None, metadata={"help": "g; by default sqrt(in_features)"})

    def __post_init__(self) -> None:
        """Check the values, and let PEFT do what it does."""
        super().__post_init__()
        check_sine(self.sine_frequency, self.sine_scaling)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as PEFT saves it."""
        return {**super().to_dict(), "peft_type": SINE_LORA}


def with_sine(config: LoraConfig, frequency: float, scaling: float | None) -> SineLoraConfig:
    """A copy of a configuration of plain LoRA, with a sine.

    Example:
        >>> with_sine(LoraConfig(r=4), 100.0, None).r
        4
    """
    check_sine(frequency, scaling)
    found = copy.copy(config)
    found.__class__ = SineLoraConfig
    found.sine_frequency, found.sine_scaling = frequency, scaling  # pyright: ignore[reportAttributeAccessIssue]
    return found  # pyright: ignore[reportReturnType]


def without_sine(config: SineLoraConfig) -> LoraConfig:
    """A copy of a configuration as one of plain LoRA.

    Example:
        >>> type(without_sine(SineLoraConfig(r=4))).__name__
        'LoraConfig'
    """
    found = copy.copy(config)
    found.__class__ = LoraConfig  # pyright: ignore[reportAttributeAccessIssue]
    del found.sine_frequency, found.sine_scaling
    return found
