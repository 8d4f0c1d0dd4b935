"""A trained model with a new head and an adapter, and what the adapter adds to its weights."""

import copy
import math
import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from skipless.adapters import sine_
from skipless.data import ImageData
from skipless.experiments.sine.recipe import AdaptedRecipe, AdapterSettings
from skipless.training.run_folder.checkpoint import load_tensors_, read_weights

HEAD = "head"  # timm's name of the classifier
_MAPS = r"blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)"  # every linear map in the blocks


def adapted_model(recipe: AdaptedRecipe, data: ImageData, out: Path) -> nn.Module:
    """The model of the recipe's base with a new head, and what is trained of it; all else is frozen.

    Args:
        recipe: the run's.
        data: what it is fine-tuned to, which says how many classes the head has.
        out: the run's folder, from which the base's is seen.

    Raises:
        InputError: if the base is not there, or is another model.
    """
    model = recipe.model.build(data, recipe.fit.seed)
    new = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(f"{HEAD}.")}
    base = base_of(recipe, out)
    kept = {name: tensor for name, tensor in read_weights(base).items() if name not in new}
    load_tensors_(model, {**kept, **new}, str(base))
    return with_adapter(model, recipe.adapter, recipe.fit.seed)


def base_of(recipe: AdaptedRecipe, out: Path) -> Path:
    """The folder of a recipe's base; the run's own folder need not be there yet."""
    return Path(os.path.normpath(out / recipe.base))


def with_adapter(model: nn.Module, settings: AdapterSettings, seed: int) -> nn.Module:
    """The model with what its settings train, and nothing else that could be trained.

    Args:
        model: timm's vision transformer; changed in place.
        settings: what is trained.
        seed: of A. Methods of one rank and seed thus start from one A.
    """
    if settings.method == "all weights":
        return model
    if not settings.is_adapter:
        model.requires_grad_(False)
        model.get_submodule(HEAD).requires_grad_(True)
        return model
    alpha = settings.alpha_over_rank * settings.rank
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  # an integer by PEFT's hint, and any number by its code
        target_modules=_MAPS,
        modules_to_save=[HEAD],
        use_dora=settings.method == "dora",
        alpha_pattern=_first_order(model, alpha, settings.frequency) if settings.method == "lora, alpha'" else {},
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]  # any module by its code
    return sine_(adapted, settings.frequency) if settings.method == "sine" else adapted


def linear_maps(model: nn.Module) -> dict[str, Tensor]:
    """Weights that adapters change, of a model without one, by name."""
    return {name: weight for name, weight in _weights(model).items() if name.startswith("blocks.")}


def merged(model: nn.Module) -> nn.Module:
    """A copy of the model with its adapter in its weights."""
    whole: Any = copy.deepcopy(model)
    return whole.merge_and_unload() if hasattr(whole, "merge_and_unload") else whole


def _first_order(model: nn.Module, alpha: float, frequency: float) -> Any:
    """alpha' = alpha omega / g by layer, at which LoRA is the sine to first order; g = sqrt(n)."""
    return {name: alpha * frequency / math.sqrt(weight.shape[1]) for name, weight in linear_maps(model).items()}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: module.weight.detach() for name, module in model.named_modules() if isinstance(module, nn.Linear)}
