"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv 2409.11321).

Every call but a parameter's first rotates its gradient into the eigenbases, lets Adam choose the step there and rotates
that back. The first moment *lives* in the eigenbases and is turned only when they are, the bases are refreshed every
`precondition_frequency` calls, and parameters of one shape go through all this as one stack. Several processes can
share the work out (`shares`). `docs/soap.md` says what is exact and what is ours.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from skipless.errors import InputError
from skipless.optim.soap.collectives import is_first, is_sharded
from skipless.optim.soap.eigenbasis import symmetric_
from skipless.optim.soap.layout import Layout
from skipless.optim.soap.sharding import Shares
from skipless.optim.soap.stack import Stack, check_state, descend_, state_dtype
from skipless.optim.soap.validate import check_group

# What shapes a parameter's state; a change after its first gradient is an error.
_SHAPING = ("max_precond_dim", "merge_dims", "precondition_1d", "data_format", "split")

# Entries up to which matrices of different parameters share a stack. On one CPU core this saves a fifth of an ordinary
# step at 256 x 64, a tenth at 512 x 128 and nothing at 384 x 384.
_STACKED = 2**16


class SOAP(Optimizer):
    """Shampoo with Adam in the preconditioner's eigenbasis.

    The names are the reference's; all may differ by group, and a changed value in `param_groups` takes effect at the
    next step, except for those that shape the state (`max_precond_dim`, `merge_dims`, `precondition_1d`, `data_format`,
    `split`): changing these after a parameter's first gradient is an `InputError`.

    Args:
        params: parameters or groups, as for any optimizer.
        lr: learning rate.
        betas: decay of the first and of the second moment, per step.
        shampoo_beta: decay of the preconditioner's factors, per step; negative: `betas[1]`.
        eps: added to the root of the second moment.
        weight_decay: decoupled: after the update the parameter shrinks by `lr * weight_decay`.
        precondition_frequency: steps between two refreshes of the eigenbases.
        max_precond_dim: a longer side keeps the identity for its basis, without work or state.
        merge_dims: join neighbouring sides of a tensor while their product is at most `max_precond_dim`.
        precondition_1d: give vectors an eigenbasis too; else they get plain Adam.
        normalize_grads: scale every matrix's update to a root mean square of one.
        data_format: layout of 4-D parameters; matters where `merge_dims` joins sides.
        correct_bias: Adam's bias correction.
        split: rows of the parameters are this many matrices stacked, each with its own bases (fused qkv: 3).
        share: where `torch.distributed` has several processes, which then must hold the same parameters and gradients:
            each keeps the state of a part of the parameters, moves these, and all take its values. DTensors, as
            `fully_shard` makes them, are shared out among the holders of their shards in any case. Every step is then
            a collective operation; the processes are looked up at the first one.

    Parameters in bf16 and fp16 keep their state in fp32, all others in their own dtype. The first gradient of a
    parameter only warms its preconditioner: it moves nothing. A matrix whose gradient is not finite is treated as if
    its gradient were zero, with a `RuntimeWarning` at the next refresh.

    Example:
        >>> weight = torch.nn.Parameter(torch.eye(3))
        >>> optimizer = SOAP([weight], lr=0.1)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     weight.square().sum().backward()
        ...     optimizer.step()
        >>> bool(weight.square().sum() < 3)
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        shampoo_beta: float = -1.0,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        max_precond_dim: int = 10000,
        merge_dims: bool = False,
        precondition_1d: bool = False,
        normalize_grads: bool = False,
        data_format: Literal["channels_first", "channels_last"] = "channels_first",
        correct_bias: bool = True,
        split: int = 1,
        *,
        share: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "shampoo_beta": shampoo_beta,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "max_precond_dim": max_precond_dim,
            "merge_dims": merge_dims,
            "precondition_1d": precondition_1d,
            "normalize_grads": normalize_grads,
            "data_format": data_format,
            "correct_bias": correct_bias,
            "split": split,
        }
        self.share, self._shares = share, Shares()
        self._stacks: list[Stack] = []
        self._arranged: object = None
        super().__init__(params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        """What pickling and copying keep: no process group can be."""
        return {**super().__getstate__(), "share": self.share}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore after unpickling, copying and loading; stacks are built anew from the state."""
        super().__setstate__(state)
        self.__dict__.setdefault("share", False)
        self.__dict__.setdefault("_shares", Shares())
        for group in self.param_groups:
            for name in self.defaults.keys() - {"differentiable"}:  # torch's own, which no group holds
                group.setdefault(name, self.defaults[name])
        self._stacks, self._arranged = [], None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its values are checked and its parameters must be real."""
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
            _check_real(self.param_groups[-1]["params"])
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
        live = self._live()
        self._settle()
        for team in self._shares.teams:
            team.agree()
        whole = {param: grad for team in self._shares.teams for param, grad in team.gather_gradients().items()}
        updates: dict[Tensor, Tensor] = {}
        stacks = self._arrange([(param, index) for param, index in live if self._shares.mine(param)])
        with _full_precision({stack.params[0].device.type for stack in stacks}):
            for stack in stacks:
                moves = stack.advance_([whole.get(p, p.grad) for p in stack.params])  # pyright: ignore[reportArgumentType]
                if moves is not None and not is_sharded(stack.params[0]):
                    descend_(stack.params, moves, stack.group, stack.states[0]["step"])
                elif moves is not None:
                    updates.update(zip(stack.params, moves, strict=True))
        if self._shares.teams:
            self._share_(live, updates)
        return loss

    def _share_(self, live: list[tuple[Tensor, int]], updates: dict[Tensor, Tensor]) -> None:
        """Bring what this rank has made to the others, and what they have made here."""
        for param, _ in live:
            if not self._shares.mine(param):
                self.state[param]["step"] = self.state[param].get("step", -1) + 1
        for team in self._shares.teams:
            team.publish_()
            shards = team.scatter_updates(updates)
            for param, index in live:
                if param in shards and (step := self.state[param]["step"]) > 0:
                    local: Tensor = param.to_local()  # pyright: ignore[reportAttributeAccessIssue]
                    descend_([local], [shards[param]], self.param_groups[index], step)

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and dicts only, and every tensor with a storage of its own.

        Of a parameter whose state another rank keeps there is only the `step`, and such a dict cannot be loaded:
        `full_state_dict` has everything.
        """
        saved = self._packed()
        saved["state"] = _map_tensors(_own, saved["state"])
        return saved

    def full_state_dict(self) -> dict[str, Any] | None:
        """`state_dict` of all ranks, on the CPU; on rank 0 only, `None` on the others. All must call it."""
        self._settle()
        saved = self._packed()
        held, saved["state"] = saved["state"], {}
        params = [(param, group) for group in self.param_groups for param in group["params"]]
        for index, (param, group) in enumerate(params):
            if state := held.get(index):
                team = self._shares.team(param)
                state = team.at_first(param, state, Layout.of(param, group)) if team else state
                saved["state"][index] = _map_tensors(_to_cpu, state) if is_first() else None
        return saved if is_first() else None

    def _packed(self) -> dict[str, Any]:
        """The state under the parameters' places, its tensors not yet copied."""
        for state in self.state.values():
            for factor in state.get("factors", []):
                if factor is not None:
                    symmetric_(factor)
        saved = super().state_dict()
        saved["state"] = dict(saved["state"])
        saved["param_groups"] = [{**group, "betas": list(group["betas"])} for group in saved["param_groups"]]
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore bit for bit: tensors move to their parameter's device.

        The state of a model in another dtype is cast to the one that this model's state has.

        Shared out, every rank is given the whole state, whatever the number of ranks that made it, and keeps its part.

        Raises:
            InputError: the state is another optimizer's, or was made for other parameters or another layout.
        """
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        try:
            super().load_state_dict({**state_dict, "state": {}})
        except ValueError as error:
            raise InputError(f"SOAP: {error}: the checkpoint is of another model or of other groups") from error
        self._settle()
        params = [(param, group) for group in self.param_groups for param in group["params"]]
        for index, (param, group) in zip(saved, params, strict=True):
            if state := state_dict["state"].get(index):
                check_state(state, Layout.of(param, group))
                state = state if self._shares.mine(param) else {"step": state["step"]}
                moved = partial(_moved, device=param.device, dtype=state_dtype(param))
                self.state[param] = _map_tensors(moved, state)

    def _settle(self) -> None:
        """Find out which rank keeps what; what others keep is let go here."""
        if self._shares.settle(self.param_groups, share=self.share):
            for param, state in self.state.items():
                if state and not self._shares.mine(param):
                    self.state[param] = {"step": state["step"]}
            self._arranged = None

    def _live(self) -> list[tuple[Tensor, int]]:
        """Parameters that have entries and a gradient, with their groups."""
        live = []
        for index, group in enumerate(self.param_groups):
            check_group(group)
            for param in group["params"]:
                if (grad := param.grad) is not None and param.numel():
                    live.append((param, index))
                    if grad.layout is not torch.strided:
                        raise InputError(
                            f"SOAP: a parameter of shape {tuple(param.shape)} has a sparse gradient; SOAP takes dense "
                            "ones: give such parameters to another optimizer"
                        )
        return live

    def _arrange(self, live: list[tuple[Tensor, int]]) -> list[Stack]:
        """Stacks of these parameters: those of the last step unless something has changed."""
        arranged = [[id(p) for p, _ in live], [[group[key] for key in _SHAPING] for group in self.param_groups]]
        if arranged != self._arranged or not all(stack.holds(self.state) for stack in self._stacks):
            self._stacks = self._stacked(live)
            self._arranged = arranged
        return self._stacks

    def _stacked(self, live: list[tuple[Tensor, int]]) -> list[Stack]:
        """Group parameters that can share a stack: of one group, layout, dtype, device and age."""
        places = {id(p): place for place, p in enumerate(p for group in self.param_groups for p in group["params"])}
        members: dict[Any, list[Tensor]] = {}
        for param, index in live:
            layout = Layout.of(param, self.param_groups[index])
            alone = prod(layout.sides) > _STACKED
            age = self.state[param].get("step", -1)
            kind = (param.dtype, param.device, is_sharded(param))
            key = (index, layout, kind, age, id(param) if alone else None)
            members.setdefault(key, []).append(param)
        return [
            Stack(
                params,
                [self.state[p] for p in params],
                [places[id(p)] for p in params],
                self.param_groups[index],
                layout,
            )
            for (index, layout, *_), params in members.items()
        ]


def _check_real(params: list[Tensor]) -> None:
    for param in params:
        if not param.is_floating_point():
            raise InputError(
                f"SOAP: a parameter of shape {tuple(param.shape)} is {param.dtype}; SOAP takes real floating-point "
                "ones: give such parameters to another optimizer"
            )


def _map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to every tensor in nested dicts and lists."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _map_tensors(change, item) for key, item in value.items()}
    return [_map_tensors(change, item) for item in value] if isinstance(value, list) else value


def _own(tensor: Tensor) -> Tensor:
    """Part a tensor from the stack that it is a view of."""
    return tensor.clone() if tensor.nbytes < tensor.untyped_storage().nbytes() else tensor


def _to_cpu(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU: training goes on while the copy is written."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _moved(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copy a tensor to a device, in a dtype."""
    return tensor.detach().to(device, dtype, copy=True).contiguous()


@contextmanager
def _full_precision(devices: Iterable[str]) -> Iterator[None]:
    """Keep TF32, bf16 matrix units and autocast out: they break the eigenvalue estimates."""
    backends: Any = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # pyright: ignore
    before = [backend.fp32_precision for backend in backends]
    try:
        overall = torch.get_float32_matmul_precision()
    except RuntimeError:  # the backends were set one by one; then this is what is underneath
        overall = "highest"
    with ExitStack() as stack:
        for backend, precision in zip(backends, before, strict=True):
            stack.callback(setattr, backend, "fp32_precision", precision)
        stack.callback(torch.set_float32_matmul_precision, overall)
        torch.set_float32_matmul_precision("highest")
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield
