"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv 2409.11321).

Every step rotates a parameter's gradient into the eigenbases, computes Adam's update there and rotates the update back.
A parameter's first gradient is an exception: it only initialises the eigenbases. The bases are refreshed every
`precondition_frequency` steps. The first moment *lives* in the eigenbases and is rotated only when they are refreshed.
Parameters of one shape are updated together (`stack`). Several processes can shard the state (`state_sharding`).
`docs/soap.md` says what equals the authors' implementation and what differs from it.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from math import prod
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from skipless.errors import InputError
from skipless.optim.soap.collectives import is_dtensor, is_rank_zero
from skipless.optim.soap.eigenbasis import symmetrize_
from skipless.optim.soap.layout import Layout
from skipless.optim.soap.stack import Stack, apply_updates_, factors_of, warn_nonfinite
from skipless.optim.soap.state import check_state, flat_state, is_absent, state_dtype
from skipless.optim.soap.state_sharding import StateSharding
from skipless.optim.soap.tensors import copy_to, copy_to_cpu, map_tensors, own_storage
from skipless.optim.soap.validate import check_group, check_real
from skipless.precision import full_precision

# Hyperparameters that determine a parameter's layout; a change after its first gradient is an error.
_LAYOUT_KEYS = ("max_precond_dim", "merge_dims", "precondition_1d", "data_format", "split")

# A tensor of more entries gets a stack of its own. On one CPU core, common stacks save a fifth of an ordinary step at
# 256 x 64, a tenth at 512 x 128 and nothing at 384 x 384.
_MAX_STACKED_NUMEL = 2**16


