"""activation_statistics: what a model's activations are like at every site of every block, in one pass."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from skipless.display import Record, Table
from skipless.display.axes import legend, lines_by_name
from skipless.errors import InputError
from skipless.evaluators.quantisation.rounding.grid import check_bits
from skipless.evaluators.quantisation.statistics.budget import BlockBudget, budget_of, budget_table
from skipless.evaluators.quantisation.statistics.site_statistics import SiteState, SiteStatistics, aligned, heads
from skipless.evaluators.quantisation.statistics.sites import LAST, SITES, run_blocks
from skipless.models.blocks import BlockView
from skipless.models.eval_mode import evaluating
from skipless.models.starting.first_tokens import first_tokens
from skipless.models.surgery import block_views

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BITS = (8, 6, 4)
_INPUTS = ("attention in", "heads", "MLP in", "hidden")
SHOWN = ("tokens", "attention in", "heads", "MLP in", "hidden")
"""Sites in pictures and through training: the stream, or the tokens between blocks, and inputs of linear maps."""


@dataclass(frozen=True, eq=False, repr=False)
class ActivationStatistics(Record):
    """What a model's activations are like at every site of every block.

    Attributes:
        sites: of every block, first to last, in the order of computation.
        budget: of every block, what its kurtosis comes from.
        inputs: number of images or rows of token ids.
        tokens: tokens of all of them.
        batches: number of batches; `"tensor"` and `"channel"` of SQNR have the scales of each.
        state_bytes: what the pass has kept in memory.
    """

    sites: tuple[SiteStatistics, ...]
    budget: tuple[BlockBudget, ...]
    inputs: int
    tokens: int
    batches: int
    state_bytes: int

    def at(self, block: str | int, site: str) -> SiteStatistics:
        """The statistics of one site; a block by its path, or by its number, -1 for the last.

        Raises:
            InputError: if there is no such site.
        """
        names = list(dict.fromkeys(one.block for one in self.sites))
        if isinstance(block, int) and -len(names) <= block < len(names):
            block = names[block]
        for one in self.sites:
            if (one.block, one.site) == (block, site):
                return one
        raise InputError(f"no site {site!r} of block {block!r}: blocks {', '.join(names)}; sites {', '.join(SITES)}")

    def by_block(self, site: str, of: Callable[[SiteStatistics], float]) -> dict[str, float]:
        """A number of one site by block."""
        return {one.block: of(one) for one in self.sites if one.site == site}

    @property
    def largest(self) -> SiteStatistics:
        """The input of a linear map with the largest pooled kurtosis."""
        return max((one for one in self.sites if one.site in _INPUTS), key=lambda one: one.kurtosis["pooled"])

    def _summary(self) -> str:
        most = self.largest
        where = f"{most.block} {most.site}"
        return f"largest excess kurtosis of a linear input {most.kurtosis['pooled']:.3g} ({where}), {self._about()}"

    def _about(self) -> str:
        return f"n = {self.inputs} inputs, {self.tokens:,} tokens, {self.batches} batches"

    def tables(self) -> tuple[Table, ...]:
        """A row for each site, and the budget of each block."""
        return (self.table(), budget_table(self.budget))

    def table(self, sites: Sequence[str] = (*SITES, LAST)) -> Table:
        """A row for each block and chosen site.

        Args:
            sites: names of sites; all by default.
        """
        sqnr = self.sites[0].sqnr
        about = f"{self._about()}; excess kurtosis by four definitions; peak: largest magnitude over RMS; SQNR in dB"
        rows = [one.row() for one in self.sites if one.site in sites]
        return Table(heads(sqnr), rows, about, align=aligned(sqnr))

    def _draw(self, axes: "Axes") -> None:
        series = {site: self.by_block(site, lambda one: one.kurtosis["pooled"]) for site in SHOWN}
        names = list(series["tokens"])
        lines_by_name(
            axes, names, {site: [by[name] for name in names] for site, by in series.items()}, "excess kurtosis"
        )
        axes.set_yscale("symlog", linthresh=1.0)
        legend(axes)

    def record(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        sites: dict[str, dict[str, Any]] = {}
        for one in self.sites:
            sites.setdefault(one.block, {})[one.site] = one.record()
        return {
            "inputs": self.inputs,
            "tokens": self.tokens,
            "batches": self.batches,
            "sites": sites,
            "budget": [asdict(one) for one in self.budget],
        }


@torch.no_grad()
def activation_statistics(
    model: nn.Module,
    batches: Iterable[Tensor | tuple[Any, ...] | Mapping[str, Any]],
    *,
    bits: Sequence[int] = BITS,
) -> ActivationStatistics:
    """Measure the activations at every site of every block, in one pass over any number of images or token ids.

    A site keeps moments of its channels, a histogram and sums: no activation is kept, and nothing grows with the number
    of images. For a ViT-S that is some 3 MiB. Scales of whole tensors and of channels need their largest number first,
    so SQNR takes the scales of each batch: `"tensor"` is what dynamic quantisation of such batches does. Kurtosis,
    largest magnitude, moments and the SQNR of tokens do not depend on how inputs are batched.

    Args:
        model: a model with blocks that an adapter knows, with skips or without; its training mode is restored. It is
            measured as it is: unquantised, where `quantise_` has not been called.
        batches: images, normalised, `(b, c, h, w)`; or token ids, `(b, n)`; or, for a model of blocks alone, tokens
            `(b, n, d)`. What a loader gives besides, as labels, is
            ignored: of a tuple the first is taken, of a mapping `pixel_values` or `input_ids`.
        bits: of the SQNR.

    Raises:
        InputError: if no adapter knows the model, there is no batch, it does not take one, or activations are not
            finite.

    Example:
        >>> import timm
        >>> vit = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32)
        >>> found = activation_statistics(vit, [torch.randn(4, 3, 32, 32)])
        >>> sorted(found.at(0, "hidden").sqnr), found.at(-1, "tokens out").channel_mean.shape
        ([4, 6, 8], torch.Size([192]))
    """
    for one in bits:
        check_bits("bits", one)
    views = block_views(model)
    states: dict[tuple[str, str], SiteState] = {}
    inputs = tokens = count = 0
    with evaluating(model):
        for batch in batches:
            given = inputs_of(batch)
            x, called = _entering(model, views, given)
            named = [replace(one, name=view.name) for one, view in zip(called, views, strict=True)]
            for block, site, values in run_blocks(named, x):
                state = states.setdefault((block, site), SiteState(tuple(bits), site != "probabilities"))
                state.add(values, f"{block} {site}")
            inputs, tokens, count = inputs + len(given), tokens + x.shape[0] * x.shape[1], count + 1
    if not count:
        raise InputError("there are no batches: give images (b, c, h, w), or token ids (b, n)")
    sites = tuple(state.result(*place) for place, state in states.items())
    kept = sum(state.bytes for state in states.values())
    return ActivationStatistics(sites, _budget(views, sites), inputs, tokens, count, kept)


def _entering(model: nn.Module, views: list[BlockView], given: Tensor) -> tuple[Tensor, list[BlockView]]:
    """The tokens that enter the first block; what is three-dimensional are such tokens."""
    return (given.to(views[0].query.weight), views) if given.ndim == 3 else first_tokens(model, views, given)


def inputs_of(batch: Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]) -> Tensor:
    """The images or token ids of what a loader gives.

    Raises:
        InputError: if there are none.
    """
    if isinstance(batch, Mapping):
        batch = next((batch[name] for name in ("pixel_values", "input_ids") if name in batch), ())
    if isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise InputError(f"a batch is a {type(batch).__name__}: give images (b, c, h, w), or token ids (b, n)")
    return batch


def _budget(views: Sequence[BlockView], sites: Sequence[SiteStatistics]) -> tuple[BlockBudget, ...]:
    by_block: dict[str, dict[str, SiteStatistics]] = {}
    for one in sites:
        by_block.setdefault(one.block, {})[one.site] = one
    following = [*(by_block[view.name]["tokens"] for view in views[1:]), by_block[views[-1].name][LAST]]
    return tuple(
        part
        for view, after in zip(views, following, strict=True)
        for part in budget_of(view, by_block[view.name], after)
    )
