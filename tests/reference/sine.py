"""Naive float64 twins of sine-activated low-rank adapters, from the formulas alone; small models that have some."""

import math
from typing import Any

import torch
from torch import Tensor, nn

# What PEFT and the libraries below it say of their own.
PEFT_WARNS = (
    r"ignore:::peft\.",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:`torch.jit:FutureWarning",
)


def delta(b: Tensor, a: Tensor, frequency: float, scaling: float | None, alpha: float, rank: float) -> Tensor:
    """(alpha / r) sin(omega B A) / g, (out, in), with g = sqrt(in) by default."""
    b, a = b.detach().double().cpu(), a.detach().double().cpu()
    g = math.sqrt(a.shape[1]) if scaling is None else scaling
    found = torch.zeros(b.shape[0], a.shape[1], dtype=torch.double)
    for i in range(b.shape[0]):
        for j in range(a.shape[1]):
            found[i, j] = math.sin(frequency * sum(float(p) * float(q) for p, q in zip(b[i], a[:, j], strict=True))) / g
    return alpha / rank * found


def output(x: Tensor, weight: Tensor, bias: Tensor | None, change: Tensor) -> Tensor:
    """W_0 x + b + delta x."""
    x = x.detach().double().cpu()
    y = x @ weight.detach().double().cpu().mT + x @ change.mT
    return y if bias is None else y + bias.detach().double().cpu()


def lloyd_cost(values: Tensor, codebook: Tensor) -> float:
    """The mean squared error of each value's nearest entry."""
    wide, entries = values.flatten().double(), codebook.double()
    return float(torch.stack([(wide - entry).square() for entry in entries]).min(0).values.mean())


def hide_torchao() -> bool:
    """Have an old PEFT not look for torchao: it asks today's for names that are gone, and makes no layer at all."""
    import peft
    from peft.tuners.lora import torchao as peft_torchao

    old = tuple(map(int, peft.__version__.split(".")[:2])) < (0, 20)
    if old:
        peft_torchao.is_torchao_available = lambda: False
    return old


def mlp(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two linear maps: in 12, hidden 10, out 6."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 10), nn.GELU(), nn.Linear(10, 6)).to(dtype)


def adapted(seed: int = 0, frequency: float = 30.0, scaling: float | None = None, **options: Any) -> Any:
    """A PeftModel of `mlp` with a sine adapter `default` whose A and B are drawn."""
    from peft import LoraConfig, get_peft_model

    from skipless.adapters import sine_

    dtype = options.pop("dtype", torch.float32)
    config = {"r": 3, "lora_alpha": 7, "target_modules": ["0", "2"], "init_lora_weights": False, **options}
    model = get_peft_model(mlp(seed, dtype), LoraConfig(**config))
    return draw(sine_(model, frequency, scaling))


def draw(model: Any, seed: int = 1, size: float = 0.3) -> Any:
    """A and B of all adapters, drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            parameter.data.copy_(size * torch.randn(parameter.shape, generator=generator))
    return model


def layers(model: Any) -> dict[str, Any]:
    """PEFT's LoRA layers by name."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def layer_delta(layer: Any, adapter: str = "default", plain: bool = False) -> Tensor:
    """What an adapter of a layer adds to its weight, (out, in), by the formulas alone."""
    b, a = layer.lora_B[adapter].weight, layer.lora_A[adapter].weight
    alpha, rank = layer.lora_alpha[adapter], layer.r[adapter]
    divisor = math.sqrt(rank) if layer.use_rslora[adapter] else rank
    if plain:
        return alpha / divisor * (b.detach().double() @ a.detach().double())
    sine = layer.lora_sine[adapter]
    return delta(b, a, sine.frequency, sine.scaling, alpha, divisor)


def mlp_output(model: Any, x: Tensor, changes: list[Tensor]) -> Tensor:
    """What `mlp` with these changes of its weights gives, in float64."""
    first, second = layers(model).values()
    hidden = output(x, first.get_base_layer().weight, first.get_base_layer().bias, changes[0])
    return output(nn.functional.gelu(hidden), second.get_base_layer().weight, second.get_base_layer().bias, changes[1])
