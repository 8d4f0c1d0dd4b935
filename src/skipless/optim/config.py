"""OptimizerConfig: the optimizer of a recipe."""

from dataclasses import dataclass

from skipless.choices import OptimizerName
from skipless.frozen import added


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its hyperparameters; `None` stands for the optimizer's own default.

    Args:
        name: `adamw` (betas 0.9, 0.999), `soap` (betas 0.95, 0.95), or `muon`: torch's Muon for the matrices of blocks
            and AdamW for the rest (see `MuonWithAdamW`).
        lr: learning rate; a schedule may overwrite it at every step.
        betas: decay of the first and of the second moment; under `muon` AdamW's.
        eps: added to the root of the second moment; 1e-8 by default; under `muon` AdamW's.
        weight_decay: decoupled decay of the decaying parameters (see `param_groups`).
        no_decay: names of parameters that do not decay, besides vectors and biases.
        precondition_frequency: SOAP: steps between two refreshes of the eigenbases.
        max_precond_dim: SOAP: longer dimensions are not preconditioned.
        split_qkv: SOAP and Muon: treat a fused qkv weight as three matrices.
        block_lr: learning rate of the transformer blocks relative to that of everything else (see `param_groups`).
        share: SOAP: if several processes train together, each keeps a part of the state. Alone it changes nothing.
    """

    name: OptimizerName = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] | None = None
    eps: float | None = None
    weight_decay: float = 0.05
    no_decay: tuple[str, ...] = ("pos_embed", "cls_token", "reg_token")
    precondition_frequency: int = 10
    max_precond_dim: int = 10000
    split_qkv: bool = True
    share: bool = True
    block_lr: float = added(1.0)
