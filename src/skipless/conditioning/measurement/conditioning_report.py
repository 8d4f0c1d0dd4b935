"""ConditioningReport: the result of `measure_conditioning` as a record, as JSON and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skipless.choices import TokensAt
from skipless.conditioning.measurement.block_inputs import TokenDistribution
from skipless.conditioning.measurement.network_jacobian import NetworkConditioning
from skipless.conditioning.spectra.estimates import Estimate, Spectrum

TOKENS_AT_TEXT: dict[TokensAt, str] = {
    "normed": "tokens after the norm",
    "raw": "tokens before the norm",
    "gaussian": "N(0, I) tokens",
}
"""Names of the `at` choices in tables."""


@dataclass(frozen=True)
class ImageSpectra:
    """The spectra of one operator, one for each image.

    Attributes:
        spectra: in the order of the images.
    """

    spectra: tuple[Spectrum, ...]

    @property
    def median(self) -> Spectrum:
        """The spectrum of the image with the median kappa; with an even number of images, the upper median."""
        ordered = sorted(self.spectra, key=lambda found: found.kappa.value)
        return ordered[len(ordered) // 2]

    @property
    def kappa(self) -> Estimate:
        """kappa at the median image."""
        return self.median.kappa

    @property
    def kappa_gram(self) -> Estimate:
        """kappa of the Gram matrix at the median image."""
        return self.median.kappa_gram

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest kappa over the images; the largest may be a lower bound."""
        values = [found.kappa.value for found in self.spectra]
        return min(values), max(values)

    def as_json(self) -> dict[str, Any]:
        """Plain values; "rank" and "size" (the full rank) are those of the median image."""
        return {
            "kappa": self.kappa.as_json(),
            "kappa_gram": self.kappa_gram.as_json(),
            "range": list(self.range),
            "rank": self.median.rank,
            "size": min(self.median.shape),
            "spectra": [found.as_json() for found in self.spectra],
        }


@dataclass(frozen=True)
class HeadMaps:
    """One head's attention maps.

    Attributes:
        diagonal: mean A_ii over tokens and images.
        maps: the spectrum of A for each image.
    """

    diagonal: float
    maps: ImageSpectra

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"diagonal": self.diagonal, **self.maps.as_json()}


@dataclass(frozen=True)
class BlockConditioning:
    """The measurements of one block.

    Attributes:
        index: position of the block in the model, from 0.
        name: module path of the block.
        skips: the sub-blocks that have a skip connection.
        attn: spectra of K_l under `"skipless"` and of K_l + I under `"skip"`, as far as they were measured.
        mlp: spectra of K^_l in the same form.
        heads: attention maps of each head; None if they were not asked for, or the module computes something else.
        tokens: distribution of the tokens after the attention's norm and after the MLP's norm.
    """

    index: int
    name: str
    skips: tuple[str, ...]
    attn: dict[str, ImageSpectra]
    mlp: dict[str, ImageSpectra]
    heads: tuple[HeadMaps, ...] | None
    tokens: tuple[TokenDistribution, ...]

    @property
    def paper(self) -> ImageSpectra | None:
        """The operator of Table 6 for this block: K_l + I if the attention has its skip, K_l if it has none."""
        return self.attn.get("skip" if "attn" in self.skips else "skipless")

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "index": self.index,
            "name": self.name,
            "skips": list(self.skips),
            "attn": {form: found.as_json() for form, found in self.attn.items()},
            "mlp": {form: found.as_json() for form, found in self.mlp.items()},
            "kappa_gram": self.paper.kappa_gram.as_json() if self.paper is not None else None,
            "heads": None if self.heads is None else [head.as_json() for head in self.heads],
            "tokens": [found.as_json() for found in self.tokens],
        }


@dataclass(frozen=True)
class ConditioningReport:
    """Tables 5 and 6 for one model. `str` gives a table with one line for each block.

    Attributes:
        blocks: the measured blocks, first to last.
        network: kappa(J J^T) of Table 5; None if it was not asked for.
        at: the tokens at which K_l and K^_l were taken: after the norm, before it, or Gaussian.
        tokens: number of tokens that the sub-blocks received; None for all.
        images: number of images.
        dtype: dtype of the measurement.
        seed: seed of iterative methods and of Gaussian tokens.
    """

    blocks: tuple[BlockConditioning, ...]
    network: NetworkConditioning | None
    at: TokensAt
    tokens: int | None
    images: int
    dtype: str
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Plain values that `json` writes."""
        return {
            "blocks": [block.as_json() for block in self.blocks],
            "network": None if self.network is None else self.network.as_json(),
            "at": self.at,
            "tokens": self.tokens,
            "images": self.images,
            "dtype": self.dtype,
            "seed": self.seed,
        }

    def __str__(self) -> str:
        head = ("block", "skips", "k(K)", "k(K+I)", self._gram, "k(K^)", "k(K^+I)", "k(A) by head", "diagonal by head")
        rows = [
            (
                block.name,
                "+".join(block.skips) or "none",
                *(_kappa(block.attn.get(form)) for form in ("skipless", "skip")),
                str(block.paper.kappa_gram) if block.paper is not None else "",
                *(_kappa(block.mlp.get(form)) for form in ("skipless", "skip")),
                " ".join(_kappa(found.maps) for found in block.heads or ()),
                " ".join(f"{found.diagonal:.2f}" for found in block.heads or ()),
            )
            for block in self.blocks
        ]
        kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
        lines = align_columns([[row[i] for i in kept] for row in (head, *rows)])
        return "\n".join([*lines, *self._footer()])

    __repr__ = __str__

    @property
    def _gram(self) -> str:
        """What the column of the Gram matrices' kappa is of: of K + I where the attention has its skip."""
        forms = {"attn" in block.skips for block in self.blocks}
        return "k(K K^T)" if forms == {False} else "k((K+I)(K+I)^T)" if forms == {True} else "k(Gram)"

    def _footer(self) -> list[str]:
        several = f"median of {self.images} images" if self.images > 1 else "1 image"
        few = "" if self.tokens is None else f"{self.tokens} of the "
        about = [f"{several}, {self.dtype}, {few}{TOKENS_AT_TEXT[self.at]}, seed {self.seed}"]
        if any(block.paper is not None for block in self.blocks):
            mixed = ", of K + I where the attention has its skip, of K where it has none"
            about.append(
                f"{self._gram}: kappa of the Gram matrix{mixed if self._gram == 'k(Gram)' else ''}, as in the paper's "
                "Table 6"
            )
        if self.network is not None:
            about.append(str(self.network))
        bounds = [text for block in self.blocks for text in _unknown_kappas(block)]
        shown = bounds[:MAX_BOUNDS_LISTED] + (
            [f"{len(bounds) - MAX_BOUNDS_LISTED} more"] if len(bounds) > MAX_BOUNDS_LISTED else []
        )
        return [*about, *(f"! {text}" for text in shown)]


MAX_BOUNDS_LISTED = 6  # operators of unknown kappa that the text lists


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, for a fixed-width font."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _kappa(found: ImageSpectra | None) -> str:
    return "" if found is None else str(found.kappa).replace(">= ", ">=")


def _unknown_kappas(block: BlockConditioning) -> list[str]:
    """The full record of each operator whose kappa is only bounded, which shows the reason."""
    found = [measured.median for part in (block.attn, block.mlp) for measured in part.values()]
    return [str(spectrum) for spectrum in found if not spectrum.kappa.known]
