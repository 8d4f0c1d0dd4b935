"""The page of `skipless measure`: condition numbers of one model, block by block."""

from collections.abc import Mapping, Sequence
from typing import Any

from skipless.display import Table
from skipless.report.pages.page import Page

_DESCRIPTION = (
    "The condition numbers of a vision transformer's Jacobians, block by block: K of the attention alone, K + I with "
    "its skip connection. The larger one is, the more unevenly a change of the tokens passes through the block."
)


def measurement_page(
    values: Mapping[str, Any],
    tables: Sequence[Table],
    *,
    made: Mapping[str, Any],
    command: str,
    picture: bytes,
    settings: Mapping[str, str],
) -> Page:
    """What the page shows.

    Args:
        values: what `conditioning.json` holds.
        tables: of the report.
        made: commit, versions and hardware, as `provenance` returns them.
        command: what makes it again.
        picture: kappa by depth, a PNG.
        settings: every setting in words.
    """
    state = "trained" if values["trained"] else "not trained"
    return Page(
        title=f"Conditioning of {values['model']}",
        description=_DESCRIPTION,
        ours=f"{values['model']}, {state}; {values['data']}",
        paper="ViT-S, DINO on ImageNet-1k, 300 epochs, blocks 0, 4, 7 and 11 (Tables 5 and 6)",
        numbers="\n".join(table.html() for table in tables),
        figures={"Condition numbers by block; an open triangle is a lower bound": picture},
        notes=notes(values),
        made=made,
        command=command,
        settings=settings,
        files={"conditioning.json": "all that was measured, for programs", "conditioning.png": "the picture"},
    )


def notes(values: Mapping[str, Any]) -> Sequence[str]:
    """How far to trust the numbers."""
    images = values["images"]
    at = f"the median of {images} images" if images > 1 else "one image"
    said = [
        f"One model: n = 1, at {at}. Small differences mean nothing; other seeds and images say how much they vary.",
        "“≥” is the most that the precision proves of a matrix that is nearly singular; it may be larger. A rank says "
        "how singular it is.",
        "The paper does not say at which images it measures, nor how it handles the many rows of K.",
    ]
    if not values["trained"]:
        said.insert(1, "These weights have seen no data.")
    return said
