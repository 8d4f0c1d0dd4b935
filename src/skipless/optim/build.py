"""From a frozen description to an optimizer."""

from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import AdamW, Optimizer

from skipless.errors import InputError
from skipless.optim.param_groups import param_groups
from skipless.optim.soap import SOAP


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its hyperparameters; `None` stands for the optimizer's own default.

    Args:
        name: `adamw` (betas 0.9, 0.999) or `soap` (betas 0.95, 0.95).
        lr: learning rate; a schedule may overwrite it at every step.
        betas: decay of the first and of the second moment.
        eps: added to the root of the second moment; 1e-8 by default in both.
        weight_decay: decoupled decay of the decaying parameters (see `param_groups`).
        no_decay: names of parameters that do not decay, besides vectors and biases.
        precondition_frequency: SOAP: steps between two refreshes of the eigenbases.
        max_precond_dim: SOAP: longer sides are not preconditioned.
        split_qkv: SOAP: treat a fused qkv weight as three matrices.
        share: SOAP: where several processes train together, each keeps a part of the state; alone it changes nothing.
    """

    name: Literal["adamw", "soap"] = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] | None = None
    eps: float | None = None
    weight_decay: float = 0.05
    no_decay: tuple[str, ...] = ("pos_embed", "cls_token", "reg_token")
    precondition_frequency: int = 10
    max_precond_dim: int = 10000
    split_qkv: bool = True
    share: bool = True


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, scaled: bool = False) -> Optimizer:
    """Build an optimizer over all trainable parameters of a model.

    Args:
        model: may move to another device afterwards.
        config: which optimizer.
        scaled: whether losses will be scaled, as fp16 needs it. AdamW is then not the fused one, which takes the scale
            out of the gradients on its own: too late to clip them before.

    Raises:
        InputError: a hyperparameter cannot be used, or the model has no trainable parameter.

    Example:
        >>> optimizer = build_optimizer(nn.Linear(4, 2), OptimizerConfig(name="soap", lr=3e-3))
        >>> type(optimizer).__name__, [group["weight_decay"] for group in optimizer.param_groups]
        ('SOAP', [0.05, 0.0])
    """
    soap = config.name == "soap"
    groups = param_groups(
        model, weight_decay=config.weight_decay, no_decay=config.no_decay, split_qkv=soap and config.split_qkv
    )
    given = {name: value for name in ("betas", "eps") if (value := getattr(config, name)) is not None}
    if soap:
        return SOAP(
            groups,
            lr=config.lr,
            precondition_frequency=config.precondition_frequency,
            max_precond_dim=config.max_precond_dim,
            share=config.share,
            **given,
        )
    try:
        return AdamW(groups, lr=config.lr, fused=not scaled or None, **given)
    except ValueError as error:
        raise InputError(f"AdamW: {error}") from error
