"""What tokens become from block to block: how alike, how isotropic, and what attention and MLP do to them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jacrev, vmap

from skipless.display import Record, Table
from skipless.display.axes import legend, level, lines_by_name
from skipless.display.values import few_words
from skipless.models.blocks import BlockView
from skipless.models.eval_mode import evaluating
from skipless.models.starting.attention_diagonal import attention, mean_diagonals
from skipless.models.starting.first_tokens import Given, first_tokens
from skipless.models.surgery import block_views

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLLAPSED = 0.95
"""Mean cosine between an image's tokens from which they are called collapsed: what tells them apart is then a
twentieth of their mean square."""
_JACOBIANS = 4  # tokens at which the MLP's Jacobian is taken
_WIDEST = 1024  # width up to which it is


@dataclass(frozen=True, repr=False)
class BlockTokens(Record):
    """One block on the tokens of images.

    Attributes:
        name: the block's path in the model.
        cosine: mean cosine between two tokens of an image after the block; 0 for isotropic tokens.
        isotropy: participation ratio of the tokens' second moments over its largest value, min(tokens, d): 1 for
            isotropic tokens, near 0 where one direction has all.
        diagonal: mean A_ii, over heads and images.
        kappa_attention: the largest condition number of a head's attention matrix, median over images. With orthogonal
            heads that is the condition number of the attention's Jacobian in X, A held as it is.
        kappa_mlp: condition number of the MLP's Jacobian, median over some tokens; None at widths above 1,024.
    """

    name: str
    cosine: float
    isotropy: float
    diagonal: float
    kappa_attention: float
    kappa_mlp: float | None

    def _summary(self) -> str:
        return f"{self.name}, cosine {self.cosine:.2f}, attention diagonal {self.diagonal:.2f}"

    def _row(self) -> tuple[str, ...]:
        kappas = (few_words(self.kappa_attention), "–" if self.kappa_mlp is None else few_words(self.kappa_mlp))
        return (self.name, f"{self.cosine:.3f}", f"{self.isotropy:.3f}", f"{self.diagonal:.3f}", *kappas)

    def tables(self) -> tuple[Table, ...]:
        """A row of numbers."""
        return (Table(_HEAD, [self._row()], self._summary()),)


_HEAD = ("block", "cosine", "isotropy", "diagonal", "kappa attention", "kappa MLP")


@dataclass(frozen=True, repr=False)
class TokenReport(Record):
    """How alike the tokens of images are after every block.

    Attributes:
        blocks: one for each block.
        entering: mean cosine between the tokens that enter the first block.
        images: number of images.
        tokens: of each of them.
    """

    blocks: tuple[BlockTokens, ...]
    entering: float
    images: int
    tokens: int

    @property
    def collapsed(self) -> str | None:
        """Name of the first block after which tokens have collapsed, a mean cosine of 0.95 or more; None if none."""
        return next((block.name for block in self.blocks if not block.cosine < COLLAPSED), None)

    def _summary(self) -> str:
        where = "tokens stay apart" if self.collapsed is None else f"tokens have collapsed after {self.collapsed}"
        return f"{where}: cosine {self.entering:.2f} before the blocks, {self.blocks[-1].cosine:.2f} after them"

    def tables(self) -> tuple[Table, ...]:
        """The one table, with a row for each block."""
        first = ("images", f"{self.entering:.3f}", "", "", "", "")
        about = f"{self.images} images of {self.tokens} tokens; isotropic tokens have cosine 0 and isotropy 1"
        return (Table(_HEAD, [first, *(block._row() for block in self.blocks)], about, [self._summary()]),)

    def _draw(self, axes: "Axes") -> None:
        series = {
            "cosine between tokens": [block.cosine for block in self.blocks],
            "attention diagonal": [block.diagonal for block in self.blocks],
            "isotropy": [block.isotropy for block in self.blocks],
        }
        lines_by_name(axes, [block.name for block in self.blocks], series, "")
        axes.set_ylim(0, 1.02)
        level(axes, COLLAPSED, "collapsed above")
        legend(axes)


@torch.no_grad()
def inspect_tokens(model: nn.Module, images: Given) -> TokenReport:
    """Measure every block on the tokens of images, or of rows of token ids, in one pass.

    Args:
        model: a model with blocks that an adapter knows.
        images: normalised as for the model; for a language model, token ids `(b, n)`.

    Raises:
        InputError: if no adapter knows the model, or it does not take the images or ids.
    """
    views = block_views(model)
    with evaluating(model):
        x, views = first_tokens(model, views, images)
        entering = token_cosine(x)
        blocks = []
        for view in views:
            y = view.run(x)
            blocks.append(_measure(view, x, y))
            x = y
    return TokenReport(tuple(blocks), entering, len(images), x.shape[1])


def token_cosine(x: Float[Tensor, "b n d"]) -> float:
    """Mean cosine between two different tokens of an image."""
    count = x.shape[1]
    unit = nn.functional.normalize(x.double(), dim=-1)
    if count < 2:
        return 1.0
    pairs = unit.sum(1).square().sum(1) - unit.square().sum((1, 2))
    return (pairs / (count * (count - 1))).mean().item()


def _measure(view: BlockView, x: Float[Tensor, "b n d"], y: Float[Tensor, "b n d"]) -> BlockTokens:
    normed = view.attn_norm(x)
    between = view.join(x, view.attn_scale(view.attend(normed)), "attn")
    return BlockTokens(
        name=view.name,
        cosine=token_cosine(y),
        isotropy=_isotropy(y),
        diagonal=mean_diagonals(view, normed).mean().item(),
        kappa_attention=_kappa_attention(view, normed[:_JACOBIANS]),
        kappa_mlp=_kappa_mlp(view, view.mlp_norm(between)) if view.dim <= _WIDEST else None,
    )


def _isotropy(x: Float[Tensor, "b n d"]) -> float:
    """(sum of eigenvalues)^2 / sum of their squares, of the second moments of unit tokens, over its largest value."""
    unit = nn.functional.normalize(x.double(), dim=-1).flatten(0, 1)
    gram = unit @ unit.mT if len(unit) < unit.shape[1] else unit.mT @ unit
    return (gram.trace() ** 2 / gram.square().sum() / len(gram)).item()


def _kappa_attention(view: BlockView, normed: Float[Tensor, "b n d"]) -> float:
    return _kappa(torch.linalg.svdvals(attention(view, normed))).amax(1).median().item()


def _kappa_mlp(view: BlockView, normed: Float[Tensor, "b n d"]) -> float:
    places = torch.linspace(0, normed.shape[1] - 1, _JACOBIANS).long().unique()
    jacobians = vmap(jacrev(lambda token: view.mlp(token[None, None])[0, 0]))(normed[0, places])
    return _kappa(torch.linalg.svdvals(jacobians.double())).median().item()


def _kappa(s: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
    """Condition numbers; infinite where the least singular value is at the level of rounding."""
    kappa = s[..., 0] / s[..., -1]
    return torch.where(kappa < 1 / (s.shape[-1] * torch.finfo(s.dtype).eps), kappa, torch.inf)
