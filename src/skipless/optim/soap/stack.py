"""Parameters that SOAP updates as one batch: of one shape, group and step count, with their state in common tensors."""

import warnings
from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.optim.soap.eigenbasis import (
    accumulate_,
    initial_basis,
    orthogonal_iteration_,
    project,
    symmetrize_,
    unfold,
)
from skipless.optim.soap.layout import Layout
from skipless.optim.soap.state import state_dtype, state_shapes

_FACTOR_NDIM = 3


class Stack:
    """`b` tensors, `layout.split` from each parameter, and their state.

    `states[i]` is what the optimizer keeps for one parameter (see `state`). It holds views of the stack's tensors, so
    that no step has to gather or scatter. Others may replace what it holds: `is_current` notices.

    `factors` and `bases` have one entry for each dimension, `None` where the dimension is not preconditioned.
    """

    group: Mapping[str, Any]  # set at every step: others may replace a group
    exp_avg: Float[Tensor, "b ..."]
    exp_avg_sq: Float[Tensor, "b ..."]
    factors: list[Tensor | None]
    bases: list[Tensor | None]

    def __init__(
        self,
        params: list[Tensor],
        states: list[dict[str, Any]],
        indices: list[int],
        group_index: int,
        layout: Layout,
    ):
        self.params, self.states, self.indices, self.layout = params, states, indices, layout
        self.group_index = group_index
        self.names = list(state_shapes(layout))
        self.is_new = not states[0]
        self.nonfinite_counts = torch.zeros(len(params) * layout.split, dtype=torch.int64, device=params[0].device)
        if not self.is_new:
            self._concatenate_states()

    def is_current(self, state: Mapping[Tensor, Any]) -> bool:
        """Whether `state` still holds this stack's states: the same dicts, step count, tensors and memory.

        Others may replace a state or a tensor in it, or let a tensor have other memory (`tensor.data = ...`).
        """
        if self.is_new:
            return False
        held: list[Any] = []
        for param, own in zip(self.params, self.states, strict=True):
            if state.get(param) is not own or own.get("step") is not self.step:
                return False
            held += map(own.get, self.names)
        return all(map(is_, held, self._views)) and [*map(Tensor.data_ptr, self._views)] == self._addresses

    def retire(self, state: Mapping[Tensor, Any]) -> None:
        """Tell what only this stack knows, before other stacks take over from what `state` holds."""
        warn_nonfinite([self])
        if self.nonfinite_counts.device.type == "cpu":
            for param in self.params:
                for factor in factors_of(state.get(param, {})):
                    if (
                        factor.device.type != "cpu"
                    ):  # accumulated here, then moved by others with half of it out of date
                        factor.copy_(factor.tril() + factor.tril(-1).mT)

    def compute_updates_(self, grads: list[Tensor]) -> list[Tensor] | None:
        """Advance the state by the parameters' gradients.

        Returns:
            An update for each parameter, as `apply_updates_` takes it. `None` for the first gradient.
        """
        grad = self._stack_gradients(grads)
        if self.is_new:
            self._init_state(grad)
            return None
        updates = self._adam_updates(grad)
        self._accumulate_(grad)
        if self.step % self.group["precondition_frequency"] == 0:
            self._refresh_()
        return updates

    def _stack_gradients(self, grads: list[Tensor]) -> Float[Tensor, "b ..."]:
        """The gradients as one stack in the state's dtype; a tensor that is not finite counts as zero."""
        grad = torch.stack(grads) if len(grads) > 1 else grads[0][None]
        grad = self.layout.to_stack(grad).to(state_dtype(self.params[0]))
        # Squared as in the factors: a gradient may be finite where its factor is not.
        if grad.device.type == "cpu":  # on an accelerator, reading the norm would wait for it
            norm = torch.linalg.vector_norm(grad).item()
            if norm * norm <= torch.finfo(grad.dtype).max:
                return grad
        nonfinite = ~torch.linalg.vector_norm(grad, dim=tuple(range(1, grad.ndim)), keepdim=True).square().isfinite()
        self.nonfinite_counts += nonfinite.flatten()
        return torch.where(nonfinite, 0.0, grad)

    def _init_state(self, grad: Float[Tensor, "b ..."]) -> None:
        """Initialise the state from a first gradient."""
        self.exp_avg, self.exp_avg_sq = grad.new_zeros(grad.shape), grad.new_zeros(grad.shape)
        sides = zip(self.layout.dims, self.layout.preconditioned, strict=True)
        self.factors = [grad.new_zeros(len(grad), side, side) if has_basis else None for side, has_basis in sides]
        self._accumulate_(grad)
        self.bases = []
        for dim, factor in enumerate(self.factors):
            basis, failed = (None, []) if factor is None else initial_basis(unfold(grad, dim))
            self.bases.append(basis)
            if failed:
                self._warn("the gradient cannot be decomposed, and the basis starts from the identity:", failed)
        self._set_state_views(step=0)

    def _adam_updates(self, grad: Float[Tensor, "b ..."]) -> list[Tensor]:
        """Adam in the eigenbases: an update for each parameter, in the state's dtype."""
        group, (beta1, beta2) = self.group, map(float, self.group["betas"])
        self.step += 1
        for state in self.states:
            state["step"] = self.step
        rotated = project(grad, self.bases)
        self.exp_avg.lerp_(rotated, 1 - beta1)
        self.exp_avg_sq.mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
        denominator = self.exp_avg_sq.sqrt().add_(float(group["eps"]))
        update = project(torch.div(self.exp_avg, denominator, out=denominator), self.bases, back=True)
        if group["normalize_grads"]:
            update /= update.square().mean(tuple(range(1, update.ndim)), keepdim=True).sqrt() + 1e-30
        return list(self.layout.from_stack(update).unbind())

    def _accumulate_(self, grad: Float[Tensor, "b ..."]) -> None:
        """Accumulate a gradient into the factors."""
        beta = float(self.group["shampoo_beta"])
        beta = beta if beta >= 0 else float(self.group["betas"][1])
        for dim, factor in enumerate(self.factors):
            if factor is not None:
                accumulate_(factor, unfold(grad, dim), beta)

    def _refresh_(self) -> None:
        """Turn the bases towards the factors' present eigenvectors.

        The first moment is rotated into the new bases. The second moment is never rotated, as in the reference.
        """
        momentum = project(self.exp_avg, self.bases, back=True)
        for factor, basis in zip(self.factors, self.bases, strict=True):
            if factor is not None and basis is not None:
                orthogonal_iteration_(basis, factor)
        self.exp_avg.copy_(project(momentum, self.bases))

    def _set_state_views(self, step: int) -> None:
        """Make every parameter's state a view of the stack's tensors."""
        self.step, self.is_new = step, False
        for index, state in enumerate(self.states):
            part = slice(index * self.layout.split, (index + 1) * self.layout.split)
            state["step"] = step
            for name, tensor in zip(self.names, self._tensors(), strict=True):
                state[name] = tensor[part]
        self._views = [state[name] for state in self.states for name in self.names]
        self._addresses = [view.data_ptr() for view in self._views]

    def _tensors(self) -> list[Tensor]:
        """The stack's tensors, in the order of their names in a state."""
        tensors = (self.exp_avg, self.exp_avg_sq, *self.factors, *self.bases)
        return [tensor for tensor in tensors if tensor is not None]

    def _concatenate_states(self) -> None:
        """Concatenate the states of the parameters, in the dtype and on the device that the parameters have by now."""
        for state in self.states:
            for factor in factors_of(state):  # before they move: an accelerator reads the upper triangles too
                symmetrize_(factor)
        like = torch.empty(0, dtype=state_dtype(self.params[0]), device=self.params[0].device)
        joined = {name: _cat([state[name] for state in self.states], like) for name in self.names}
        dims = range(len(self.layout.dims))
        self.exp_avg, self.exp_avg_sq = joined["exp_avg"], joined["exp_avg_sq"]
        self.factors = [joined.get(f"factor_{dim}") for dim in dims]
        self.bases = [joined.get(f"basis_{dim}") for dim in dims]
        self._set_state_views(int(self.states[0]["step"]))

    @property
    def is_fresh(self) -> bool:
        """Whether the last step made or turned the bases."""
        return self.step % self.group["precondition_frequency"] == 0

    def warn_of_counts(self, counts: Sequence[int]) -> None:
        """Warn of gradients that were not finite, given `nonfinite_counts`, and count anew."""
        if nonfinite := [index for index, count in enumerate(counts) if count]:
            self.nonfinite_counts.zero_()
            self._warn("gradients that are not finite were taken as zero since the last refresh:", nonfinite)

    def _warn(self, what: str, tensors: Sequence[int]) -> None:
        """Warn of what happened to some tensors of the stack, by their parameters' index in the optimizer."""
        indices = sorted({self.indices[tensor // self.layout.split] for tensor in tensors})
        named = ", ".join(f"parameter {index}" for index in indices)
        warnings.warn(f"SOAP: {what} {named} (shape {self.layout.shape})", RuntimeWarning, stacklevel=2)


def warn_nonfinite(stacks: Sequence[Stack]) -> None:
    """Warn of gradients that were not finite, if there were any since the last call; each device is read once."""
    devices: dict[torch.device, list[Stack]] = {}
    for stack in stacks:
        devices.setdefault(stack.nonfinite_counts.device, []).append(stack)
    for members in devices.values():
        counts = iter(torch.cat([stack.nonfinite_counts for stack in members]).cpu().tolist())
        for stack in members:
            stack.warn_of_counts([next(counts) for _ in range(len(stack.nonfinite_counts))])


def factors_of(state: Mapping[str, Any]) -> list[Tensor]:
    """List the factors in a parameter's state. On a CPU their upper triangles may be out of date."""
    named = [value for name, value in state.items() if str(name).startswith("factor_") and isinstance(value, Tensor)]
    return [factor for factor in named if factor.ndim == _FACTOR_NDIM and factor.shape[1] == factor.shape[2]]


def _cat(parts: list[Tensor], like: Tensor) -> Tensor:
    """Concatenate tensors in the dtype and on the device of `like`; a single one is taken as it is where it can be."""
    parts = [part.detach().to(like) for part in parts]
    return torch.cat(parts) if len(parts) > 1 else parts[0].contiguous()


def apply_updates_(params: list[Tensor], updates: list[Tensor], group: Mapping[str, Any], step: int) -> None:
    """Move parameters of one dtype by their updates, with Adam's bias correction, then decay them.

    That is `p <- keep * (p - step_size * update)`. Parameters in half precision are rounded only once.
    """
    lr = step_size = float(group["lr"])
    if group["correct_bias"]:
        beta1, beta2 = map(float, group["betas"])
        step_size *= (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    keep = 1 - lr * float(group["weight_decay"])
    if params[0].dtype == updates[0].dtype:
        if keep != 1:  # added, not multiplied: 1 - 1e-6 has lost half of its digits in fp32; and it is faster
            torch._foreach_add_(params, params, alpha=keep - 1)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(params, updates, alpha=-keep * step_size)  # pyright: ignore[reportPrivateImportUsage]
        return
    for param, update in zip(params, updates, strict=True):
        param.copy_(param.to(update.dtype).sub_(update, alpha=step_size).mul_(keep))
