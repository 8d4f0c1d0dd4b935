"""Build an optimizer from an `OptimizerConfig`."""

from torch import nn
from torch.optim import AdamW, Optimizer

from skipless.errors import InputError
from skipless.optim.config import OptimizerConfig
from skipless.optim.muon import MuonWithAdamW
from skipless.optim.soap.optimizer import SOAP
from skipless.optim.weight_decay import param_groups


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, scaled: bool = False) -> Optimizer:
    """Build an optimizer over all trainable parameters of a model.

    Args:
        model: the model; it may move to another device afterwards.
        config: the optimizer and its hyperparameters.
        scaled: whether losses will be scaled, as fp16 needs it. AdamW is then not fused: a fused AdamW unscales the
            gradients inside its step, which is too late to clip them before. `MuonWithAdamW` never does.

    Raises:
        InputError: if a hyperparameter cannot be used, the model has no trainable parameter, or Muon has no matrix.

    Example:
        >>> optimizer = build_optimizer(nn.Linear(4, 2), OptimizerConfig(name="soap", lr=3e-3))
        >>> type(optimizer).__name__, [group["weight_decay"] for group in optimizer.param_groups]
        ('SOAP', [0.05, 0.0])
    """
    soap, muon = config.name == "soap", config.name == "muon"
    groups = param_groups(
        model,
        weight_decay=config.weight_decay,
        no_decay=config.no_decay,
        split_qkv=(soap or muon) and config.split_qkv,
        block_lr=config.block_lr,
        use_muon=muon,
    )
    for group in groups:
        if "lr_scale" in group:
            group["lr"] = config.lr * group["lr_scale"]
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
    if muon:
        return MuonWithAdamW(groups, lr=config.lr, fused=True, **given)
    try:
        return AdamW(groups, lr=config.lr, fused=not scaled or None, **given)
    except ValueError as error:
        raise InputError(f"AdamW: {error}") from error