class SOAP(Optimizer):
    """Shampoo with Adam in the preconditioner's eigenbasis.

    The names are the reference's. All values may differ by group, and a changed value in `param_groups` takes effect at
    the next step. The exceptions are those that determine the layout of the state (`max_precond_dim`, `merge_dims`,
    `precondition_1d`, `data_format`, `split`): changing these after a parameter's first gradient is an `InputError`.

    Args:
        params: parameters or groups, as for any optimizer.
        lr: learning rate; a number, or a tensor of one entry.
        betas: decay of the first and of the second moment, per step.
        shampoo_beta: decay of the preconditioner's factors, per step; negative: `betas[1]`.
        eps: added to the root of the second moment.
        weight_decay: decoupled: after the update the parameter shrinks by `lr * weight_decay`.
        precondition_frequency: steps between two refreshes of the eigenbases.
        max_precond_dim: a longer dimension keeps the identity for its basis, without work or state.
        merge_dims: merge neighbouring dimensions of a tensor while their product is at most `max_precond_dim`.
        precondition_1d: give vectors an eigenbasis too; otherwise they get plain Adam.
        normalize_grads: scale every matrix's update to a root mean square of one.
        data_format: layout of 4-D parameters; matters where `merge_dims` merges dimensions.
        correct_bias: Adam's bias correction.
        split: the rows of a parameter are this many matrices stacked, each with its own bases (fused qkv: 3).
        share: shard the state over the processes of `torch.distributed`, if there are several. All of them must hold
            the same parameters and gradients. Each process keeps the state of a part of the parameters and updates
            these; then all processes take over the new values. The state of DTensors, as `fully_shard` makes them, is
            sharded over the ranks that hold their shards in any case. With a sharded state every step is a collective
            operation. The processes are looked up at the first step.

    Parameters in bf16 and fp16 keep their state in fp32, all others in their own dtype. The first gradient of a
    parameter only initialises its preconditioner and moves nothing. A matrix whose gradient is not finite is treated as
    if its gradient were zero, with a `RuntimeWarning` at the next refresh.

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
        lr: float | Tensor = 3e-3,
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
        self.share, self._sharding = share, StateSharding()
        self._stacks: list[Stack] = []
        self._stacked_for: object = None
        super().__init__(params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        """What pickling and copying keep. Process groups cannot be pickled."""
        self._fill_factors()
        return {**super().__getstate__(), "share": self.share}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore after unpickling, copying and loading; the stacks are rebuilt from the state."""
        super().__setstate__(state)
        self.__dict__.setdefault("share", False)
        self.__dict__.setdefault("_sharding", StateSharding())
        for group in self.param_groups:
            for name in self.defaults.keys() - {"differentiable"}:  # torch's own, which no group holds
                group.setdefault(name, self.defaults[name])
        for param in [param for param in self.state if isinstance(param, Tensor)]:
            self.state[param] = flat_state(self.state[param])
        self._stacks, self._stacked_for = [], None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, after a check of its values; its parameters must be real."""
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
            check_real(self.param_groups[-1]["params"])
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
        with_grad = self._params_with_grad()
        self._assign_owners()
        shard_groups = self._sharding.shard_groups
        for shard_group in shard_groups:
            shard_group.verify_params()
        gathered = {param: grad for group in shard_groups for param, grad in group.gather_gradients().items()}
        updates: dict[Tensor, Tensor] = {}
        stacks = self._get_stacks([(param, index) for param, index in with_grad if self._sharding.owns(param)])
        with full_precision({stack.params[0].device.type for stack in stacks}):
            for stack in stacks:
                grads = [gathered.get(p, p.grad) for p in stack.params]
                own = stack.compute_updates_(grads)  # pyright: ignore[reportArgumentType]
                if own is not None and not is_dtensor(stack.params[0]):
                    apply_updates_(stack.params, own, stack.group, stack.states[0]["step"])
                elif own is not None:
                    updates.update(zip(stack.params, own, strict=True))
        if shard_groups:
            self._exchange_updates_(with_grad, updates)
        warn_nonfinite([stack for stack in stacks if stack.is_fresh])
        return loss

    def _exchange_updates_(self, with_grad: list[tuple[Tensor, int]], updates: dict[Tensor, Tensor]) -> None:
        """Send the values and updates that this rank has computed, and apply those of the other ranks."""
        for param, _ in with_grad:
            if not self._sharding.owns(param):
                self.state[param]["step"] = self.state[param].get("step", -1) + 1
        for shard_group in self._sharding.shard_groups:
            shard_group.sync_params_()
            shards = shard_group.scatter_updates(updates)
            for param, index in with_grad:
                if param in shards and (step := self.state[param]["step"]) > 0:
                    local: Tensor = param.to_local()  # pyright: ignore[reportAttributeAccessIssue]
                    apply_updates_([local], [shards[param]], self.param_groups[index], step)

    def state_dict(self) -> dict[str, Any]:
        """A snapshot of the state: tensors, numbers, strings, lists and dicts; every tensor is a copy.

        Raises:
            InputError: the state is sharded, so that this process has a part only, which cannot be loaded; or it holds
                the state of a parameter that is in no group any more.
        """

        def copy_state(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
            is_sharded = any(shard_group.world_size > 1 for shard_group in self._sharding.shard_groups)
            if is_sharded and any(self.state.values()):
                raise InputError(
                    "SOAP: the state is sharded over several processes, and this process has a part only, which cannot "
                    "be loaded: call gathered_state(optimizer) on all of them"
                )
            return map_tensors(own_storage, saved)

        return self._state_dict_with(copy_state)

    def full_state_dict(self) -> dict[str, Any] | None:
        """The state of all ranks, on the CPU of rank 0; `None` on all other ranks. All ranks must call it.

        On the other ranks, hooks get a dict without states.
        """

        def gather_state(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
            local, gathered = dict(saved["state"]), {}
            for index, (param, group) in enumerate(self._params_with_group()):
                if state := local.pop(index, None):
                    shard_group = self._sharding.shard_group(param)
                    whole = shard_group.gather_state(param, state, Layout.of(param, group)) if shard_group else state
                    gathered[index] = map_tensors(copy_to_cpu, whole) if is_rank_zero() else None
            rest = {**saved, "state": local}
            if not is_rank_zero():
                return {**rest, "state": {}}
            saved = map_tensors(copy_to_cpu, rest)
            return {**saved, "state": gathered | saved["state"]}

        saved = self._state_dict_with(gather_state)
        return saved if is_rank_zero() else None

    def _state_dict_with(self, finish: Callable[[Optimizer, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """The state under the parameters' indices; `finish` copies it, between the user's pre-hooks and post-hooks."""

        def prepare(_: Optimizer) -> None:
            self._assign_owners()
            self._fill_factors()
            known = {id(param) for param, _ in self._params_with_group()}
            for param in self.state:
                if isinstance(param, Tensor) and id(param) not in known:
                    raise InputError(
                        f"SOAP: a parameter of shape {tuple(param.shape)} is in no group, but still has a state: also "
                        "delete optimizer.state[parameter]"
                    )

        def finish_plain(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
            groups = [
                {key: list(value) if isinstance(value, tuple) else value for key, value in group.items()}
                for group in saved["param_groups"]
            ]
            return finish(self, {**saved, "param_groups": groups})

        with ExitStack() as hooks:
            hooks.callback(self.register_state_dict_pre_hook(prepare).remove)
            hooks.callback(self.register_state_dict_post_hook(finish_plain, prepend=True).remove)
            return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state bit for bit; tensors are copied to their parameter's device.

        What the pre-hooks return is loaded; post-hooks come last. The state of a model in another dtype is cast to the
        dtype of this model's state. If the state is sharded, every rank passes the whole state, from any number of
        ranks, and keeps its part.

        Raises:
            InputError: the state is another optimizer's, or was made for other parameters or another layout. The
                optimizer is then unchanged.
        """
        states: dict[Tensor, dict[str, Any]] = {}

        def take(_: Optimizer, loaded: dict[str, Any]) -> dict[str, Any]:
            """Torch would cast the states to the parameters' dtypes, so they are not left to it."""
            by_key = self._match_params(loaded)
            for key, (param, group) in by_key.items():
                if not is_absent(state := loaded["state"].get(key)):
                    states[param] = flat_state(state)
                    check_state(states[param], Layout.of(param, group))
            return {**loaded, "state": {key: own for key, own in loaded["state"].items() if key not in by_key}}

        def put(_: Optimizer) -> None:
            self._assign_owners()
            for param, state in states.items():
                kept = state if self._sharding.owns(param) else {"step": state["step"]}
                copied = partial(copy_to, device=param.device, dtype=state_dtype(param))
                self.state[param] = {**map_tensors(copied, kept), "step": int(state["step"])}

        with ExitStack() as hooks:
            hooks.callback(self.register_load_state_dict_pre_hook(take).remove)
            hooks.callback(self.register_load_state_dict_post_hook(put, prepend=True).remove)
            super().load_state_dict(state_dict)

    def _match_params(self, loaded: dict[str, Any]) -> dict[Any, tuple[Tensor, dict[str, Any]]]:
        """This optimizer's parameters by their keys in a state dict, each with the group that it will have."""
        if missing := {"state", "param_groups"} - loaded.keys():
            raise InputError(f"SOAP: no state dict of an optimizer: it lacks {', '.join(sorted(missing))}")
        counts, own_counts = (
            [len(group["params"]) for group in groups] for groups in (loaded["param_groups"], self.param_groups)
        )
        if counts != own_counts:
            raise InputError(
                f"SOAP: the checkpoint has groups of {counts} parameters, this optimizer of {own_counts}: the "
                "checkpoint is of another model or of other groups"
            )
        matched: dict[Any, tuple[Tensor, dict[str, Any]]] = {}
        for saved, own in zip(loaded["param_groups"], self.param_groups, strict=True):
            group = {**self.defaults, **saved}
            check_group(group)
            matched |= {key: (param, group) for key, param in zip(saved["params"], own["params"], strict=True)}
        return matched

    def _params_with_group(self) -> list[tuple[Tensor, dict[str, Any]]]:
        """All parameters, in the order of their indices in a state dict, each with its group."""
        return [(param, group) for group in self.param_groups for param in group["params"]]

    @torch.no_grad()
    def _fill_factors(self) -> None:
        """Make all factors whole, because others will read them."""
        for param, state in self.state.items():
            if isinstance(param, Tensor):
                for factor in factors_of(state):
                    symmetrize_(factor)

    def _assign_owners(self) -> None:
        """Decide which rank keeps which state, and drop the states here that other ranks keep."""
        if self._sharding.assign_owners(self.param_groups, share=self.share):
            for param, _ in self._params_with_group():
                if (state := self.state.get(param)) and not self._sharding.owns(param):
                    self.state[param] = {"step": state["step"]}
            self._stacked_for = None

    def _params_with_grad(self) -> list[tuple[Tensor, int]]:
        """Parameters that have entries and a gradient, each with the index of its group."""
        with_grad = []
        for index, group in enumerate(self.param_groups):
            check_group(group)
            for param in group["params"]:
                if (grad := param.grad) is not None and param.numel():
                    with_grad.append((param, index))
                    if grad.layout is not torch.strided:
                        raise InputError(
                            f"SOAP: a parameter of shape {tuple(param.shape)} has a sparse gradient; SOAP takes dense "
                            "ones: give such parameters to another optimizer"
                        )
        return with_grad

    def _get_stacks(self, with_grad: list[tuple[Tensor, int]]) -> list[Stack]:
        """Stacks of these parameters: those of the last step unless something has changed.

        Between two steps others may deal parameters to other groups, cast, move or replace their data, and replace
        groups, states and the tensors in them.
        """
        stacked_for = [
            [(id(p), index, type(p), p.dtype, p.device, p.shape) for p, index in with_grad],
            [[group[key] for key in _LAYOUT_KEYS] for group in self.param_groups],
        ]
        if stacked_for != self._stacked_for or not all(stack.is_current(self.state) for stack in self._stacks):
            self._stacked_for = None
            for stack in self._stacks:
                stack.retire(self.state)
            self._stacks = self._build_stacks(with_grad)
            self._stacked_for = stacked_for
        for stack in self._stacks:
            stack.group = self.param_groups[stack.group_index]
        return self._stacks

    def _build_stacks(self, with_grad: list[tuple[Tensor, int]]) -> list[Stack]:
        """Put parameters of one group, layout, dtype, device and step count into one stack."""
        check_real(param for param, _ in with_grad)
        indices = {id(param): index for index, (param, _) in enumerate(self._params_with_group())}
        members: dict[Any, list[Tensor]] = {}
        for param, index in with_grad:
            layout = Layout.of(param, self.param_groups[index])
            alone = prod(layout.dims) > _MAX_STACKED_NUMEL
            if state := self.state.setdefault(param, {}):
                check_state(state, layout)
            step = int(state.get("step", -1))
            kind = (param.dtype, param.device, is_dtensor(param))
            key = (index, layout, kind, step, id(param) if alone else None)
            members.setdefault(key, []).append(param)
        return [
            Stack(params, [self.state[p] for p in params], [indices[id(p)] for p in params], index, layout)
            for (index, layout, *_), params in members.items()
        ]
