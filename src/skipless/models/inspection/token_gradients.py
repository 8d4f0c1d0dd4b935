"""token_gradients: a loss's gradient at the tokens after every block, apart for class token and patches."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.display import Record, Table
from skipless.display.axes import legend, lines_by_name
from skipless.display.drawing import COLOURS
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.models.eval_mode import evaluating
from skipless.models.vit_view import ViTView, find_vit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Batch = TypeVar("Batch")


@dataclass(frozen=True, repr=False)
class BlockGradients(Record):
    """The gradient of a loss with respect to one block's output tokens.

    Attributes:
        name: the block's path in the model.
        class_token: root mean square of the gradient's elements at class tokens; None without a class token.
        patches: the same at patch tokens.
        class_rms: root mean square of the class tokens' own elements; None without a class token.
        patch_rms: that of the patch tokens.
    """

    name: str
    class_token: float | None
    patches: float
    class_rms: float | None
    patch_rms: float

    @property
    def relative_class_token(self) -> float | None:
        """Gradient with respect to class tokens in units of their own root mean square: `class_token * class_rms`.

        The scale of tokens, which the next norm takes off, does not change it.
        """
        return None if self.class_token is None or self.class_rms is None else self.class_token * self.class_rms

    @property
    def relative_patches(self) -> float:
        """The same for patch tokens: `patches * patch_rms`."""
        return self.patches * self.patch_rms

    def _summary(self) -> str:
        own = "" if self.class_token is None else f"class token {self.class_token:.3g}, "
        return f"{self.name}, {own}patches {self.patches:.3g}"

    def _row(self) -> tuple[str, ...]:
        numbers = (self.class_token, self.patches, self.relative_class_token, self.relative_patches)
        return (self.name, *("–" if number is None else f"{number:.3g}" for number in numbers))

    def tables(self) -> tuple[Table, ...]:
        """A row of numbers."""
        return (Table(_HEAD, [self._row()], self._summary()),)


_HEAD = ("block", "class token", "patches", "class token, relative", "patches, relative")


@dataclass(frozen=True, repr=False)
class TokenGradients(Record):
    """How large a loss's gradient is at the tokens after every block.

    Attributes:
        blocks: one for each block.
        loss: value of the loss.
        passes: times that the blocks ran with gradients.
        images: images (or crops of them) in all these passes.
    """

    blocks: tuple[BlockGradients, ...]
    loss: float
    passes: int
    images: int

    @property
    def unreached(self) -> tuple[str, ...]:
        """Names of the blocks whose patch outputs get a gradient of exactly 0."""
        return tuple(block.name for block in self.blocks if block.patches == 0)

    def _summary(self) -> str:
        first, last = self.blocks[0], self.blocks[-1]
        span = f"at patches {first.patches:.2g} after {first.name}, {last.patches:.2g} after {last.name}"
        return f"{span}; loss {self.loss:.4g}"

    def tables(self) -> tuple[Table, ...]:
        """The one table, with a row for each block."""
        about = f"{counted(self.passes, 'pass', 'passes')}, {counted(self.images, 'image')}, loss {self.loss:.4g}"
        notes = ["root mean square of an element; relative: times that of the tokens' own elements"]
        notes += [f"! the patch outputs of {name} get no gradient at all" for name in self.unreached]
        return (Table(_HEAD, [block._row() for block in self.blocks], about, notes),)

    def _draw(self, axes: "Axes") -> None:
        own = {"class token": [block.relative_class_token for block in self.blocks]}
        series = {"patches": [block.relative_patches for block in self.blocks]}
        series = series if self.blocks[0].class_token is None else {**own, **series}
        shown = {name: [value or None for value in values] for name, values in series.items()}
        lines_by_name(axes, [block.name for block in self.blocks], shown, "gradient x RMS of tokens")
        known = [value for values in shown.values() for value in values if value is not None and math.isfinite(value)]
        if known:
            axes.set_yscale("log")
        none = [index for values in series.values() for index, value in enumerate(values) if value == 0]
        if none:  # a log axis has no place for it
            floor: Any = axes.get_xaxis_transform()
            axes.plot(none, [0.02] * len(none), "v", color=COLOURS["muted"], transform=floor, label="exactly 0")
        legend(axes)


def token_gradients(
    model: nn.Module, loss: Callable[[Batch], Tensor | Mapping[str, Tensor]], batch: Batch
) -> TokenGradients:
    """Measure the gradient of a loss with respect to the output tokens of every block.

    With skip connections a block's output is what the residual stream holds after it. Register tokens are left out. The
    model is in evaluation mode meanwhile, and no parameter's `grad` changes. Where the blocks run several times, for
    example for crops of several sizes, the mean squares are over the tokens of all passes.

    Args:
        model: a model with one vision transformer that an adapter knows; of a DINO task its `student`.
        loss: maps the batch to the loss, and runs the model. It may give named scalars with `loss` among them, as a
            task does.
        batch: what it takes. If the loss is a mean over images, gradients shrink with their number: compare batches of
            one size.

    Raises:
        InputError: if no adapter knows the model, or the loss does not depend on its blocks.

    Example:
        >>> from skipless.models import create_model
        >>> vit = create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=3, seed=0)
        >>> batch = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
        >>> found = token_gradients(vit, lambda batch: nn.functional.cross_entropy(vit(batch[0]), batch[1]), batch)
        >>> found.unreached  # only the class token of the last block is seen
        ('blocks.1',)

        Of a DINO task, without moving its centre: `token_gradients(task.eval().student, task, crops)`.
    """
    vit = find_vit(model)
    with evaluating(model), torch.enable_grad(), torch.compiler.set_stance("force_eager"), _outputs(vit) as outputs:
        found = loss(batch)
    value = found["loss"] if isinstance(found, Mapping) else found
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise InputError(f"the loss has {shape}: give a tensor of one number, such as its mean")
    passes = len(outputs[0])
    if not passes or not value.requires_grad:
        raise InputError(
            f"the loss does not depend on the blocks of `{type(model).__name__}`: it must run this very model, and not "
            "under torch.no_grad"
        )
    flat = [tensor for of_block in outputs for tensor in of_block]
    gradients = torch.autograd.grad(value, flat, allow_unused=True)
    blocks = []
    for index, view in enumerate(vit.views):
        own = gradients[index * passes : (index + 1) * passes]
        grads = [torch.zeros_like(x) if g is None else g for g, x in zip(own, outputs[index], strict=True)]
        blocks.append(BlockGradients(view.name, *_by_kind(vit, grads), *_by_kind(vit, outputs[index])))
    return TokenGradients(tuple(blocks), value.item(), passes, sum(map(len, outputs[0])))


@contextmanager
def _outputs(vit: ViTView) -> Iterator[list[list[Tensor]]]:
    """Collect the outputs of every block, pass by pass, as parts of the graph; those without gradients are left out."""
    found: list[list[Tensor]] = [[] for _ in vit.views]

    def collecting(index: int) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        def collect(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
            if not torch.is_grad_enabled():
                return None
            kept = output if output.requires_grad else output.detach().requires_grad_()  # of frozen weights
            found[index].append(kept)
            return kept

        return collect

    hooks = [view.block.register_forward_hook(collecting(index)) for index, view in enumerate(vit.views)]
    transformer: Any = vit.transformer
    before, transformer.grad_checkpointing = transformer.grad_checkpointing, False  # it would run blocks twice
    try:
        yield found
    finally:
        transformer.grad_checkpointing = before
        for hook in hooks:
            hook.remove()


def _by_kind(vit: ViTView, tensors: Sequence[Float[Tensor, "b _n d"]]) -> tuple[float | None, float]:
    """Root mean squares at class tokens, if there are any, and at patch tokens."""
    own = [tensor[:, :1] for tensor in tensors] if vit.class_token else []
    return _rms(own) if own else None, _rms([tensor[:, vit.prefix :] for tensor in tensors])


def _rms(tensors: Sequence[Tensor]) -> float:
    total = sum(tensor.detach().cpu().double().square().sum().item() for tensor in tensors)
    return math.sqrt(total / sum(tensor.numel() for tensor in tensors))
