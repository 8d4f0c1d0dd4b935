"""Muon for the matrices of transformer blocks and AdamW for everything else, as one optimizer; both are torch's.

Muon replaces a matrix' momentum by the nearest matrix with orthonormal rows or columns (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon). Its author leaves embeddings, the head, vectors and scalars to AdamW.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from inspect import unwrap
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

from skipless.errors import InputError
from skipless.optim.muon_checks import check_group, check_loaded, torch_optimizers
from skipless.optim.soap.collectives import is_dtensor


class MuonWithAdamW(Optimizer):
    """Torch's Muon for the groups with `use_muon=True`, torch's AdamW for those with `use_muon=False`.

    `param_groups(model, weight_decay=..., use_muon=True)` makes such groups. All values may differ by group, and a
    changed value in `param_groups` takes effect at the next step, so that torch's schedulers work.

    Args:
        params: parameters or groups, as for any optimizer.
        lr: learning rate; a number, or a tensor of one entry.
        betas: AdamW: decay of the first and of the second moment, per step.
        eps: AdamW: added to the root of the second moment.
        weight_decay: decoupled: before the update a parameter shrinks by `lr * weight_decay`.
        momentum: Muon: decay of the momentum, per step.
        nesterov: Muon: look one step ahead with the momentum.
        ns_coefficients: Muon: of the Newton-Schulz iteration.
        ns_steps: Muon: Newton-Schulz iterations.
        ns_eps: Muon: the least norm that a momentum is divided by.
        adjust_lr_fn: Muon: how the rate follows from a matrix' shape, as `torch.optim.Muon` has it. The default scales
            an update to the root mean square that AdamW's has, 0.2 (Liu et al. 2025, arXiv 2502.16982), so that one
            `lr` serves both.
        split: Muon: the rows of a parameter are this many matrices stacked (fused qkv: 3). Each is orthogonalised
            alone, and its own shape sets its rate.
        use_muon: whether a group is Muon's; its parameters must then be matrices.
        foreach: AdamW's; Muon has none.
        fused: AdamW's; Muon has none. It works with a `GradScaler`, which unscales gradients before the step.

    The state is `momentum_buffer` of the whole parameter for Muon, and `step`, `exp_avg`, `exp_avg_sq` for AdamW.
    DTensors, as `fully_shard` makes them, keep their state sharded. For a step every rank gathers one matrix at a time
    and computes its whole update, so that the result is that of one process. All ranks must then have gradients for the
    same matrices. Products are in bfloat16, as in torch's Muon.

    Raises:
        InputError: for a value that cannot be used, or a group of Muon's that holds anything but real matrices.

    Example:
        >>> weight, bias = torch.nn.Parameter(torch.eye(3)), torch.nn.Parameter(torch.ones(3))
        >>> groups = [{"params": [weight], "use_muon": True}, {"params": [bias], "use_muon": False}]
        >>> optimizer = MuonWithAdamW(groups, lr=0.1)
        >>> (weight.square().sum() + bias.square().sum()).backward()
        >>> optimizer.step()
        >>> bool(weight.square().sum() < 3), bool(bias.square().sum() < 3)
        (True, True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        ns_steps: int = 5,
        ns_eps: float = 1e-7,
        adjust_lr_fn: Literal["original", "match_rms_adamw", "spectral_unclamped"] = "match_rms_adamw",
        split: int = 1,
        use_muon: bool = True,
        *,
        foreach: bool | None = None,
        fused: bool | None = None,
    ):
        own = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "ns_steps": ns_steps,
            "ns_eps": ns_eps,
            "adjust_lr_fn": adjust_lr_fn,
            "foreach": foreach,
            "fused": fused,
        }
        self._muon, self._adamw = torch_optimizers(own)
        # What torch's AdamW reads from a group besides, under whichever names this version of torch has.
        super().__init__(params, {**self._adamw.defaults, **own, "split": split, "use_muon": use_muon})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore after unpickling, copying and loading."""
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        if "_muon" not in self.__dict__:  # neither pickled nor copied: they hold nothing between two steps
            self._muon, self._adamw = torch_optimizers(self.defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, after a check of its values and parameters."""
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except InputError:
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient; `closure` runs with gradients enabled and gives the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["use_muon"]:
                self._step_muon(group)
        self._adamw.param_groups = [group for group in self.param_groups if not group["use_muon"]]
        self._adamw.state = self.state
        _step_without_hooks(self._adamw)
        return loss

    def _step_muon(self, group: dict[str, Any]) -> None:
        """Step one group of Muon's: the matrices that a process holds whole at once, DTensors one after the other."""
        whole: list[tuple[Tensor, Tensor, Tensor]] = []
        for param in group["params"]:
            if param.grad is None or not param.numel():
                continue
            state = self.state[param]
            if "momentum_buffer" not in state:
                like = param if is_dtensor(param) else param.grad
                state["momentum_buffer"] = torch.zeros_like(like, dtype=param.grad.dtype)
            held = (param.detach(), param.grad, state["momentum_buffer"])
            if is_dtensor(param):
                gathered = tuple(tensor.full_tensor() for tensor in held)
                self._step_matrices_(group, [gathered])
                _keep_shards_(held, gathered)
            else:
                whole.append(held)
        self._step_matrices_(group, whole)

    def _step_matrices_(self, group: dict[str, Any], whole: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Have torch's Muon step the stacked matrices of parameters, gradients and momenta.

        The matrices are views, made anew for each step: parameters may move or be cast between two steps, and nothing
        of a gradient outlives the step.
        """
        state: dict[Tensor, Any] = {}
        for held in whole:
            for part, grad, momentum in zip(*(tensor.chunk(group["split"]) for tensor in held), strict=True):
                part.grad = grad
                state[part] = {"momentum_buffer": momentum}
        own = {**self._muon.defaults, **group, "eps": group["ns_eps"]}  # defaults: other versions of torch read more
        self._muon.param_groups = [{**own, "params": list(state)}]
        self._muon.state = defaultdict(dict, state)
        _step_without_hooks(self._muon)
        self._muon.param_groups, self._muon.state = [], defaultdict(dict)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state bit for bit; what the pre-hooks return is loaded.

        Raises:
            InputError: the state is another optimizer's, or was made for other parameters. The optimizer is then
                unchanged.
        """

        def check(optimizer: Optimizer, loaded: dict[str, Any]) -> dict[str, Any]:
            return check_loaded(optimizer.param_groups, loaded)

        with ExitStack() as hooks:
            hooks.callback(self.register_load_state_dict_pre_hook(check).remove)  # after those of the user
            super().load_state_dict(state_dict)


def _step_without_hooks(optimizer: Muon | AdamW) -> None:
    """Step an inner optimizer, without the hooks that torch runs around every step: the outer one has run them."""
    unwrap(type(optimizer).step)(optimizer)


def _keep_shards_(held: tuple[Any, ...], gathered: tuple[Tensor, ...]) -> None:
    """Copy the whole parameter and momentum back into their shards."""
    from torch.distributed.tensor import distribute_tensor

    for tensor, full in ((held[0], gathered[0]), (held[2], gathered[2])):
        shard = distribute_tensor(full, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.to_local().copy_(shard.to_local())
