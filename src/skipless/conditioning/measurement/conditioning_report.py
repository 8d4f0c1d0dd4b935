"""ConditioningReport: the result of `measure_conditioning` as a record, as JSON and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from skipless.choices import TokensAt
from skipless.conditioning.measurement.block_inputs import TokenDistribution
from skipless.conditioning.measurement.network_jacobian import NetworkConditioning
from skipless.conditioning.spectra.estimates import Estimate, Spectrum, spectra_table
from skipless.display import Record, Table
from skipless.display.axes import bounded_line, colour_of, explain_bounds, kappa_axis, legend, name_ticks
from skipless.display.values import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


TOKENS_AT_TEXT: dict[TokensAt, str] = {
    "normed": "tokens after the norm",
    "raw": "tokens before the norm",
    "gaussian": "N(0, I) tokens",
}
"""Names of the `at` choices in tables."""


@dataclass(frozen=True, repr=False)
class ImageSpectra(Record):
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

    def _summary(self) -> str:
        low, high = self.range
        images = counted(len(self.spectra), "image")
        return f"{self.median.name}, {images}, median kappa {self.kappa}, {low:.3g} to {high:.3g}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each image."""
        return (spectra_table({f"image {i}": found for i, found in enumerate(self.spectra)}, "image"),)

    def _draw(self, axes: "Axes") -> None:
        draw_kappas(axes, {self.median.name: {i: found.kappa for i, found in enumerate(self.spectra)}})
        name_ticks(axes, [str(i) for i in range(len(self.spectra))])
        axes.set_xlabel("image", loc="right", labelpad=2)

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


@dataclass(frozen=True, repr=False)
class HeadMaps(Record):
    """One head's attention maps.

    Attributes:
        diagonal: mean A_ii over tokens and images.
        maps: the spectrum of A for each image.
    """

    diagonal: float
    maps: ImageSpectra

    def _summary(self) -> str:
        return f"mean A_ii {self.diagonal:.2f}, {self.maps._summary()}"

    def tables(self) -> Sequence[Table]:
        """A row for each image."""
        return self.maps.tables()

    def _draw(self, axes: "Axes") -> None:
        self.maps._draw(axes)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"diagonal": self.diagonal, **self.maps.as_json()}


@dataclass(frozen=True, repr=False)
class BlockConditioning(Record):
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

    def _operators(self) -> dict[str, ImageSpectra]:
        """What was measured, by its name."""
        forms = {("attn", form): found for form, found in self.attn.items()}
        forms |= {("mlp", form): found for form, found in self.mlp.items()}
        heads = {f"A of head {i}": head.maps for i, head in enumerate(self.heads or ())}
        return {_OPERATOR[part]: found for part, found in forms.items()} | heads

    def _summary(self) -> str:
        kappas = [f"kappa({name.split(',')[0]}) {found.kappa}" for name, found in self._operators().items()]
        return f"{self.name}, {'+'.join(self.skips) or 'no'} skips, {', '.join(kappas)}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each operator, at its median image."""
        found = {name: images.median for name, images in self._operators().items()}
        return (spectra_table(found, "operator", f"{self.name}, median image"),)

    def _draw(self, axes: "Axes") -> None:
        operators = self._operators()
        images = {name: dict(enumerate(s.kappa for s in found.spectra)) for name, found in operators.items()}
        draw_kappas(axes, images)
        name_ticks(axes, [str(i) for i in range(max(map(len, images.values()), default=0))])
        axes.set_xlabel("image", loc="right", labelpad=2)

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


@dataclass(frozen=True, repr=False)
class ConditioningReport(Record):
    """Tables 5 and 6 for one model. `str` gives a table with one line for each block.

    Attributes:
        blocks: the measured blocks, first to last.
        network: kappa(J J^T) of Table 5; None if it was not asked for.
        at: the tokens at which K_l and K^_l were taken: after the norm, before it, or Gaussian.
        tokens: number of tokens that the sub-blocks received; None for all.
        images: number of images.
        dtype: dtype of the measurement.
        seed: seed of iterative methods and of Gaussian tokens.
        kind: what `images` counts: images, or texts of a language model.
    """

    blocks: tuple[BlockConditioning, ...]
    network: NetworkConditioning | None
    at: TokensAt
    tokens: int | None
    images: int
    dtype: str
    seed: int
    kind: Literal["image", "text"] = "image"

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
            **({} if self.kind == "image" else {"kind": self.kind}),
        }

    def _summary(self) -> str:
        measured = [block.paper for block in self.blocks if block.paper is not None]
        worst = max((found.kappa_gram for found in measured), key=lambda gram: gram.value, default=None)
        kappa = "" if worst is None else f", worst kappa_gram {worst}"
        return f"{counted(len(self.blocks), 'block')}{kappa}; {self._setting()}"

    def tables(self) -> tuple[Table, ...]:
        """The one table, with a row for each block; columns that nothing was measured for are left out."""
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
        about, *notes = self._footer()
        return (Table([head[i] for i in kept], [[row[i] for i in kept] for row in rows], about, notes),)

    def _draw(self, axes: "Axes") -> None:
        forms = ((part, form) for part in ("attn", "mlp") for form in ("skipless", "skip"))
        drawn = {
            _OPERATOR[part, form]: {i: getattr(block, part)[form].kappa for i, block in enumerate(self.blocks)
                                    if form in getattr(block, part)}
            for part, form in forms
        }  # fmt: skip
        draw_kappas(axes, {name: points for name, points in drawn.items() if points})
        name_ticks(axes, [str(block.index) for block in self.blocks])
        axes.set_xlabel("block", loc="right", labelpad=2)

    @property
    def _gram(self) -> str:
        """What the column of the Gram matrices' kappa is of: of K + I where the attention has its skip."""
        forms = {"attn" in block.skips for block in self.blocks}
        return "k(K K^T)" if forms == {False} else "k((K+I)(K+I)^T)" if forms == {True} else "k(Gram)"

    def _setting(self) -> str:
        several = f"median of {self.images} {self.kind}s" if self.images > 1 else f"1 {self.kind}"
        few = "" if self.tokens is None else f"{self.tokens} of the "
        return f"{several}, {self.dtype}, {few}{TOKENS_AT_TEXT[self.at]}, seed {self.seed}"

    def _footer(self) -> list[str]:
        about = [self._setting()]
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


_OPERATOR = {
    ("attn", "skipless"): "K, attention",
    ("attn", "skip"): "K + I",
    ("mlp", "skipless"): "K^, MLP",
    ("mlp", "skip"): "K^ + I",
}


def draw_kappas(axes: "Axes", series: Mapping[str, Mapping[int, Estimate]], label: str = "kappa") -> None:
    """A line of condition numbers for each name, over positions; one that is only known from below is a triangle."""
    for index, (name, points) in enumerate(series.items()):
        found = list(points.values())
        bounds = [not kappa.known for kappa in found]
        bounded_line(axes, list(points), [kappa.value for kappa in found], bounds, colour_of(index), name)
    everything = [kappa for points in series.values() for kappa in points.values()]
    kappa_axis(axes, [kappa.value for kappa in everything], label)
    if not all(kappa.known for kappa in everything):
        explain_bounds(axes)
    legend(axes)


def _kappa(found: ImageSpectra | None) -> str:
    return "" if found is None else str(found.kappa).replace(">= ", ">=")


def _unknown_kappas(block: BlockConditioning) -> list[str]:
    """The full record of each operator whose kappa is only bounded, which shows the reason."""
    found = [measured.median for part in (block.attn, block.mlp) for measured in part.values()]
    return [str(spectrum) for spectrum in found if not spectrum.kappa.known]
