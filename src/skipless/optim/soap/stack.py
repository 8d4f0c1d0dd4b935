"""Parameters that SOAP updates as one batch: of one shape, group and step count, with their state in common tensors."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.errors import InputError
from skipless.optim.soap.eigenbasis import accumulate_, initial_basis, orthogonal_iteration_, project, unfold
from skipless.optim.soap.layout import Layout


def state_dtype(param: Tensor) -> torch.dtype:
    """The dtype of a parameter's state: fp32 for half precision, else the parameter's own."""
    return torch.promote_types(param.dtype, torch.float32)


class Stack:
    """`b` tensors, `layout.split` from each parameter, and their state.

    `states[i]` is what the optimizer keeps for one parameter. It holds views of the stack's tensors, so that no step
    has to gather or scatter:

    - `step`: updates so far; 0 after the first gradient, which only initialises the preconditioner.
    - `exp_avg`, `exp_avg_sq`: the moments in the eigenbases, `(split, *dims)`.
    - `factors`, `bases`: one for each dimension, `(split, s, s)` (see `eigenbasis`); `None` where the dimension is not
      preconditioned.
    """

    exp_avg: Float[Tensor, "b ..."]
    exp_avg_sq: Float[Tensor, "b ..."]
    factors: list[Tensor | None]
    bases: list[Tensor | None]

    def __init__(
        self,
        params: list[Tensor],
        states: list[dict[str, Any]],
        indices: list[int],
        group: dict[str, Any],
        layout: Layout,
    ):
        self.params, self.states, self.indices, self.group, self.layout = params, states, indices, group, layout
        self.dtype_and_device = params[0].dtype, params[0].device
        self.is_new = not states[0]
        self.nonfinite_counts = torch.zeros(len(params) * layout.split, dtype=torch.int64, device=params[0].device)
        if not self.is_new:
            self._concatenate_states()

    def is_current(self, state: Mapping[Tensor, Any]) -> bool:
        """Whether the parameters have been neither moved nor cast, and `state` still holds this stack's states."""
        now = self.params[0].dtype, self.params[0].device
        return now == self.dtype_and_device and all(
            state.get(param) is own for param, own in zip(self.params, self.states, strict=True)
        )

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
        if self.states[0]["step"] % self.group["precondition_frequency"] == 0:
            self._refresh_()
            self._warn_nonfinite()
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
        sizes = _factor_sizes(self.layout)
        self.factors = [None if size is None else grad.new_zeros(len(grad), size, size) for size in sizes]
        self._accumulate_(grad)
        self.bases = []
        for dim, factor in enumerate(self.factors):
            basis, failed = (None, []) if factor is None else initial_basis(unfold(grad, dim))
            self.bases.append(basis)
            if failed:
                self._warn("the gradient cannot be decomposed, and the basis starts from the identity:", failed)
        self._set_state_views(step=0)
        self._warn_nonfinite()

    def _adam_updates(self, grad: Float[Tensor, "b ..."]) -> list[Tensor]:
        """Adam in the eigenbases: an update for each parameter, in the state's dtype."""
        group, (beta1, beta2) = self.group, self.group["betas"]
        step = self.states[0]["step"] + 1
        for state in self.states:
            state["step"] = step
        rotated = project(grad, self.bases)
        self.exp_avg.lerp_(rotated, 1 - beta1)
        self.exp_avg_sq.mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
        denominator = self.exp_avg_sq.sqrt().add_(group["eps"])
        update = project(torch.div(self.exp_avg, denominator, out=denominator), self.bases, back=True)
        if group["normalize_grads"]:
            update /= update.square().mean(tuple(range(1, update.ndim)), keepdim=True).sqrt() + 1e-30
        return list(self.layout.from_stack(update).unbind())

    def _accumulate_(self, grad: Float[Tensor, "b ..."]) -> None:
        """Accumulate a gradient into the factors."""
        beta = self.group["shampoo_beta"]
        beta = beta if beta >= 0 else self.group["betas"][1]
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
        for index, state in enumerate(self.states):
            part = slice(index * self.layout.split, (index + 1) * self.layout.split)
            state["step"] = step
            state["exp_avg"], state["exp_avg_sq"] = self.exp_avg[part], self.exp_avg_sq[part]
            state["factors"] = [None if factor is None else factor[part] for factor in self.factors]
            state["bases"] = [None if basis is None else basis[part] for basis in self.bases]
        self.is_new = False

    def _concatenate_states(self) -> None:
        """Concatenate the states of the parameters, in the dtype and on the device that the parameters have by now."""
        states, dims = self.states, range(len(self.layout.dims))
        for state in states:
            check_state(state, self.layout)
        like = torch.empty(0, dtype=state_dtype(self.params[0]), device=self.params[0].device)
        self.exp_avg = _cat([state["exp_avg"] for state in states]).to(like)
        self.exp_avg_sq = _cat([state["exp_avg_sq"] for state in states]).to(like)
        self.factors = [_cat_or_none([state["factors"][dim] for state in states], like) for dim in dims]
        self.bases = [_cat_or_none([state["bases"][dim] for state in states], like) for dim in dims]
        self._set_state_views(states[0]["step"])

    def _warn_nonfinite(self) -> None:
        if nonfinite := self.nonfinite_counts.nonzero().flatten().tolist():
            self.nonfinite_counts.zero_()
            self._warn("gradients that are not finite were taken as zero since the last refresh:", nonfinite)

    def _warn(self, what: str, tensors: Sequence[int]) -> None:
        """Warn of what happened to some tensors of the stack, by their parameters' index in the optimizer."""
        indices = sorted({self.indices[tensor // self.layout.split] for tensor in tensors})
        named = ", ".join(f"parameter {index}" for index in indices)
        warnings.warn(f"SOAP: {what} {named} (shape {self.layout.shape})", RuntimeWarning, stacklevel=2)


def check_state(state: Mapping[str, Any], layout: Layout) -> None:
    """Raise `InputError` unless a parameter's state is SOAP's and of this layout."""
    if state.keys() == {"step"}:
        raise InputError(
            f"SOAP: the state of a parameter of shape {layout.shape} is kept by another process; this state dict is "
            "one rank's part: save with gathered_state, called on all ranks, and load that"
        )
    if not state.keys() >= {"step", "exp_avg", "exp_avg_sq", "factors", "bases"}:
        raise InputError(f"SOAP: cannot use the state of another optimizer, with {', '.join(map(str, state))}")
    shape, expected = tuple(state["exp_avg"].shape), (layout.split, *layout.dims)
    has_basis = tuple(factor is not None for factor in state["factors"])
    if (shape, has_basis) != (expected, layout.preconditioned):
        raise InputError(
            f"SOAP: the state of a parameter of shape {layout.shape} is laid out as {shape} with bases {has_basis}, "
            f"but its group asks for {expected} with {layout.preconditioned}: load the checkpoint of this model, and "
            "leave max_precond_dim, merge_dims, precondition_1d, data_format and split as they were at the first step"
        )


def state_tensors(state: Mapping[str, Any]) -> list[Tensor]:
    """List the tensors of a parameter's state, in a fixed order."""
    candidates = (state["exp_avg"], state["exp_avg_sq"], *state["factors"], *state["bases"])
    return [tensor for tensor in candidates if tensor is not None]


def empty_state(layout: Layout, step: int, like: Tensor) -> dict[str, Any]:
    """A parameter's state with uninitialised tensors of `like`'s dtype and device, as `torch.empty` makes them."""
    sizes = _factor_sizes(layout)

    def squares() -> list[Tensor | None]:
        return [None if size is None else like.new_empty(layout.split, size, size) for size in sizes]

    moments = [like.new_empty(layout.split, *layout.dims) for _ in range(2)]
    return {
        "step": step,
        "exp_avg": moments[0],
        "exp_avg_sq": moments[1],
        "factors": squares(),
        "bases": squares(),
    }


def _factor_sizes(layout: Layout) -> list[int | None]:
    """The size of each dimension's factor; `None` where the dimension is not preconditioned."""
    return [dim if has_basis else None for dim, has_basis in zip(layout.dims, layout.preconditioned, strict=True)]


def _cat(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _cat_or_none(parts: list[Tensor | None], like: Tensor) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return _cat(present).to(like) if present else None


def apply_updates_(params: list[Tensor], updates: list[Tensor], group: Mapping[str, Any], step: int) -> None:
    """Move parameters of one dtype by their updates, with Adam's bias correction, then decay them.

    That is `p <- keep * (p - step_size * update)`. Parameters in half precision are rounded only once.
    """
    lr = step_size = float(group["lr"])
    if group["correct_bias"]:
        beta1, beta2 = group["betas"]
        step_size *= (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    keep = 1 - lr * group["weight_decay"]
    if params[0].dtype == updates[0].dtype:
        if keep != 1:  # added, not multiplied: 1 - 1e-6 has lost half of its digits in fp32; and it is faster
            torch._foreach_add_(params, params, alpha=keep - 1)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(params, updates, alpha=-keep * step_size)  # pyright: ignore[reportPrivateImportUsage]
        return
    for param, update in zip(params, updates, strict=True):
        param.copy_(param.to(update.dtype).sub_(update, alpha=step_size).mul_(keep))
