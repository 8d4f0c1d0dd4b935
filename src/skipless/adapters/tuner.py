"""PEFT's LoRA model where some adapters have a sine: what takes B A for the adapter is right, or is refused."""

import inspect
from typing import Any

from peft.tuners.lora import LoraModel

from skipless.adapters.config import SineLoraConfig, without_sine
from skipless.adapters.layer import SineLinear
from skipless.errors import InputError

_SVD = LoraModel._svd_generalized_task_arithmetic_weighted_adapter
_SCALES_TWICE = "target.scaling[adapter]" in inspect.getsource(_SVD)


class SineLoraModel(LoraModel):
    """A LoRA model gets this class when an adapter gets a sine; it is never constructed."""

    def add_weighted_adapter(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str = "svd",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Combine adapters into a new one, of plain LoRA, by an SVD of what they add to weights.

        Args:
            adapters: names.
            weights: of each.
            adapter_name: the new one's.
            combination_type: those that end in `svd`. Others combine A and B, which says nothing of their sine.
            args: PEFT's.
            kwargs: PEFT's.

        Raises:
            InputError: for another combination where one of the adapters has a sine, or for a single one of these,
                which PEFT combines linearly.
        """
        sines = [name for name in adapters if isinstance(self.peft_config.get(name), SineLoraConfig)]
        if sines and (not combination_type.endswith("svd") or len(adapters) == 1):
            raise InputError(
                f"combination_type={combination_type!r} of {adapters} combines A and B, and {sines[0]!r} has a sine: "
                "give one that ends in 'svd' and two adapters or more, or merge them into the base"
            )
        first = self.peft_config.get(adapters[0])
        if isinstance(first, SineLoraConfig):
            self.peft_config[adapters[0]] = without_sine(first)  # the new adapter's is made from it
        try:
            super().add_weighted_adapter(adapters, weights, adapter_name, combination_type, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        finally:
            if first is not None:
                self.peft_config[adapters[0]] = first

    def _svd_generalized_task_arithmetic_weighted_adapter(
        self, combination_type: Any, adapters: Any, weights: Any, new_rank: Any, target: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """What PEFT does; older ones multiply by alpha / r what has it already, which is undone for sines."""
        if _SCALES_TWICE and isinstance(target, SineLinear) and any(name in target.lora_sine for name in adapters):
            weights = [weight / target.scaling.get(name, 1.0) for name, weight in zip(adapters, weights, strict=True)]
        return super()._svd_generalized_task_arithmetic_weighted_adapter(
            combination_type, adapters, weights, new_rank, target, *args, **kwargs
        )

    def subtract_mutated_init(self, output_state_dict: Any, adapter_name: str, kwargs: Any = None) -> Any:
        """Refuse what writes the difference of two adapters as one: it is not one of sines.

        Raises:
            InputError: if an adapter has a sine.
        """
        if any(isinstance(config, SineLoraConfig) for config in self.peft_config.values()):
            raise InputError(
                "path_initial_model_for_weight_conversion: the difference of two sines is no adapter; save without it"
            )
        return super().subtract_mutated_init(output_state_dict, adapter_name, kwargs)

    def _check_merge_allowed(self) -> None:
        """Refuse before the first layer is merged, not after some."""
        super()._check_merge_allowed()
        for layer in self.model.modules():
            if isinstance(layer, SineLinear):
                layer.check_shared(layer.active_adapters)
