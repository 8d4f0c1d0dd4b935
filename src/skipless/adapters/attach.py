"""sine_: an adapter of PEFT's LoRA becomes a sine; what cannot be one is refused with its name."""

from typing import Any, TypeVar

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel, layer as peft_layer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from skipless.adapters.config import SineLoraConfig, with_sine
from skipless.adapters.layer import SineLinear, SineVariant, attach, detach
from skipless.adapters.tuner import SineLoraModel
from skipless.errors import InputError, did_you_mean

# Starts of A and B that leave the base's weight alone. The others take (alpha / r) B A out of it, which the sine would
# not put back.
_STARTS: tuple[Any, ...] = (True, False, "gaussian", "eva", "orthogonal")
_Model = TypeVar("_Model", bound=nn.Module)


def sine_(model: _Model, frequency: float = 200.0, scaling: float | None = None, adapter: str | None = None) -> _Model:
    """Have LoRA adapters be sine-activated, in place: delta W = (alpha / r) sin(omega B A) / g (arXiv 2403.19243).

    Call it right after `get_peft_model`, before training. All that PEFT does with the model goes on, and is right for
    the sine or is refused: several adapters, batches of several, `disable_adapter`, merging, saving. Merged weights are
    put back to the bit. A training step keeps no more in memory than LoRA's; the weight's change, o x i, is there for
    one layer at a time.

    While |omega B A| << 1 the adapter is LoRA at alpha' = alpha omega / g; `sine_report` measures it.

    Args:
        model: a `PeftModel`, or what `inject_adapter_in_model` returns.
        frequency: omega. The paper gives no rule; its best value differs by task. The authors use 200.
        scaling: g, by which the sine is divided; by default the square root of each layer's inputs, as the authors do.
        adapter: its name; by default those that are active.

    Raises:
        InputError: if the model has no such adapter; if it is not plain LoRA (DoRA and other variants), has layers
            other than `nn.Linear` and `Conv1D` (embeddings, convolutions, quantised weights), starts by changing the
            base's weights (PiSSA and others), or is trained already; for a frequency or a scaling not above 0.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> from torch import nn
        >>> base = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))
        >>> model = get_peft_model(base, LoraConfig(r=2, target_modules=["0", "2"]))
        >>> model = sine_(model, frequency=200.0)
        >>> model.peft_config["default"].sine_frequency
        200.0
    """
    names = chosen(model, adapter)
    configs: Any = getattr(model, "peft_config")  # noqa: B009
    for name in names:
        check_config(configs[name])
        _check_untrained(layers_of(model, name), name, configs[name])
    found = {name: with_sine(configs[name], frequency, scaling) for name in names}
    check_arrow({**configs, **found})
    guard(getattr(model, "base_model", None))
    for name, config in found.items():
        configs[name] = config
        _attach_all(model, name, config)
    return model


def after_injection(tuner: Any, model: nn.Module, adapter: str) -> None:
    """Give the layers of an adapter that PEFT has just made the sine that its configuration asks for, or none."""
    config = tuner.peft_config[adapter]
    if isinstance(config, SineLoraConfig):
        guard(tuner)
        _attach_all(model, adapter, config)
    else:
        for layer in model.modules():
            if isinstance(layer, SineLinear):
                detach(layer, adapter)


def chosen(model: nn.Module, adapter: str | None) -> list[str]:
    """The adapter of that name, or those that are active.

    Raises:
        InputError: if there is none.
    """
    configs: Any = getattr(model, "peft_config", None)
    if not configs:
        raise InputError(f"{type(model).__name__} has no adapter: call get_peft_model(base, LoraConfig(...)) first")
    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    active = {name for layer in layers for name in layer.active_adapters}  # transformers' models only have the layers'
    names = [name for name in configs if name in active] if adapter is None else [adapter]
    if not names:
        raise InputError(f"none of the adapters {sorted(configs)} is active in a layer: name one, adapter=...")
    for name in names:
        if name not in configs:
            raise InputError(f"no adapter {name!r}: {did_you_mean(name, configs)}there are {sorted(configs)}")
    return names


