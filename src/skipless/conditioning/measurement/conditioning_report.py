"""ConditioningReport: what `measure_conditioning` found, as a record, as JSON and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skipless.choices import TokensAt as At
from skipless.conditioning.measurement.network_jacobian import NetworkConditioning
from skipless.conditioning.measurement.block_inputs import TokenDistribution
from skipless.conditioning.spectra.estimates import Estimate, Spectrum

TOKENS_AT: dict[At, str] = {
    "normed": "tokens after the norm",
    "raw": "tokens before the norm",
    "gaussian": "N(0, I) tokens",
}
"""What is measured at, in words."""


@dataclass(frozen=True)
class Measured:
    """One operator at each of the images.

    Attributes:
        spectra: one an image.
    """

    spectra: tuple[Spectrum, ...]

    @property
    def median(self) -> Spectrum:
        """The spectrum of the image with the median kappa, of two middle ones the larger: a measured one, no mean."""
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
        """Plain values; "rank" of "size" is the median image's."""
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
        maps: the spectrum of A at each image.
    """

    diagonal: float
    maps: Measured

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"diagonal": self.diagonal, **self.maps.as_json()}


@dataclass(frozen=True)
class BlockConditioning:
    """One block.

    Attributes:
        index: its position in the model, from 0.
        name: its path there.
        skips: the sub-blocks that have a skip connection.
        attn: K_l, with its skip under `"skip"`, K_l + I, and without under `"skipless"`; those that were asked for.
        mlp: K^_l in the same way.
        heads: attention maps by head; None where they cannot be had, or were not asked for.
        tokens: how tokens are distributed after the norm before the attention, and before the MLP.
    """

    index: int
    name: str
    skips: tuple[str, ...]
    attn: dict[str, Measured]
    mlp: dict[str, Measured]
    heads: tuple[HeadMaps, ...] | None
    tokens: tuple[TokenDistribution, ...]

    @property
    def paper(self) -> Measured | None:
        """What Table 6 has for this block: K_l + I where the attention has its skip, K_l where it has none."""
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
    """Tables 5 and 6 for one model; its text is a table with a line a block.

    Attributes:
        blocks: those that were measured, first to last.
        network: J of Table 5, where it was asked for.
        at: whether K_l and K^_l were taken at the tokens after the norm, or before it.
        tokens: how many of the tokens the sub-blocks were given; None for all.
        images: how many images.
        dtype: of the measurement.
        seed: of iterative methods.
    """

    blocks: tuple[BlockConditioning, ...]
    network: NetworkConditioning | None
    at: At
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
        head = ("block", "skips", "k(K)", "k(K+I)", "Table 6", "k(K^)", "k(K^+I)", "k(A) by head", "diagonal by head")
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
        lines = aligned([[row[i] for i in kept] for row in (head, *rows)])
        return "\n".join([*lines, *self._about()])

    __repr__ = __str__

    def _about(self) -> list[str]:
        several = f"median of {self.images} images" if self.images > 1 else "1 image"
        few = "" if self.tokens is None else f"{self.tokens} of the "
        about = [f"{several}, {self.dtype}, {few}{TOKENS_AT[self.at]}, seed {self.seed}"]
        if any(block.paper is not None for block in self.blocks):
            about.append(
                "Table 6: kappa((K+I)(K+I)^T) where the attention has its skip, kappa(K K^T) where it has none"
            )
        if self.network is not None:
            about.append(str(self.network))
        bounds = [text for block in self.blocks for text in _bounds(block)]
        shown = bounds[:SHOWN] + ([f"{len(bounds) - SHOWN} more"] if len(bounds) > SHOWN else [])
        return [*about, *(f"! {text}" for text in shown)]


SHOWN = 6  # operators without a value that the text lists


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, for a fixed-width font."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _kappa(found: Measured | None) -> str:
    return "" if found is None else str(found.kappa).replace(">= ", ">=")


def _bounds(block: BlockConditioning) -> list[str]:
    """What has no value but a bound, with the reason: its whole record."""
    found = [measured.median for part in (block.attn, block.mlp) for measured in part.values()]
    return [str(spectrum) for spectrum in found if not spectrum.kappa.known]
