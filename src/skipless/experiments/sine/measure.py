"""What a fine-tuned run scores at few bits, what its adapter stores, and which rank its update has."""

import copy
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from skipless.adapters import quantise_, sine_report
from skipless.adapters.packing import packed_bytes
from skipless.adapters.report import ranks_of
from skipless.errors import InputError
from skipless.experiments.sine.adapted import HEAD, adapted_model, base_of, linear_maps, merged
from skipless.experiments.sine.measured import FILE, FULL_BITS, AtBits, asked_bits, measured
from skipless.experiments.sine.recipe import AdaptedRecipe
from skipless.recipes import evaluate_top1, read_recipe
from skipless.training import load_weights
from skipless.training.run_folder.atomic import write_json
from skipless.training.run_folder.checkpoint import read_weights


def measure_run(folder: Path, bits: Sequence[int]) -> None:
    """Measure a finished run at each number of bits, and keep it in the run's folder; what is kept is not done again.

    Args:
        folder: of the run.
        bits: of entries of A and B; 32 is as trained, which is all that a run without an adapter has.
    """
    kept = {one.bits: one for one in measured(folder)}
    recipe = read_recipe(folder)
    if not isinstance(recipe, AdaptedRecipe):
        raise InputError(f"{str(folder)!r} is no run of `skipless reproduce sine`")
    missing = [one for one in asked_bits(recipe, bits) if one not in kept]
    if not missing:
        return
    data = recipe.load().labelled
    assert data is not None
    model = adapted_model(recipe, data, folder)
    base = {name: read_weights(base_of(recipe, folder))[f"{name}.weight"] for name in linear_maps(merged(model))}
    load_weights(model, folder)
    model.eval()
    for count in missing:
        rounded = copy.deepcopy(model)
        if count != FULL_BITS:
            quantise_(rounded, count)
        top1 = evaluate_top1(rounded, data, recipe.fit)["top1"]
        kept[count] = _at_bits(rounded, recipe, base, count, top1)
    write_json(folder / FILE, [asdict(kept[count]) for count in sorted(kept, reverse=True)])


@torch.no_grad()
def _at_bits(model: nn.Module, recipe: AdaptedRecipe, base: dict[str, torch.Tensor], bits: int, top1: float) -> AtBits:
    parameters, stored = _stored(model, recipe, bits)
    sizes, stable, effective = zip(*_updates(model, base), strict=True)
    layers = sine_report(model).layers if recipe.adapter.method == "sine" else ()
    return AtBits(
        bits=bits,
        top1=top1,
        parameters=parameters,
        stored_bytes=stored,
        size=statistics.fmean(sizes),
        stable_rank=statistics.fmean(stable),
        effective_rank=statistics.fmean(effective),
        phase_std=statistics.fmean(layer.phase_std for layer in layers) if layers else None,
        departure=statistics.fmean(layer.departure for layer in layers) if layers else None,
    )


def _updates(model: nn.Module, base: dict[str, torch.Tensor]) -> list[tuple[float, float, float]]:
    """Relative size, stable and effective rank of what was added to each weight."""
    now = linear_maps(merged(model))
    found = []
    for name, before in base.items():
        added = now[name].double() - before.double()
        found.append((float(added.norm() / before.norm()), *ranks_of(torch.linalg.svdvals(added))))
    return found


def _stored(model: nn.Module, recipe: AdaptedRecipe, bits: int) -> tuple[int, int]:
    """Numbers that were trained beside the head's, and the bytes that they take."""
    method = recipe.adapter.method
    if method == "head":
        return 0, 0
    own = {
        name: tensor
        for name, tensor in model.named_parameters()
        if (".lora_" in name if recipe.adapter.is_adapter else not name.startswith(f"{HEAD}."))
    }
    stored = 0
    for name, tensor in own.items():
        is_factor = ".lora_A." in name or ".lora_B." in name
        stored += packed_bytes(tensor.numel(), bits) if is_factor and bits != FULL_BITS else 4 * tensor.numel()
    return sum(tensor.numel() for tensor in own.values()), stored