def check_config(config: Any) -> None:
    """Refuse configurations whose adapter is not plain LoRA, or that change the base's weights.

    Raises:
        InputError: names what is in the way.
    """
    if type(config) not in (LoraConfig, SineLoraConfig):
        raise InputError(f"{type(config).__name__}: the sine is for LoRA; give a LoraConfig")
    if config.use_dora:
        raise InputError("use_dora=True: DoRA's norm would be of another weight than its forward's; leave it out")
    if config.init_lora_weights not in _STARTS:
        raise InputError(
            f"init_lora_weights={config.init_lora_weights!r} takes B A out of the base's weights, and the sine does "
            f"not put it back: give one of {list(_STARTS)}"
        )
    if getattr(config, "target_parameters", None):
        raise InputError(f"target_parameters={config.target_parameters}: the sine is for linear maps; name modules")


def check_arrow(configs: Any) -> None:
    """Refuse Arrow beside a sine: its router and its experts are B A of plain LoRA.

    Raises:
        InputError: names both.
    """
    arrow = [name for name, config in configs.items() if getattr(config, "arrow_config", None)]
    sines = [name for name, config in configs.items() if isinstance(config, SineLoraConfig)]
    if arrow and sines:
        raise InputError(
            f"Arrow ({arrow[0]!r}) takes B A for its experts, and {sines[0]!r} has a sine: use one of them"
        )


def layers_of(model: nn.Module, adapter: str) -> dict[str, Any]:
    """The layers that an adapter is in, by name.

    Raises:
        InputError: if there is none.
    """
    found = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, peft_layer.LoraLayer) and (adapter in layer.lora_A or adapter in layer.lora_embedding_A)
    }
    if not found:
        raise InputError(f"adapter {adapter!r} is in no layer of the model")
    return found


def guard(tuner: Any) -> None:
    """Have PEFT's model refuse what would take B A for the adapter.

    Raises:
        InputError: if the model is of a class of somebody's own.
    """
    if type(tuner) is LoraModel:
        tuner.__class__ = SineLoraModel
    elif isinstance(tuner, LoraModel) and not isinstance(tuner, SineLoraModel):
        raise InputError(f"{type(tuner).__name__} is not PEFT's LoraModel: what it does with B A is not known")


def _attach_all(model: nn.Module, adapter: str, config: SineLoraConfig) -> None:
    layers = layers_of(model, adapter)
    _check_types(layers, adapter)
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), []).append(name)
    for name, layer in layers.items():
        weight: Any = layer.get_base_layer().weight
        others = [other for other in owners[id(weight)] if not other.startswith(f"{name}.")]
        shared = others[0].removesuffix(".base_layer") if others else ""
        attach(layer, adapter, config.sine_frequency, config.sine_scaling, shared)


def _check_untrained(layers: dict[str, Any], adapter: str, config: Any) -> None:
    """Refuse layers that have no sine, and an adapter that was trained as it is."""
    _check_types(layers, adapter)
    if config.init_lora_weights in (True, "gaussian", "eva"):
        for name, layer in layers.items():
            b = layer.lora_B[adapter].weight
            if not b.is_meta and torch.count_nonzero(b):
                raise InputError(
                    f"{name}: adapter {adapter!r} is trained already, and with a sine would be another; call sine_ "
                    "before training, or load_sine for weights that were trained with one"
                )


def _check_types(layers: dict[str, Any], adapter: str) -> None:
    for name, layer in layers.items():
        variant = layer.lora_variant.get(adapter)
        base = type(layer.get_base_layer()).__name__
        if type(layer) not in (peft_layer.Linear, SineLinear):
            raise InputError(
                f"{name}: PEFT's {type(layer).__name__} of {base} cannot have a sine: target nn.Linear and Conv1D "
                "whose weights are not quantised"
            )
        if not layer.get_base_layer().weight.is_floating_point():
            raise InputError(
                f"{name}: {base} has a weight of {layer.get_base_layer().weight.dtype}, and merging needs floats"
            )
        if variant is not None and not isinstance(variant, SineVariant):
            raise InputError(f"{name}: {type(variant).__name__} is not plain LoRA; leave its option out")
        if layer.merged and adapter in layer.merged_adapters:
            raise InputError(f"{name}: adapter {adapter!r} is merged; call unmerge_adapter first")
        if getattr(layer.get_base_layer(), "_hf_tp_plan", None) is not None:
            raise InputError(f"{name} is split over devices by tensor parallelism, which the sine does not know")
