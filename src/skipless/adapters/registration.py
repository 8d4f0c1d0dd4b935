"""What importing `skipless.adapters` tells PEFT: the type of saved adapters, and which of its functions to refuse."""

import functools
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from peft import mapping
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import hotswap

from skipless.adapters.attach import after_injection, check_arrow, check_config
from skipless.adapters.config import SINE_LORA, SineLoraConfig
from skipless.errors import InputError


def register() -> None:
    """Tell PEFT, once.

    PEFT then loads what was saved as a sine adapter by its own `from_pretrained`, `load_adapter`, and transformers'.
    All of these end in `inject_adapter`, which is wrapped: configurations that are not ours it treats as before.
    """
    if SINE_LORA in mapping.PEFT_TYPE_TO_CONFIG_MAPPING:
        return
    mapping.PEFT_TYPE_TO_CONFIG_MAPPING[SINE_LORA] = SineLoraConfig  # pyright: ignore[reportArgumentType]
    BaseTuner.inject_adapter = _injecting(BaseTuner.inject_adapter)
    _replace(hotswap.hotswap_adapter_from_state_dict, _refusing_hotswap)
    if find_spec("peft.tuners.lora.intruders"):  # since 0.19
        from peft.tuners.lora.intruders import reduce_intruder_dimension

        _replace(reduce_intruder_dimension, _refusing_intruders)


def _injecting(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def inject_adapter(self: Any, model: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        config = self.peft_config[adapter_name]
        if isinstance(config, SineLoraConfig):
            check_config(config)  # before PEFT changes weights
        check_arrow(self.peft_config)
        original(self, model, adapter_name, *args, **kwargs)
        try:
            after_injection(self, model, adapter_name)
        except InputError:
            if len(self.peft_config) > 1:  # it would stay behind as a plain one
                self.delete_adapter(adapter_name)
            raise

    return inject_adapter


def _refusing_hotswap(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def hotswap_adapter_from_state_dict(
        model: Any, state_dict: Any, adapter_name: str, config: Any, *args: Any, **kwargs: Any
    ) -> None:
        if isinstance(config, SineLoraConfig) or isinstance(_config(model, adapter_name), SineLoraConfig):
            raise InputError("sine adapters are not hot-swapped: delete_adapter, then load_sine, under the same name")
        original(model, state_dict, adapter_name, config, *args, **kwargs)

    return hotswap_adapter_from_state_dict


def _refusing_intruders(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def reduce_intruder_dimension(peft_model: Any, old_adapter_name: str = "default", *args: Any, **kwargs: Any) -> Any:
        if isinstance(_config(peft_model, old_adapter_name), SineLoraConfig):
            raise InputError(
                f"reduce_intruder_dimension gives A and B of plain LoRA, and {old_adapter_name!r} has a sine: "
                "convert it by PEFT's convert_to_lora first"
            )
        return original(peft_model, old_adapter_name, *args, **kwargs)

    return reduce_intruder_dimension


def _config(model: Any, adapter: str) -> Any:
    return getattr(getattr(model, "_orig_mod", model), "peft_config", {}).get(adapter)


def _replace(original: Callable[..., Any], wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put a wrapped function in the place of a PEFT function, wherever PEFT offers it."""
    wrapped = wrapper(original)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "peft" and getattr(module, original.__name__, None) is original:
            setattr(module, original.__name__, wrapped)
