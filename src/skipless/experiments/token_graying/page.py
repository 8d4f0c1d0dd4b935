"""The page of this room."""

import torch

from skipless.report.pages.markdown import markdown_html
from skipless.report.pages.page import Page
from skipless.training.run_folder.provenance import provenance


def graying_page(scale: str, markdown: str, *, images: int, seed: int, command: str) -> Page:
    """What the page shows.

    Args:
        scale: at which it was measured.
        markdown: the table.
        images: that it was measured at.
        seed: of the weights.
        command: what makes it again.
    """
    return Page(
        title=f"Token Graying, at scale {scale}",
        description="How Token Graying conditions the tokens that enter the first block of a residual vision "
        "transformer: the smaller its epsilon, the smaller their condition number.",
        ours=f"scale {scale}, at initialisation, {images} images, seed {seed}",
        paper="ViT-B on ImageNet-1k, trained (Always Skip Attention, arXiv 2505.01996)",
        numbers=markdown_html(markdown),
        differences=[
            "The sibling paper trains ViT-B and states its accuracy beside the condition number; ours measures an "
            "untrained model, and trains none."
        ],
        notes=[
            f"One model of seed {seed}: n = 1. The spread is over images, not over models.",
            "The paper does not say at which epsilon its condition number is, nor which logarithm it takes.",
        ],
        made=provenance(torch.device("cpu")),
        command=command,
        files={"token-graying.md": "the table as Markdown", "token-graying.json": "the values of every image"},
    )
