"""Spectral conditioning (arXiv 2603.07162), W + C for W_Q, W_K, W_V, and conditioned initialisation (cKNOCYPo2W)."""

import math
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from skipless.errors import InputError
from skipless.models.blocks import BlockView, LinearMap
from skipless.models.surgery import block_views
from skipless.nn.conditioned_tokens import polar_factor

SpectralForm = Literal["identity", "exact"]
ValueIdentity = Literal["whole", "head"]


class SpectralShift(nn.Module):
    """A parametrization: W as it is trained becomes W + strength I of each head, or W + s_1 U V^T (`"exact"`).

    Args:
        heads: which outputs of the weight are a head's, each range a head.
        transposed: whether the weight is (in, out).
        strength: lambda.
        form: see `spectral_conditioning_`.
    """

    def __init__(self, heads: list[range], transposed: bool, strength: float, form: SpectralForm) -> None:
        super().__init__()
        self.heads, self.transposed, self.strength, self.form = heads, transposed, strength, form

    def forward(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """The weight that is used."""
        rows = weight.mT if self.transposed else weight
        shift = torch.zeros_like(rows)
        for head in self.heads:
            part = slice(head.start, head.stop)
            shift[part] = self._shift(rows[part].detach())
        return weight + (shift.mT if self.transposed else shift)

    def right_inverse(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """What is trained: the weight as it was, so that registering adds the shift."""
        return weight

    def _shift(self, head: Tensor) -> Tensor:
        if self.form == "identity":
            return self.strength * torch.eye(*head.shape, dtype=head.dtype, device=head.device)
        wide = head if head.dtype == torch.float64 else head.float()
        return (torch.linalg.matrix_norm(wide, 2) * polar_factor(wide[None])[0]).to(head.dtype)


def spectral_conditioning_(model: nn.Module, strength: float = 10.0, *, form: SpectralForm = "identity") -> nn.Module:
    """Have every block use W + lambda I for W_Q, W_K and W_V, in place (spectral conditioning, arXiv 2603.07162).

    W is trained, the shift is fixed: a parametrization, by `torch.nn.utils.parametrize`. Decoupled weight decay thus
    pulls the used weight to lambda I, not to 0. State-dict keys of these weights change as PyTorch's do
    (`parametrizations.weight.original`), so that a checkpoint of one kind is not loaded as the other.
    `remove_spectral_conditioning_` writes the used weights into plain ones.

    Args:
        model: has blocks that an adapter knows. Initialise it before: the scheme's rules are for plain weights.
        strength: lambda; the paper's 10.
        form: `"identity"` (default) is lambda times the rectangular identity of each head, d x d_h. `"exact"` is
            s_1 U V^T of each head's W, by which kappa is at most 2; it has no lambda, and no gradient of its own.

    Raises:
        InputError: if no adapter knows the model, it is conditioned already, or for another form.

    Example:
        >>> import timm
        >>> model = spectral_conditioning_(timm.create_model("vit_tiny_patch16_224", depth=1))
        >>> w_q = model.blocks[0].attn.qkv.weight[:64]  # of the first head
        >>> s = torch.linalg.svdvals(w_q)
        >>> bool(s[0] / s[-1] < 1.2)
        True
    """
    if form not in get_args(SpectralForm):
        raise InputError(f"form={form!r} is not one of 'identity', 'exact'")
    if not (math.isfinite(strength) and strength > 0):
        raise InputError(f"strength={strength}: give a number above 0 (the paper's is 10)")
    if _conditioned(model):
        raise InputError("the model has spectral conditioning already; remove_spectral_conditioning_ first")
    plans = [plan for view in block_views(model) for plan in _weights(view)]
    for module, name, heads, transposed in plans:
        parametrize.register_parametrization(
            module, name, SpectralShift(heads, transposed, strength, form), unsafe=True
        )
    return model


def remove_spectral_conditioning_(model: nn.Module) -> nn.Module:
    """Write the weights that are used into plain ones, in place: the model computes what it did."""
    for module, name in _conditioned(model):
        parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return model


def _conditioned(model: nn.Module) -> list[tuple[Any, str]]:
    found = []
    for module in model.modules():
        for name, stack in getattr(module, "parametrizations", {}).items():
            if any(isinstance(one, SpectralShift) for one in stack):
                found.append((module, name))
    return found


def _weights(view: BlockView) -> list[tuple[nn.Module, str, list[range], bool]]:
    """The parameters that hold W_Q, W_K and W_V: whose they are, and which of their outputs each head has."""
    heads: dict[int, list[range]] = {}
    kept: dict[int, LinearMap] = {}
    for one in (view.query, view.key, view.value):
        start, stop, _ = one.rows.indices(one.weight.shape[1] if one.transposed else len(one.weight))
        parts = [range(at, at + view.head_dim) for at in range(start, stop, view.head_dim)]
        heads.setdefault(id(one.weight), []).extend(parts)
        kept[id(one.weight)] = one
    found = []
    for module in view.block.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in heads:
                found.append((module, name, heads[id(parameter)], kept[id(parameter)].transposed))
    return found


@torch.no_grad()
def initialize_conditioned_(
    model: nn.Module, *, value: ValueIdentity = "whole", generator: Generator | None = None
) -> nn.Module:
    """Start W_V as a rectangular identity, and W_Q and W_K of each head semi-orthogonal, in place (cKNOCYPo2W).

    Heads are drawn independently, and W_Q W_K^T is not diagonally dominant: this does not replace `initialize_` in a
    skipless model. All else keeps its values; biases of the three maps are set to 0.

    Args:
        model: has blocks that an adapter knows.
        value: `"whole"` (default) makes W_V of all heads side by side the identity, d x d where heads x d_h = d;
            `"head"` gives each head the same d x d_h identity. Which the paper means is not public.
        generator: source of randomness, torch's global CPU generator by default.

    Raises:
        InputError: if no adapter knows the model, or for another `value`.

    Example:
        >>> import timm
        >>> model = initialize_conditioned_(timm.create_model("vit_tiny_patch16_224", depth=1))
        >>> s = torch.linalg.svdvals(model.blocks[0].attn.qkv.weight[:64])
        >>> round(s[0].item(), 4), round(s[-1].item(), 4)
        (1.0, 1.0)
    """
    if value not in get_args(ValueIdentity):
        raise InputError(f"value={value!r} is not one of 'whole', 'head'")
    if _conditioned(model):
        raise InputError("the model has spectral conditioning: initialise before, or remove it first")
    for view in block_views(model):
        for one, heads in ((view.query, view.heads), (view.key, view.key_heads)):
            one.write_(
                torch.cat([_semi_orthogonal(view.dim, view.head_dim, generator) for _ in range(heads)], 1).to(one.w)
            )
        width = view.w_v.shape[1]
        eye = torch.eye(view.dim, view.head_dim).repeat(1, width // view.head_dim)
        view.value.write_((torch.eye(view.dim, width) if value == "whole" else eye).to(view.w_v))
    return model


def _semi_orthogonal(rows: int, columns: int, generator: Generator | None) -> Float[Tensor, "d k"]:
    return nn.init.orthogonal_(torch.empty(rows, columns), generator=generator)
