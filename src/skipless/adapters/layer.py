"""A LoRA layer of PEFT's in which some adapters have a sine: what it adds, how it is merged, how it is saved."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from peft.tuners.lora import layer as peft_layer
from peft.utils.other import transpose
from torch import Tensor, nn

from skipless.adapters.packing import is_packed, pack, unpack
from skipless.errors import InputError
from skipless.nn.sine import sine_linear, sine_weight


class Sine(nn.Module):
    """The constants of one adapter in one layer.

    They are saved beside the weights, as the bits of two float64 numbers: integers keep their value when a model is
    cast. `codebooks` has, for quantised weights, the values that A and B are made of.
    """

    constants: Int[Tensor, "2"]

    def __init__(self, frequency: float, scaling: float) -> None:
        super().__init__()
        self.frequency, self.scaling = frequency, scaling
        bits = torch.tensor([frequency, scaling], dtype=torch.float64).view(torch.int64)
        self.register_buffer("constants", bits)
        self.register_buffer("codebook_a", None, persistent=False)
        self.register_buffer("codebook_b", None, persistent=False)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"frequency={self.frequency:g}, scaling={self.scaling:.4g}"


class SineVariant(peft_layer.LoraVariant):
    """What PEFT's layer asks in the place of its own B A."""

    @staticmethod
    def init(module: Any, adapter_name: str, **kwargs: Any) -> None:
        """Nothing: the layer has all that it needs."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **kwargs: Any) -> Tensor:
        """The base's result, plus the adapter's."""
        return result + module.sine_output(active_adapter, x)

    @staticmethod
    def merge_safe(module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        """A new weight with the adapter in it: added in float32, rounded once."""
        return (orig_weight + module.sine_delta(active_adapter)).to(orig_weight.dtype)

    @staticmethod
    def merge_unsafe(module: Any, active_adapter: str, orig_weight: Tensor) -> None:
        """The adapter is put into the weight."""
        orig_weight.data += module.sine_delta(active_adapter)

    @staticmethod
    def unmerge(module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        """A new weight without the adapter, up to rounding."""
        return (orig_weight - module.sine_delta(active_adapter)).to(orig_weight.dtype)


class SineLinear(peft_layer.Linear):
    """PEFT's LoRA of a linear map, in which adapters named in `lora_sine` are sin(omega B A) / g; others are as before.

    Layers get this class by `attach`; it is never constructed.
    """

    other_param_names: tuple[str, ...] = (*peft_layer.Linear.other_param_names, "lora_sine")
    lora_A: Any
    lora_B: Any
    lora_sine: Any
    shared_with = ""  # another module of the model that has the same weight
    _merged_as: tuple[int, int] | None = None

    def sine_delta(self, adapter: str) -> Float[Tensor, "p q"]:
        """(alpha / r) sin(omega B A) / g in float32 or wider, laid out as the base's weight."""
        sine = self.lora_sine[adapter]
        with torch.no_grad():
            weight = sine_weight(*self._factors(adapter), sine.frequency, sine.scaling)
            return transpose(weight, self.fan_in_fan_out) * self.scaling[adapter]

    def sine_output(self, adapter: str, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        """What the adapter adds to the layer's output."""
        sine = self.lora_sine[adapter]
        found = sine_linear(self.lora_dropout[adapter](x), *self._factors(adapter), sine.frequency, sine.scaling)
        bias = self.lora_B[adapter].bias
        return (found if bias is None else found + bias) * self.scaling[adapter]

    def get_delta_weight(self, adapter: str) -> Tensor:
        """What merging adds to the base's weight, in the adapter's dtype.

        PEFT's own conversions start from it, so that they are of what the adapter does.
        """
        if adapter not in self.lora_sine:
            return super().get_delta_weight(adapter)
        return self.sine_delta(adapter).to(self.lora_B[adapter].weight.dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Merge as PEFT does. The weight as it was is kept, so that unmerging is exact: memory of a weight, until then.

        Raises:
            InputError: if another module has the same weight, as tied embeddings do: it would change, too.
        """
        self.check_shared(adapter_names or self.active_adapters)
        base: Any = self.get_base_layer()
        if not self.merged:
            self._merged_as = None
            for name, tensor in self._copies().items():
                self.register_buffer(f"unmerged_{name}", tensor, persistent=False)
        try:
            super().merge(safe_merge=safe_merge, adapter_names=adapter_names)
        finally:  # a safe merge may stop at the second of two adapters
            if self.merged:
                self._merged_as = _state_of(base.weight)
            else:
                self._take("unmerged_weight")
                self._take("unmerged_bias")

    def check_shared(self, adapters: Iterable[str]) -> None:
        """Refuse to merge a sine into a weight that another module has, too.

        Raises:
            InputError: names the other module.
        """
        sines = [name for name in adapters if name in self.lora_sine]
        if sines and self.shared_with:
            raise InputError(
                f"a layer has the same weight as {self.shared_with}, which merging {sines[0]!r} would change, too: "
                "untie them first (tie_word_embeddings=False), or leave the adapter as it is"
            )

    def unmerge(self) -> None:
        """Take all merged adapters out: the weight is what it was, to the bit.

        If somebody changed the merged weight, it is not put back; the adapters are then subtracted, as PEFT does.
        """
        kept = {name: self._take(f"unmerged_{name}") for name in ("weight", "bias")}
        base: Any = self.get_base_layer()
        if kept["weight"] is None or _is_changed(base.weight, self._merged_as):
            super().unmerge()
            return
        for name, tensor in kept.items():
            if tensor is not None:
                getattr(base, name).data.copy_(tensor)
        self.merged_adapters.clear()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Whether PEFT's `convert_to_lora` gives the nearest LoRA: it leaves the bias of B out."""
        if adapter_name not in self.lora_sine:
            return super().supports_lora_conversion(adapter_name)
        return not self.lora_bias[adapter_name]

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter, and that it had a sine: another of that name is plain."""
        super().delete_adapter(adapter_name)
        self.lora_variant.pop(adapter_name, None)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "forward" and type(getattr(value, "__self__", None)).__module__.startswith("peft.tuners.xlora"):
            raise InputError(
                "X-LoRA mixes B A of plain LoRA, and would leave the sine out: load the adapters without it"
            )
        super().__setattr__(name, value)

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """The state, in which B of a sine adapter has a leading 1 in its shape, or A and B are packed.

        No loader that takes them for LoRA's finds the shapes that it needs: it fails, whatever it thinks of names.
        """
        state = super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        for adapter, sine in self.lora_sine.items():
            for letter in ("A", "B"):
                key = f"{prefix}lora_{letter}.{adapter}.weight"
                codebook = getattr(sine, f"codebook_{letter.lower()}")
                if key not in state:
                    continue
                if codebook is not None:
                    state[key] = pack(state[key], codebook, key)
                elif letter == "B":
                    state[key] = state[key][None]
        return state

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        for adapter, sine in self.lora_sine.items():
            _check_constants(sine, state_dict.get(f"{prefix}lora_sine.{adapter}.constants"), f"{prefix}{adapter}")
            for letter, factor in (("A", self.lora_A[adapter]), ("B", self.lora_B[adapter])):
                key = f"{prefix}lora_{letter}.{adapter}.weight"
                if key in state_dict:
                    state_dict[key], codebook = _opened(state_dict[key], factor.weight, letter, key)
                    setattr(sine, f"codebook_{letter.lower()}", codebook)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _take(self, name: str) -> Tensor | None:
        """A buffer, which is there no more."""
        found = getattr(self, name, None)
        if found is not None:
            delattr(self, name)
        return found

    def _factors(self, adapter: str) -> tuple[Tensor, Tensor]:
        return self.lora_B[adapter].weight, self.lora_A[adapter].weight

    def _copies(self) -> dict[str, Tensor]:
        base: Any = self.get_base_layer()
        found = {"weight": base.weight, "bias": base.bias if any(self.lora_bias.values()) else None}
        return {name: tensor.detach().clone() for name, tensor in found.items() if tensor is not None}


def attach(layer: Any, adapter: str, frequency: float, scaling: float | None, shared_with: str = "") -> None:
    """Have an adapter of a layer be a sine, in place; the layer gets another class, its parameters stay.

    Args:
        layer: of PEFT's.
        adapter: its name.
        frequency: omega.
        scaling: g; by default the square root of the layer's inputs.
        shared_with: another module of the model that has the base's weight, if there is one.
    """
    if type(layer) is not SineLinear:
        layer.__class__ = SineLinear
        layer.lora_sine = nn.ModuleDict()
    used: Any = layer
    sine = Sine(frequency, math.sqrt(used.in_features) if scaling is None else scaling)
    device = used.get_base_layer().weight.device
    used.lora_sine[adapter] = sine if device.type == "meta" else sine.to(device)
    used.lora_variant[adapter] = SineVariant()
    used.shared_with = shared_with


def detach(layer: SineLinear, adapter: str) -> None:
    """Have an adapter of a layer be a plain one, in place."""
    if adapter in layer.lora_sine:
        del layer.lora_sine[adapter]
        layer.lora_variant.pop(adapter, None)


def _check_constants(sine: Sine, found: Tensor | None, name: str) -> None:
    """Refuse weights of another frequency or scaling."""
    if found is None or found.is_meta:
        return
    frequency, scaling = found.cpu().view(torch.float64).tolist()
    if (frequency, scaling) == (sine.frequency, sine.scaling):
        return
    raise InputError(
        f"{name}: the weights are of frequency={frequency:g}, scaling={scaling:g}, and the adapter has "
        f"{sine.extra_repr()}: load them into one made with theirs, by load_sine or sine_"
    )


def _opened(saved: Tensor, like: Tensor, letter: str, key: str) -> tuple[Tensor, Tensor | None]:
    """A factor as it was before it was saved, and its codebook if it had one."""
    if is_packed(saved):
        return unpack(saved, tuple(like.shape), key)
    if letter == "B" and saved.ndim == like.ndim:
        raise InputError(
            f"{key}: these are weights of plain LoRA, and the adapter has a sine: load them into a plain one"
        )
    return (saved[0] if letter == "B" and saved.ndim == like.ndim + 1 else saved), None


def _state_of(weight: Tensor) -> tuple[int, int] | None:
    """What changes when a parameter is written to by anybody but us."""
    return None if weight.is_inference() else (id(weight), weight._version)


def _is_changed(weight: Tensor, before: tuple[int, int] | None) -> bool:
    now = _state_of(weight)
    return now is not None and before is not None and now[0] == before[0] and now[1] != before[1]
