"""Token Graying's effect on kappa of the tokens that enter the first block (Always Skip Attention)."""

from pathlib import Path

import torch

from skipless.conditioning.measurement.block_inputs import block_inputs
from skipless.conditioning.measurement.tracking import first_images
from skipless.data import load_images
from skipless.errors import InputError
from skipless.experiments.token_graying.page import graying_page
from skipless.experiments.token_graying.paper import EPS, PAPER_LOG_KAPPA, PAPER_TOP1
from skipless.experiments.token_graying.scales import GrayingScale
from skipless.models import create_model
from skipless.models.token_graying import input_kappas
from skipless.nn import TokenGraying
from skipless.registry import recipe_named
from skipless.report.pages.write_page import write_report

VIT_S = "vit_small_patch16_224"
IMAGES = 64


def reproduce_token_graying(
    scale: GrayingScale, out: Path, *, seed: int = 0, data: str | None = None, command: str = ""
) -> dict[str, Path]:
    """ln kappa of the input tokens by eps, for both variants, beside the sibling paper's 6.72 -> 5.29.

    Residual models at initialisation: `digits`, `fashion` at validation images, `vit-s` at images of N(0, 1) pixels.

    Raises:
        InputError: for other scales.
    """
    if scale == "vit-s":
        model = create_model(VIT_S, skip=True, seed=seed)
        pixels = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    elif scale in ("digits", "fashion"):
        recipe = recipe_named("table1")(scale, "skip", "soap", seed=seed, data=data)
        images = load_images(recipe.data)
        recipe.model.check_covers(images.image_size, recipe.data.data)
        model, pixels = recipe.model.build(images, seed), first_images(images, IMAGES)
    else:
        raise InputError(f"token graying is measured at scales digits, fashion and vit-s, not at {scale!r}")
    entering = block_inputs(model, pixels, [0])[0].attn_raw
    methods = {"SVD": [TokenGraying(eps, "svd") for eps in EPS], "DCT": [TokenGraying(eps, "dct") for eps in EPS]}
    found = {name: [kappa.log() for kappa in input_kappas(entering, grayings)] for name, grayings in methods.items()}
    lines = [
        "| eps | paper: top-1, ViT-B, SVD | ours: ln kappa(X_0), SVD | DCT |",
        "|--:|--:|--:|--:|",
    ]
    for index, eps in enumerate((None, *EPS)):
        cells = [f"{found[name][index].mean():.2f} ± {found[name][index].std():.2f}" for name in ("SVD", "DCT")]
        lines.append(f"| {'none' if eps is None else eps} | {PAPER_TOP1[eps]} | {' | '.join(cells)} |")
    text = (
        f"ln kappa of the tokens that enter the first block, mean ± standard deviation over {len(pixels)} images, "
        f"scale {scale} at initialisation, seed {seed}. The paper: log kappa {PAPER_LOG_KAPPA[0]} -> "
        f"{PAPER_LOG_KAPPA[1]} for ViT-B; neither the eps nor the logarithm's base is stated."
    )
    values = {name: [kappa.tolist() for kappa in kappas] for name, kappas in found.items()}
    files = {"token-graying.md": "\n".join([*lines, "", text, ""]), "token-graying.json": values}
    page = graying_page(scale, files["token-graying.md"], images=len(pixels), seed=seed, command=command)
    return write_report(out, "token-graying", files, page)
