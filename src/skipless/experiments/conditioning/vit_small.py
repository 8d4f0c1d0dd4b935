"""ViT-S before training, measured in minutes: the scale `vit-s`."""

import re
from pathlib import Path
from typing import Any

import torch

from skipless.choices import TokensAt as At
from skipless.conditioning.measurement.measure import measure_conditioning
from skipless.conditioning.measurement.tracking import evenly_spaced_blocks, network_conditioning_by_rows
from skipless.experiments.conditioning.kept import cached
from skipless.experiments.conditioning.report import Moment
from skipless.init import SkiplessInit
from skipless.models import create_model

VIT_S = "vit_small_patch16_224"
DINO = SkiplessInit.preset("dino_vit_small")
# Table 6 must have used a part of K's 75,648 rows, or a way that is not stated: 8 tokens, and all. The theory (A.4.1)
# supposes N(0, I) tokens in every block; those of the forward pass are what the model has.
VIT_S_TOKENS: tuple[tuple[int | None, At], ...] = ((8, "gaussian"), (8, "normed"), (None, "normed"))
VIT_S_STEPS = 600  # of Lanczos, half a minute of one core a block; resolves kappa up to about 1,800
# One image of N(0, 1) pixels: patch embeddings of it are the isotropic tokens that A.4.1 supposes.
VIT_S_MODELS: dict[str, dict[str, Any]] = {
    "skip": {"skip": True},
    "skipless": {},
    "skipless + init": {"init": DINO},
    "skipless + init, logits compensated": {"init": SkiplessInit(**{**vars(DINO), "logit_scale": "compensated"})},
}


def measured_vit_small(what: str, out: Path, seed: int) -> dict[str, tuple[Moment, ...]]:
    """The measurements of a table by model and, for Table 6, by choice of tokens."""
    pixels = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    found = {}
    every: tuple[tuple[int | None, At], ...] = ((None, "normed"),)
    readings = every if what == "table5" else VIT_S_TOKENS
    for row, (tokens, at) in ((row, reading) for reading in readings for row in VIT_S_MODELS):

        def measure(row: str = row, tokens: int | None = tokens, at: At = at) -> Any:
            model = create_model(VIT_S, seed=seed, **VIT_S_MODELS[row])
            if what == "table5":
                empty = {"blocks": [], "images": len(pixels), "dtype": "float32"}
                return {**empty, "networks": network_conditioning_by_rows(model, pixels, double=False)}
            return measure_conditioning(
                model,
                pixels[:1],
                blocks=evenly_spaced_blocks(12),
                parts=("attn", "maps", "tokens"),
                forms="own",
                at=at,
                tokens=tokens,
                inverse_rows=4096,  # of 8 tokens
                max_iterations=VIT_S_STEPS,
                seed=seed,
                progress=lambda line: print(f"{row}: {line}"),
            ).as_json()

        kind = "N(0, I) tokens" if at == "gaussian" else "tokens"
        name = row if what == "table5" else f"{row}: {tokens or 197} {kind}"
        file = out / f"vit-s-seed{seed}" / f"{'-'.join([what, *words_of(name)])}.json"
        asked = {
            "model": f"{VIT_S} {VIT_S_MODELS[row]}",
            "seed": seed,
            "tokens": tokens,
            "at": at,
            "steps": VIT_S_STEPS,
        }
        found[name] = (Moment(0.0, cached(file, asked, measure)),)
    return found


def words_of(text: str) -> list[str]:
    """Its words, for the name of a file.

    Example:
        >>> words_of("skip: 8 tokens")
        ['skip', '8', 'tokens']
    """
    return re.findall(r"[0-9A-Za-z]+", text)
